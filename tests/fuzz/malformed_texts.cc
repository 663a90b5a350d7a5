// Text files that are wrong: chat templates, coterie.toml and records of the model store. Templates
// that parse and then misbehave are in template_bombs_test.cc.

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

#include "tests/fuzz/malformed_file.h"

namespace coterie::testing {
namespace {

constexpr auto kDamaged = absl::StatusCode::kDataLoss;
constexpr auto kUnsupported = absl::StatusCode::kUnimplemented;
constexpr auto kTooMuch = absl::StatusCode::kResourceExhausted;
constexpr auto kMistake = absl::StatusCode::kInvalidArgument;

using Files = std::vector<MalformedFile>;

}  // namespace

std::vector<MalformedFile> MalformedTemplates() {
  Files files = {
      {"TagOpen", "a\n{% if 1", kDamaged, "line 2"},
      {"TagEmpty", "{% %}", kDamaged, "line 1"},
      {"TagUnknown", "\n\n{% unless 1 %}", kDamaged, "line 3: unknown tag 'unless'"},
      {"TagUnclosed", "{% if 1 %}", kDamaged, "line 1: the tag 'if' is never closed"},
      {"TagStray", "{% endif %}", kDamaged, "line 1"},
      {"TagCrossed", "{% if 1 %}{% for a in b %}{% endif %}{% endfor %}", kDamaged, "line 1"},
      {"TagUnsupported", "{% include 'x' %}", kUnsupported, "line 1: tag 'include'"},
      {"PrintOpen", "{{ a", kDamaged, "line 1"},
      {"PrintEmpty", "{{ }}", kDamaged, "line 1"},
      {"CommentOpen", "\n{# a", kDamaged, "line 2: the comment is never closed"},
      {"RawOpen", "{% raw %}{{ a", kDamaged, "line 1: the raw block is never closed"},
      {"StringOpen", "{{ 'a }}", kDamaged, "line 1: the string is never closed"},
      {"StringEscape", "{{ '\\ud800' }}", kDamaged, "line 1"},
      {"StringEscapeCut", "{{ '\\u12", kDamaged, "line 1"},
      {"CharacterUnknown", "{{ a \xff b }}", kDamaged, "line 1: expected '}}', found '\\xff'"},
      {"BracketCrossed", "{{ [1) }}", kDamaged, "line 1: unexpected ')'"},
      {"IntegerHuge", "{{ 99999999999999999999 }}", kUnsupported, "line 1"},
      {"BreakOutside", "{% break %}", kDamaged, "line 1"},
      {"FilterUnsupported", "{{ 'a' | urlize }}", kUnsupported, "urlize"},
      {"SourceLong", std::string((256 << 10) + 1, 'x'), kTooMuch, "262145 bytes"},
      {"DeepBrackets", "{{ " + Repeat("(", 90000) + Repeat(")", 90000) + " }}", kTooMuch, "line 1"},
      {"DeepLists", "{{ " + Repeat("[", 90000) + Repeat("]", 90000) + " }}", kTooMuch, "line 1"},
      {"DeepMappings", "{{ " + Repeat("{1:", 50000) + Repeat("}", 50000) + " }}", kTooMuch,
       "line 1"},
      {"DeepNot", "{{ " + Repeat("not ", 60000) + "1 }}", kTooMuch, "line 1"},
      {"DeepMinus", "{{ " + Repeat("-", 100000) + "1 }}", kTooMuch, "line 1"},
      {"DeepSum", "{{ 1" + Repeat("+1", 100000) + " }}", kTooMuch, "line 1"},
      {"DeepPower", "{{ 1" + Repeat("**1", 80000) + " }}", kTooMuch, "line 1"},
      {"DeepFilters", "{{ ''" + Repeat("|trim", 50000) + " }}", kTooMuch, "line 1"},
      {"BracketsOpen", "{{ " + Repeat("(", 100000), kDamaged, "line 1: the tag is never closed"},
      {"ChainedTests", "{{ 1" + Repeat(" is not number", 15000) + " }}", kDamaged, "line 1"},
      {"DeepAttributes", "{{ a" + Repeat(".a", 100000) + " }}", kTooMuch, "line 1"},
      {"DeepCalls", "{{ a" + Repeat("()", 100000) + " }}", kTooMuch, "line 1"},
      {"DeepInlineIf", "{{ 1" + Repeat(" if 1 else 1", 20000) + " }}", kTooMuch, "line 1"},
      {"DeepTags", Repeat("{% if 1 %}", 20000), kTooMuch, "line 1"},
      {"DeepElifs", "{% if 1 %}" + Repeat("{% elif 1 %}", 20000) + "{% for", kDamaged, "line 1"},
      {"DeepTargets", "{% set " + Repeat("(", 90000) + "a" + Repeat(")", 90000) + " = 1 %}",
       kTooMuch, "line 1"},
      {"LongName", "{% " + std::string(200000, 'a') + " %}", kDamaged, "unknown tag 'aaa"},
      {"ManyComments", Repeat("{#", 100000), kDamaged, "never closed"},
      {"ManyRaws", Repeat("{% raw %}", 25000), kDamaged, "never closed"},
  };
  return files;
}

std::string ValidTemplate() {
  return "{%- for m in messages -%}<|{{ m.role }}|>{{ m['content'] | trim }}{% if loop.last %}!"
         "{% endif %}{% endfor %}{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}"
         "{% set ns = namespace(n=0) %}{% macro f(x, y=2) %}{{ x ~ y }}{% endmacro %}{{ f(1) }}"
         "{% if add_generation_prompt %}{% generation %}a{% endgeneration %}{% endif %}";
}

std::vector<MalformedFile> MalformedConfigurations() {
  Files files = {
      {"NotToml", "memory_budget = \n", kMistake, ":1"},
      {"NotUtf8", "home = \"\xff\"\n", kMistake, ":1"},
      {"ZeroByte", std::string("home = \"a\0b\"\n", 13), kMistake, ":1"},
      {"KeyTwice", "threads = 1\nthreads = 2\n", kMistake, ":2"},
      {"KeyUnknown", "\nmemory_bugdet = 1\n", kMistake, ":2: memory_bugdet"},
      {"BudgetZero", "memory_budget = 0\n", kMistake, "memory_budget"},
      {"BudgetNegative", "memory_budget = -1\n", kMistake, "memory_budget"},
      {"BudgetHuge", "memory_budget = \"99999999999999999999GiB\"\n", kMistake, "memory_budget"},
      {"BudgetBeyondInt64", "memory_budget = 99999999999999999999\n", kMistake, ":1"},
      {"BudgetBool", "memory_budget = true\n", kMistake, "memory_budget"},
      {"ThreadsMany", "threads = 1000000\n", kMistake, "threads"},
      {"ThreadsReal", "threads = 1.5\n", kMistake, "threads"},
      {"RouterNumber", "router = 3\n", kMistake, "router"},
      {"RouterNan", "[router]\nresidency_bonus = nan\n", kMistake, ":2: [router] residency_bonus"},
      {"PortLarge", "[server]\nport = 65536\n", kMistake, ":2: [server] port"},
      {"HostEmpty", "[server]\nhost = \"\"\n", kMistake, "[server] host"},
      {"ExpertTable", "[expert]\nname = \"a\"\n", kMistake, "expert"},
      {"ExpertUnnamed", "[[expert]]\nmodel = \"a\"\n", kMistake, "[[expert]] name"},
      {"ExpertWithoutModel", "[[expert]]\nname = \"a\"\n", kMistake, "[[expert]] model"},
      {"ExpertTwice", "[[expert]]\nname=\"a\"\nmodel=\"m\"\n[[expert]]\nname=\"a\"\nmodel=\"m\"\n",
       kMistake, "already the expert of line 1"},
      {"ExpertNumbers", "expert = [1, 2]\n", kMistake, "expert"},
      {"ContextHuge", "[[expert]]\nname=\"a\"\nmodel=\"m\"\ncontext_tokens=99999999\n", kMistake,
       "context_tokens"},
      {"TemperatureNan", "[[expert]]\nname=\"a\"\nmodel=\"m\"\ntemperature=nan\n", kMistake,
       "temperature"},
      {"TopPZero", "[[expert]]\nname=\"a\"\nmodel=\"m\"\ntop_p=0.0\n", kMistake, "top_p"},
      {"DomainUnknown", "[[expert]]\nname=\"a\"\nmodel=\"m\"\ndomains={cod=1.0}\n", kMistake,
       "cod"},
      {"DomainLarge", "[[expert]]\nname=\"a\"\nmodel=\"m\"\ndomains={code=1.5}\n", kMistake,
       "code"},
      {"DeepArrays", "threads = " + Repeat("[", 100000), kMistake, ":1"},
      {"DeepTables", "threads = " + Repeat("{a=", 100000), kMistake, ":1"},
      {"DeepKeys", Repeat("a.", 500000) + "a = 1\n", kMistake, ":1: a key has more than"},
      {"DeepQuotedKeys", "\n" + Repeat("'a' . ", 100000) + "a = 1\n", kMistake, ":2: a key has"},
      {"DeepHeaders", "[" + Repeat("a.", 500000) + "a]\n", kMistake, ":1: a key has more than"},
      {"LongKey", std::string(100000, 'a') + " = 1\n", kMistake, ":1"},
      {"ManyKeys",
       [] {
         std::string keys;
         for (int i = 0; i < 40000; ++i) absl::StrAppend(&keys, "key", i, " = 1\n");
         return keys;
       }(),
       kMistake, "unknown key"},
      {"ManyExperts", Repeat("[[expert]]\nname=\"a\"\nmodel=\"m\"\n", 20000), kMistake, "line 1"},
      {"Long", std::string((1 << 20) + 1, '#'), kMistake, "allowed=1048576"},
      {"BracketBeforeEquals", "[=", kMistake, ":1"},
      {"LetterBeyondAscii", "\xc3\x80 = 1\n", kMistake, ":1"},
  };
  return files;
}

std::string ValidConfiguration() {
  return "memory_budget = \"2GiB\"\nthreads = 2\nhome = \"store\"\n\n[router]\nresidency_bonus = "
         "0.1\n"
         "abstain_below = 0.4\n\n[server]\nhost = \"127.0.0.1\"\nport = 8000\n\n[[expert]]\n"
         "name = \"a\"\nmodel = \"m\"\ntemperature = 0.5\nseed = 3\npinned = true\n"
         "domains = {code = 0.5}\n";
}

std::vector<MalformedFile> MalformedRecords() {
  const auto record = [](absl::string_view name, absl::string_view path, absl::string_view more) {
    return absl::StrCat("{\"name\":", name, ",\"path\":", path, more, "}");
  };
  Files files = {
      {"Empty", "", kDamaged, "empty"},
      {"NoJson", "{\"name\":", kDamaged, "not a JSON object"},
      {"NotUtf8", "{\"name\":\"\xff\"}", kDamaged, "not a JSON object"},
      {"Array", "[]", kDamaged, "not a JSON object"},
      {"Deep", Repeat("[", 60000), kDamaged, "not a JSON object"},
      {"DeepObjects", Repeat("{\"a\":", 10000), kDamaged, "not a JSON object"},
      {"Long", "{" + std::string(1 << 16, ' ') + "}", kDamaged, "too long"},
      {"NameMissing", "{\"path\":\"model.gguf\"}", kDamaged, "\"name\""},
      {"NameNumber", record("3", "\"model.gguf\"", ""), kDamaged, "\"name\""},
      {"NameHostile", record("\"../x\"", "\"model.gguf\"", ""), kDamaged, "name=\"../x\""},
      {"NameLong", record("\"" + std::string(65, 'a') + "\"", "\"model.gguf\"", ""), kDamaged,
       "1 to 64"},
      {"PathMissing", "{\"name\":\"tiny\"}", kDamaged, "\"path\""},
      {"PathEmpty", record("\"tiny\"", "\"\"", ""), kDamaged, "\"path\""},
      {"PathZeroByte", record("\"tiny\"", "\"a\\u0000b\"", ""), kDamaged, "\"path\""},
      {"PathAbsent", record("\"tiny\"", "\"nowhere.gguf\"", ""), kDamaged, "nowhere.gguf"},
      {"HashShort", record("\"tiny\"", "\"model.gguf\"", ",\"sha256\":\"abc\""), kDamaged,
       "sha256"},
      {"HashNumber", record("\"tiny\"", "\"model.gguf\"", ",\"sha256\":3"), kDamaged, "sha256"},
      {"BytesText", record("\"tiny\"", "\"model.gguf\"", ",\"bytes\":\"3\""), kDamaged, "bytes"},
      {"BytesOther", record("\"tiny\"", "\"model.gguf\"", ",\"bytes\":3"), kDamaged, "expected=3"},
      {"BytesHuge", record("\"tiny\"", "\"model.gguf\"", ",\"bytes\":18446744073709551615"),
       kDamaged, "expected="},
  };
  return files;
}

std::string ValidRecord() { return R"({"name":"tiny","path":"model.gguf"})"; }

std::vector<MalformedFile> MalformedJson(int64_t max_bytes) {
  const auto padding = static_cast<size_t>(max_bytes);
  return {
      {"NoJson", "{\"a\":", kDamaged, "JSON"},
      {"Array", "[]", kDamaged, "JSON object"},
      {"NotUtf8", "{\"\xff\":1}", kDamaged, "JSON"},
      {"ZeroByte", std::string("{}\0{}", 5), kDamaged, "zero byte"},
      {"Trailing", "{}{}", kDamaged, "JSON"},
      {"Deep", Repeat("[", 60000), kDamaged, ""},
      {"DeepObjects", Repeat("{\"a\":", 10000), kDamaged, "nested too deep"},
      {"Long", "{" + std::string(padding, ' ') + "}", kDamaged, "too long"},
  };
}

std::string ValidMeasurements() {
  return R"({"version":1,"experts":[{"base":"b","adapter":"home","domains":)"
         R"({"code":{"quality":0.5,"answer_seconds":2}}}]})";
}

std::vector<MalformedFile> MalformedMeasurements() {
  Files files = MalformedJson(1 << 20);
  const auto with = [&](const char* name, absl::string_view from, absl::string_view to,
                        const char* field) {
    files.push_back(
        {name, absl::StrReplaceAll(ValidMeasurements(), {{from, to}}), kDamaged, field});
  };
  files.push_back({"Empty", "", kDamaged, "no JSON object"});
  with("VersionMissing", R"("version":1,)", "", "\"version\"");
  with("VersionLater", R"("version":1)", R"("version":2)", "\"version\"");
  with("ExpertsObject", R"("experts":[)", R"("experts":{},"others":[)", "\"experts\"");
  with("ExpertNumber", R"("experts":[)", R"("experts":[3,)", "not an object");
  with("BaseMissing", R"("base":"b",)", "", "\"base\"");
  with("BaseNumber", R"("base":"b")", R"("base":3)", "\"base\"");
  with("AdapterNumber", R"("adapter":"home")", R"("adapter":3)", "\"adapter\"");
  with("DomainsMissing", R"("domains")", R"("realms")", "\"domains\"");
  with("DomainNumber", R"("domains":{)", R"("domains":{"math":3,)", "'math'");
  with("DomainHostile", R"("domains":{)", R"("domains":{"\n\u001b[2J":3,)", "'\\n\\x1b[2J'");
  with("DomainLong", R"("domains":{)",
       absl::StrCat("\"domains\":{\"", std::string(100000, 'x'), "\":3,"), "'xxx");
  with("QualityAbove", "0.5", "1.5", "'code'");
  with("QualityNegative", "0.5", "-0.1", "'code'");
  with("QualityText", "0.5", "\"0.5\"", "'code'");
  with("SecondsNegative", R"("answer_seconds":2)", R"("answer_seconds":-2)", "'code'");
  with("SecondsHuge", R"("answer_seconds":2)", R"("answer_seconds":1e300)", "'code'");
  with("SecondsMissing", R"(,"answer_seconds":2)", "", "'code'");
  return files;
}

std::string ValidTokenizerJson() {
  return R"({"added_tokens":[{"id":3,"content":"<s>","special":true}],"normalizer":null,)"
         R"("pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"use_regex":true},)"
         R"("post_processor":null,"decoder":{"type":"ByteLevel"},"model":{"type":"BPE",)"
         R"("vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}})";
}

