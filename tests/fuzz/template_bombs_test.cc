// Templates that are made to take for ever or to fill the memory. Each stops by itself, in bounded
// time and memory, and says in which line.

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "core/formats/chat_template.h"
#include "tests/fuzz/allocation_meter.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::AllocationMeter;
using ::coterie::testing::CpuSecondsOf;
using ::coterie::testing::StatusIs;
using ::testing::HasSubstr;

constexpr int64_t kMaxHeapBytes = 150'000'000;
constexpr double kMaxSeconds = 1.0;

struct Bomb {
  const char* name;
  std::string source;
};

// `body` as often as Jinja's sandbox lets a loop run, squared.
std::string ForEver(const std::string& setup, const std::string& body) {
  return setup + "{% for i in range(99999) %}{% for j in range(99999) %}" + body +
         "{% endfor %}{% endfor %}";
}

// A namespace n whose s is doubled 90 times.
std::string Doubled(const std::string& begin, const std::string& twice) {
  return "{% set n = namespace(s=" + begin + ") %}{% for i in range(90) %}{% set n.s = " + twice +
         " %}{% endfor %}";
}

std::string Variables(int n) {
  std::string sets;
  for (int i = 0; i < n; ++i) absl::StrAppend(&sets, "{%set v", i, "=1%}");
  return sets;
}

std::string Parameters(int n, const char* value) {
  std::string list;
  for (int i = 0; i < n; ++i) absl::StrAppend(&list, i > 0 ? "," : "", "p", i, value);
  return list;
}

std::string Times(const std::string& text, int n) {
  std::string repeated;
  for (int i = 0; i < n; ++i) repeated += text;
  return repeated;
}

