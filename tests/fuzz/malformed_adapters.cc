// Adapters of which one thing is wrong: both files of PEFT, GGUF files, and what the store of
// adapters writes beside them.

#include <cmath>
#include <functional>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

#include "tests/fuzz/gguf_draft.h"
#include "tests/fuzz/malformed_file.h"
#include "tests/fuzz/safetensors_draft.h"

namespace coterie::testing {
namespace {

constexpr auto kDamaged = absl::StatusCode::kDataLoss;
constexpr auto kUnsupported = absl::StatusCode::kUnimplemented;
constexpr auto kMissing = absl::StatusCode::kNotFound;
constexpr auto kMistake = absl::StatusCode::kInvalidArgument;

// The valid configuration with `fields` in front of others, which come last and so count.
std::string With(absl::string_view fields) {
  return absl::StrCat("{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 4, ",
                      "\"target_modules\": [\"up_proj\"], ", fields, "}");
}

constexpr char kModule[] = "base_model.model.model.layers.0.mlp.up_proj.lora_";

DraftTensor A(std::vector<int64_t> shape) { return {absl::StrCat(kModule, "A.weight"), shape}; }
DraftTensor B(std::vector<int64_t> shape) { return {absl::StrCat(kModule, "B.weight"), shape}; }

constexpr char kGgufA[] = "blk.0.ffn_up.weight.lora_a";
constexpr char kGgufB[] = "blk.0.ffn_up.weight.lora_b";

// Of TinyModel.
GgufDraft GgufAdapter() {
  GgufDraft adapter;
  adapter.Set("general.type", "adapter").Set("adapter.type", "lora");
  adapter.Set("general.architecture", "llama").Set("adapter.lora.alpha", 4.0);
  adapter.SetTensor(kGgufA, TensorType::kF32, {2, 32});
  return adapter.SetTensor(kGgufB, TensorType::kF32, {32, 2});
}

std::string ManyPatterns(int n) {
  std::string patterns = "\"rank_pattern\": {";
  for (int i = 0; i < n; ++i) absl::StrAppend(&patterns, i == 0 ? "" : ",", "\"a", i, "\": 2");
  return patterns + "}";
}

}  // namespace

std::vector<MalformedFile> MalformedAdapterConfigs() {
  return {
      {"Empty", "", kDamaged, ""},
      {"NotJson", "{\"r\": ", kDamaged, ""},
      {"List", "[]", kDamaged, ""},
      {"NoType", "{\"r\": 2, \"lora_alpha\": 4}", kDamaged, "peft_type"},
      {"TypeLoha", "{\"peft_type\": \"LOHA\"}", kUnsupported, "peft_type"},
      {"NoRank", "{\"peft_type\": \"LORA\", \"lora_alpha\": 4}", kDamaged, "'r'"},
      {"RankZero", With("\"r\": 0"), kDamaged, "'r'"},
      {"RankHuge", With("\"r\": 18446744073709551615"), kDamaged, "'r'"},
      {"RankReal", With("\"r\": 2.5"), kDamaged, "'r'"},
      {"RankText", With("\"r\": \"2\""), kDamaged, "'r'"},
      {"AlphaHuge", With("\"lora_alpha\": 1e308"), kDamaged, "'lora_alpha'"},
      {"AlphaText", With("\"lora_alpha\": \"4\""), kDamaged, "'lora_alpha'"},
      {"RsloraText", With("\"use_rslora\": \"yes\""), kDamaged, "'use_rslora'"},
      {"BaseNumber", With("\"base_model_name_or_path\": 3"), kDamaged, "base_model"},
      {"TargetsNumber", With("\"target_modules\": 3"), kDamaged, "'target_modules'"},
      {"TargetsNested", With("\"target_modules\": [[\"a\"]]"), kDamaged, "'target_modules'"},
      {"TargetsOther", With("\"target_modules\": [\"down_proj\"]"), kDamaged, "target_modules"},
      {"LayersText", With("\"layers_to_transform\": [\"1\"]"), kDamaged, "layers_to_transform"},
      {"LayersOther", With("\"layers_to_transform\": 5"), kDamaged, "layers_to_transform"},
      {"PatternList", With("\"rank_pattern\": [2]"), kDamaged, "'rank_pattern'"},
      {"PatternRankZero", With("\"rank_pattern\": {\"a\": 0}"), kDamaged, "rank_pattern"},
      {"PatternRank", With("\"rank_pattern\": {\"up_proj\": 3}"), kDamaged, "rank_pattern"},
      {"PatternsMany", With(ManyPatterns(5000)), kDamaged, "'rank_pattern'"},
      {"PatternRegex", With("\"alpha_pattern\": {\"(a+)+$\": 2}"), kUnsupported, "alpha_pattern"},
      {"PatternLong", With("\"alpha_pattern\": {\"" + std::string(300, 'a') + "\": 2}"), kMistake,
       "alpha_pattern"},
      {"PatternsDisagree", With("\"alpha_pattern\": {\"up_proj\": 2, \"mlp.up_proj\": 3}"),
       kUnsupported, "alpha_pattern"},
      {"Dora", With("\"use_dora\": true"), kUnsupported, "'use_dora'"},
      {"Unknown", With("\"a_field\": {\"b\": 1}"), kUnsupported, "'a_field'"},
      {"UnknownLong", With("\"" + std::string(100000, 'x') + "\": 1"), kUnsupported, "'xxx"},
      {"Deep", With("\"x\": " + std::string(50000, '[') + std::string(50000, ']')), kDamaged, ""},
      {"NotUtf8", With("\"\xff\": 1"), kDamaged, ""},
      {"ZeroByte", ValidAdapterConfig() + std::string(1, '\0'), kDamaged, "zero byte"},
      {"TooLong", With("\"x\": \"" + std::string(2 << 20, 'x') + "\""), kDamaged, ""},
  };
}

std::string ValidAdapterConfig() {
  return With(
      "\"rank_pattern\": {}, \"alpha_pattern\": {\"layers.1\\\\d*.mlp.up_proj\": 8}, "
      "\"use_rslora\": true, \"bias\": \"none\", \"layers_to_transform\": [0], "
      "\"base_model_name_or_path\": \"org/tiny\"");
}

std::string ValidAdapterTensors() { return SafetensorsBytes({A({2, 16}), B({16, 2})}, "home"); }

std::vector<MalformedFile> MalformedAdapterTensors() {
  const auto named = [](const std::string& name) {
    return SafetensorsBytes({A({2, 16}), B({16, 2}), {name, {2, 16}}});
  };
  const auto of_value = [](float value) {
    DraftTensor b = B({16, 2});
    b.value = value;
    return SafetensorsBytes({A({2, 16}), b});
  };
  DraftTensor integers = A({2, 16});
  integers.type = SafetensorsType::kI32;
  const std::string layers = "base_model.model.model.layers.";
  std::vector<MalformedFile> files = {
      {"NoTensors", SafetensorsBytes({}), kDamaged, "no tensors"},
      {"NoB", SafetensorsBytes({A({2, 16})}), kDamaged, "lora_A.weight"},
      {"NoA", SafetensorsBytes({B({16, 2})}), kDamaged, "lora_B.weight"},
      {"RanksDiffer", SafetensorsBytes({A({2, 16}), B({16, 3})}), kDamaged, "different ranks"},
      {"RankZero", SafetensorsBytes({A({0, 16}), B({16, 0})}), kDamaged, "no matrix"},
      {"RankHuge", SafetensorsBytes({A({5000, 1}), B({1, 5000})}), kDamaged, "too large"},
      {"Vector", SafetensorsBytes({A({32}), B({16, 2})}), kDamaged, "no matrix"},
      {"Cube", SafetensorsBytes({A({2, 4, 4}), B({16, 2})}), kDamaged, "no matrix"},
      {"Nan", of_value(std::nanf("")), kDamaged, "lora_B.weight"},
      {"Infinite", of_value(INFINITY), kDamaged, "lora_B.weight"},
      {"Integers", SafetensorsBytes({integers, B({16, 2})}), kUnsupported, "I32"},
      {"ForeignTensor", named("base_model.model.lm_head.weight"), kUnsupported, "lm_head"},
      {"EmbeddingTensor", named("base_model.model.model.embed_tokens.lora_embedding_A"),
       kUnsupported, "lora_embedding_A"},
      {"LayerPadded", named(layers + "00.mlp.up_proj.lora_A.weight"), kUnsupported, "layers.00."},
      {"LayerNegative", named(layers + "-1.mlp.up_proj.lora_A.weight"), kUnsupported, "layers.-1."},
      {"LayerHuge", named(layers + "18446744073709551616.mlp.up_proj.lora_A.weight"), kUnsupported,
       "layers.1844674"},
      {"NameHostile", SafetensorsBytes({A({2, 16}), B({16, 2})}, "../x"), kMistake, "name='../x'"},
      {"NameLong", SafetensorsBytes({A({2, 16}), B({16, 2})}, std::string(100000, 'n')), kMistake,
       "'nnn"},
  };
  for (MalformedFile& file : MalformedSafetensors()) files.push_back(std::move(file));
  return files;
}

std::string ValidGgufAdapter() { return GgufAdapter().Bytes(); }

std::vector<MalformedFile> MalformedGgufAdapters() {
  std::vector<MalformedFile> files;
  const auto add = [&](const char* name, const std::function<void(GgufDraft&)>& change,
                       const char* field, absl::StatusCode code = kDamaged) {
    GgufDraft draft = GgufAdapter();
    change(draft);
    files.push_back({name, draft.Bytes(), code, field});
  };
  const auto key = [&](const char* name, const char* key, GgufDraft::Value value,
                       absl::StatusCode code = kDamaged) {
    add(
        name, [&](GgufDraft& draft) { draft.Set(key, value); }, key, code);
  };
  const auto shapes = [&](const char* name, std::vector<int64_t> a, std::vector<int64_t> b,
                          const char* field, absl::StatusCode code = kDamaged) {
    add(
        name,
        [&](GgufDraft& draft) {
          draft.SetTensor(kGgufA, TensorType::kF32, a).SetTensor(kGgufB, TensorType::kF32, b);
        },
        field, code);
  };
  const auto beside = [&](const char* name, const char* tensor, absl::StatusCode code) {
    add(
        name,
        [&](GgufDraft& draft) {
          draft.SetTensor(tensor, TensorType::kF32, {2, 32});
        },
        tensor, code);
  };
  for (const char* needed :
       {"general.type", "adapter.type", "general.architecture", "adapter.lora.alpha"}) {
    std::string name = absl::StrCat(needed, "Missing");
    std::erase(name, '.');
    add(
        name.c_str(), [&](GgufDraft& draft) { draft.Drop(needed); }, needed, kMissing);
  }
  key("KindModel", "general.type", "model", kMistake);
  key("KindNumber", "general.type", int64_t{3});
  key("TypeOther", "adapter.type", "loha\xff", kMistake);
  key("ArchitectureOther", "general.architecture", "qwen2", kMistake);
  key("AlphaNan", "adapter.lora.alpha", std::nan(""));
  key("AlphaHuge", "adapter.lora.alpha", 1e300);
  key("AlphaText", "adapter.lora.alpha", "4");
  key("Invocation", "adapter.alora.invocation_tokens", std::vector<int64_t>{1}, kUnsupported);
  key("BaseNumber", "coterie.base_id", int64_t{3});
  add(
      "NameHostile", [](GgufDraft& draft) { draft.Set("coterie.name", "../x"); }, "name='../x'",
      kMistake);
  shapes("RanksDiffer", {2, 32}, {32, 3}, "different ranks");
  shapes("RankZero", {0, 32}, {32, 0}, "no matrix");
  shapes("RankHuge", {5000, 1}, {1, 5000}, "too large");
  shapes("Vector", {32}, {32, 2}, "no matrix");
  shapes("InputOther", {2, 64}, {32, 2}, "extents", kMistake);
  shapes("OutputOther", {2, 32}, {64, 2}, "extents", kMistake);
  beside("EmbeddingTensor", "token_embd.weight.lora_a", kUnsupported);
  beside("ForeignTensor", "blk.0.attn_norm.weight", kUnsupported);
  beside("LayerPadded", "blk.00.ffn_up.weight.lora_a", kUnsupported);
  beside("LayerHuge", "blk.18446744073709551616.ffn_up.weight.lora_a", kUnsupported);
  beside("LayerWithoutB", "blk.0.ffn_down.weight.lora_a", kDamaged);
  add(
      "LayerBeyond",
      [](GgufDraft& draft) {
        draft.SetTensor("blk.1.ffn_up.weight.lora_a", TensorType::kF32, {2, 32});
        draft.SetTensor("blk.1.ffn_up.weight.lora_b", TensorType::kF32, {32, 2});
      },
      "n_layers=1", kMistake);
  const float nan = std::nanf("");
  const std::string nans(reinterpret_cast<const char*>(&nan), sizeof(nan));
  add(
      "Nan",
      [&](GgufDraft& draft) {
        draft.SetTensor(kGgufA, TensorType::kF32, {1, 1}, nans);
        draft.SetTensor(kGgufB, TensorType::kF32, {1, 1}, nans);
      },
      "not finite");
  for (MalformedFile& file : MalformedGguf()) files.push_back(std::move(file));
  return files;
}

std::string ValidLedger() {
  return R"({"interactions":["i1"],"trainer":{"rank":2},"metrics":{},"files":{}})";
}

std::vector<MalformedFile> MalformedLedgers() {
  std::vector<MalformedFile> files = MalformedJson(16 << 20);
  const auto with = [&](const char* name, absl::string_view from, absl::string_view to,
                        const char* field) {
    files.push_back({name, absl::StrReplaceAll(ValidLedger(), {{from, to}}), kDamaged, field});
  };
  files.push_back({"Empty", "", kDamaged, "no JSON object"});
  with("InteractionsMissing", R"("interactions":["i1"],)", "", "interactions");
  with("InteractionsObject", R"(["i1"])", "{}", "interactions");
  with("InteractionNumber", R"(["i1"])", "[3]", "interaction");
  with("FilesMissing", R"(,"files":{})", "", "files");
  with("FilesList", R"("files":{})", R"("files":[])", "files");
  std::string lists = "[[]";
  for (int i = 0; i < (1 << 20); ++i) lists += ",[]";
  with("ManyLists", R"({"rank":2})", lists + "]", "too many values");
  return files;
}

std::vector<MalformedFile> MalformedCurrentVersions() {
  std::vector<MalformedFile> files;
  for (const auto& [name, text] :
       std::vector<std::pair<const char*, std::string>>{{"Empty", ""},
                                                        {"Zero", "0"},
                                                        {"Negative", "-1"},
                                                        {"Real", "1.5"},
                                                        {"Text", "v0001"},
                                                        {"Beyond", "1000000"},
                                                        {"BeyondInt64", "18446744073709551616"},
                                                        {"ZeroByte", std::string("1\0", 2)},
                                                        {"Two", "1\n2"},
                                                        {"Long", std::string(65, '1')}}) {
    files.push_back({name, text, kDamaged, ""});
  }
  return files;
}

}  // namespace coterie::testing