std::vector<MalformedFile> MalformedTokenizerJson() {
  Files files;
  const auto with = [&](const char* name, absl::string_view from, absl::string_view to,
                        const char* field) {
    files.push_back(
        {name, absl::StrReplaceAll(ValidTokenizerJson(), {{from, to}}), kDamaged, field});
  };
  const auto whole = [&](const char* name, std::string text, const char* field) {
    files.push_back({name, std::move(text), kDamaged, field});
  };
  whole("Empty", "", "JSON");
  whole("Cut", "{\"model\":", "JSON");
  whole("Array", "[]", "not a JSON object");
  whole("NotUtf8", "{\"\xff\":1}", "JSON");
  whole("ZeroByte", std::string("{}\0", 3), "zero byte");
  whole("Deep", Repeat("{\"a\":", 10000), "nested too deep");
  whole("NameTwice", "{\"a\":1,\"a\":2}", "'a'");
  whole("ManyValues", "{\"a\":[0" + Repeat(",0", 300000) + "]}", "too many values");
  with("VocabularyArray", R"({"a":0,"b":1,"ab":2})", "[]", "model.vocab");
  with("IdNegative", R"("b":1)", R"("b":-1)", "the id of a token");
  with("IdReal", R"("b":1)", R"("b":1.5)", "the id of a token");
  with("IdText", R"("b":1)", R"("b":"1")", "the id of a token");
  with("IdHuge", R"("b":1)", R"("b":16777216)", "16777216");
  with("MergeOfOne", R"(["a b"])", R"(["ab"])", "merges[0]");
  with("MergeOfThree", R"(["a b"])", R"([["a","b","c"]])", "a merge is not two tokens");
  with("MergeNumber", R"(["a b"])", "[3]", "a merge is not two tokens");
  with("MergeOfUnknown", R"(["a b"])", R"(["a c"])", "merges[0]");
  with("IdGap", R"("ab":2)", R"("ab":900000)", "");
  with("IdTwice", R"("ab":2)", R"("ab":1)", "");
  return files;
}