std::vector<Bomb> Bombs() {
  // Repeating one letter is work; repeating a long literal is little.
  const std::string many(100000, 'a');
  const std::string long_text = "{% set x = '" + many + "' * 20 %}";
  const std::string half = "{% set x = '" + many + "' * 4 %}{% set y = x[:200000] ~ 'b' %}";
  return {
      {"Loops", ForEver("", "{{ i }}")},
      {"EmptyLoops", ForEver("", "")},
      {"Recursion", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"},
      {"WideRecursion", "{% macro f() %}{{ f() }}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}"},
      {"CallRecursion",
       "{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{% endmacro %}{{ f() }}"},
      {"DoubledText", Doubled("'x'", "n.s + n.s")},
      {"DoubledByTilde", Doubled("'x'", "n.s ~ n.s")},
      {"DoubledByJoin", Doubled("'x'", "[n.s, n.s] | join(n.s)")},
      {"DoubledByReplace", Doubled("'xx'", "n.s | replace('x', n.s)")},
      {"DoubledByFormat", Doubled("'x'", "'{}{}'.format(n.s, n.s)")},
      {"DoubledBySetBlock",
       "{% set n = namespace(s='x') %}{% for i in range(90) %}{% set n.s %}{{ n.s }}{{ n.s }}"
       "{% endset %}{% endfor %}"},
      {"DoubledList", Doubled("[1]", "n.s + n.s")},
      {"SharedLists", Doubled("[1]", "[n.s, n.s]") + "{{ n.s }}"},
      {"SharedListsJson", Doubled("[1]", "[n.s, n.s]") + "{{ n.s | tojson }}"},
      {"SharedListsEqual", Doubled("[1]", "[n.s, n.s]") + "{{ n.s == n.s[0] }}"},
      {"SharedListsOrder", Doubled("[1]", "[n.s, n.s]") + "{{ n.s < n.s[0] }}"},
      {"SharedListsContain", Doubled("[1]", "[n.s, n.s]") + "{{ n.s[0][0] in n.s }}"},
      {"DeepLists", Doubled("[1]", "[n.s]") + Doubled("n.s", "[n.s]")},
      {"TextTimes", "{{ 'x' * 9000000000000 }}"},
      {"ListTimes", "{{ [1] * 9000000000000 }}"},
      {"Range", "{{ range(1000000000) }}"},
      {"RangeDown", "{{ range(1000000000, 0, -1) }}"},
      {"Indent", "{{ 'x' | indent(9000000000000) }}"},
      {"IndentLines", "{{ ('\n' * 100000) | indent(100000, blank=true) }}"},
      {"JsonIndent", "{{ [1] | tojson(indent=9000000000) }}"},
      {"JsonIndentElements", "{{ range(99999) | list | tojson(indent=99999) }}"},
      {"JsonIndentText", "{{ range(99999) | list | tojson(indent='" + many + "') }}"},
      {"JsonSeparators", "{{ range(99999) | list | tojson(separators=['" + many + "', '']) }}"},
      {"ReplaceEverywhere", "{{ '" + many + "' | replace('', '" + many + "') }}"},
      {"Batch", "{{ range(99999) | batch(1) | list | batch(99999, 'x') | list | length }}" +
                    ForEver("", "{{ range(9) | batch(99999, 'x') | list | length }}")},
      {"ManyVariables", ForEver(Variables(15000), "{{ v14999 }}{{ missing }}")},
      {"ManyVariablesSet", ForEver(Variables(15000), "{% set v14999 = 2 %}")},
      {"ManyParameters",
       ForEver("{% macro f(" + Parameters(10000, "=1") + ") %}{% endmacro %}", "{{ f() }}")},
      {"ManyArguments", ForEver("{% macro f(" + Parameters(5000, "=1") + ") %}{% endmacro %}",
                                "{{ f(" + Parameters(5000, "=2") + ") }}")},
      {"ManyAttributes",
       ForEver("{% set n = namespace(" + Parameters(10000, "=1") + ") %}", "{{ n.p9999 }}")},
      {"MacrosInLoops", ForEver("", "{% macro f(a=1) %}{% endmacro %}")},
      {"LongKeys", ForEver(long_text, "{{ {'a': 1}[x] }}")},
      {"LongKeysGet", ForEver(long_text, "{{ {'a': 1}.get(x) }}")},
      {"LongKeysIn", ForEver(long_text, "{{ x in {'a': 1} }}")},
      {"LongKeysMade", ForEver(long_text, "{{ {x: 1} | length }}{{ dict(a=x) | length }}")},
      {"LongNames", ForEver(long_text, "{{ 'a' | attr(x) }}")},
      {"LongPaths", ForEver("{% set x = '0" + Times(".0", 40000) + "' %}",
                            "{{ ['a'] | map(attribute=x) | list | length }}")},
      {"LongUnique", ForEver(long_text, "{{ [x, x] | unique | list | length }}")},
      {"LongAffix", ForEver(half, "{{ x.startswith(x) }}{{ x.endswith(x) }}")},
      {"ManyAffixes", ForEver("{% set t = ['b'] * 90000 %}", "{{ 'a'.startswith(t) }}")},
      {"LongRemoved", ForEver(half, "{{ x.removeprefix(x) }}")},
      {"SearchIn", ForEver(half, "{{ y in x }}")},
      {"SearchFind", ForEver(half, "{{ x.find(y) }}{{ x.count(y) }}")},
      {"SearchBackwards", ForEver(half, "{{ x.rfind(y) }}")},
      {"SplitBackwards", ForEver(half, "{{ x.rsplit(y) | length }}")},
      {"PartBackwards", ForEver(half, "{{ x.rpartition(y) | length }}")},
      {"StripMany", ForEver(half, "{{ x.strip(y) | length }}")},
      {"Reverse", ForEver(long_text, "{{ x | reverse | length }}{{ x[::-1] | length }}")},
      {"Case", ForEver(long_text, "{{ x | upper | length }}{{ x.title() | length }}")},
      {"Escape",
       ForEver("{% set x = '" + std::string(90000, '<') + "' %}", "{{ x | e | length }}")},
      {"Words", ForEver(long_text, "{{ x | wordcount }}{{ x.split() | length }}")},
      {"Lines", ForEver("{% set x = '" + std::string(90000, '\n') + "' %}",
                        "{{ x.splitlines() | length }}")},
      {"Numbers",
       ForEver("{% set x = '" + std::string(90000, '9') + "' %}", "{{ x | int }}{{ x | float }}")},
      {"Power", ForEver("", "{{ 1 ** 9223372036854775807 }}")},
      {"Characters", ForEver(long_text, "{{ x[1999999] }}{{ x | list | length }}")},
      {"Sorted", ForEver("{% set x = range(9999) | list %}", "{{ x | sort | length }}")},
      {"SharedJoin", long_text + "{% set l = [x] * 90000 %}{{ ','.join(l) | length }}"},
      {"SharedJoinFilter", long_text + "{% set l = [x] * 90000 %}{{ l | join | length }}"},
      {"SharedMap", long_text + "{% set l = [x] * 90000 %}{{ l | map('upper') | list | length }}"},
      {"SharedConcat", long_text + "{{ " +
                           [] {
                             std::string tilde = "x";
                             for (int i = 0; i < 20000; ++i) tilde += "~x";
                             return tilde;
                           }() +
                           " }}"},
      // Each letter of another origin, kept in many copies.
      {"Runs", "{% set x = '" + Times("ab", 9999) + "' | replace('a', messages[0].content) %}" +
                   Doubled("[x | upper]", "n.s + [x | upper, x | lower]")},
      {"Output", ForEver("", many)},
      {"OutputOfMacro", "{% macro f() %}" + ForEver("", many) + "{% endmacro %}{{ f() | length }}"},
  };
}

class TemplateBombTest : public ::testing::Test {
 protected:
  static absl::Status Render(const std::string& source) {
    const auto chat_template = ChatTemplate::Parse(source, "bomb");
    if (!chat_template.ok()) return chat_template.status();
    return (*chat_template)->Render({{"user", "u", ""}}, {}).status();
  }
};

TEST_F(TemplateBombTest, StopsInBoundedTimeAndMemoryAndNamesTheLine) {
  for (const Bomb& bomb : Bombs()) {
    SCOPED_TRACE(bomb.name);
    absl::Status status;
    int64_t peak_bytes = 0;
    const double seconds = CpuSecondsOf([&] {
      const AllocationMeter meter;
      status = Render(bomb.source);
      peak_bytes = meter.PeakBytes();
    });
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("bomb: line ")));
    EXPECT_LE(peak_bytes, kMaxHeapBytes);
    EXPECT_LT(seconds, kMaxSeconds * testing::kSlowdown);
    if (::getenv("COTERIE_SHOW_BOMBS") != nullptr) {
      std::printf("%-20s %6.2f s %6.1f MB %s\n", bomb.name, seconds,
                  static_cast<double>(peak_bytes) / 1e6,
                  std::string(status.message()).substr(0, 90).c_str());
    }
  }
}

TEST_F(TemplateBombTest, LongWordsOfATemplateMakeShortMessages) {
  const std::string name(100000, 'x');
  for (const std::string& source :
       {"{{ raise_exception('" + name + "') }}", "{{ a." + name + ".b }}",
        "{{ {}." + name + ".b }}", "{{ 'a'['" + name + "'].b }}",
        "{{ 1 | int(" + name + "=1) }}"}) {
    const absl::Status status = Render(source);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << source.substr(0, 20);
    EXPECT_LT(status.message().size(), 3000u);
  }
}

TEST_F(TemplateBombTest, LimitsGrowWithTheConversation) {
  const auto chat_template =
      ChatTemplate::Parse("{% for m in messages %}{{ m.content }}{% endfor %}", "plain");
  COTERIE_ASSERT_OK(chat_template);
  COTERIE_EXPECT_OK((*chat_template)->Render({{"user", std::string(30 << 20, 'u'), ""}}, {}));
}

}  // namespace
}  // namespace coterie