std::string ValidShardIndex() {
  return R"({"metadata":{"total_size":12},"weight_map":{"a":"a.safetensors","b":"a.safetensors"}})";
}

std::vector<MalformedFile> MalformedShardIndexes() {
  const auto index = [](absl::string_view map) {
    return absl::StrCat("{\"weight_map\":", map, "}");
  };
  return {
      {"NoJson", "{", kDamaged, "JSON"},
      {"Deep", Repeat("{\"a\":", 100000), kDamaged, "JSON"},
      {"Long", "{" + std::string(1 << 20, ' ') + "}", kDamaged, "too long"},
      {"MapMissing", "{}", kDamaged, "weight_map"},
      {"MapEmpty", index("{}"), kDamaged, "weight_map"},
      {"MapArray", index("[]"), kDamaged, "weight_map"},
      {"ShardNumber", index("{\"a\":3}"), kDamaged, "tensor=a"},
      {"ShardAbove", index("{\"a\":\"../a.safetensors\"}"), kDamaged, "tensor=a"},
      {"ShardAbsolute", index("{\"a\":\"/etc/a.safetensors\"}"), kDamaged, "tensor=a"},
      {"ShardHidden", index("{\"a\":\".safetensors\"}"), kDamaged, "tensor=a"},
      {"ZeroByte", index("{\"a\":\"a.safetensors\"}") + std::string(1, '\0'), kDamaged,
       "zero byte"},
      {"ShardAbsent", index("{\"a\":\"b.safetensors\"}"), absl::StatusCode::kNotFound,
       "b.safetensors"},
      {"ShardZeroByte", index("{\"a\":\"a\\u0000.safetensors\"}"), kDamaged, "tensor=a"},
      {"ShardOther", index("{\"a\":\"/etc/passwd\"}"), kDamaged, "tensor=a"},
      {"TensorAbsent", index("{\"c\":\"a.safetensors\"}"), kDamaged, "tensor=c"},
  };
}

}  // namespace coterie::testing
