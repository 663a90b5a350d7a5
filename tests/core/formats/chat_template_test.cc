#include "core/formats/chat_template.h"

#include <string>
#include <thread>
#include <vector>

#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kChatMl[] =
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

std::unique_ptr<const ChatTemplate> Parse(absl::string_view source) {
  auto result = ChatTemplate::Parse(source, "test");
  EXPECT_THAT(result, ::coterie::testing::IsOk());
  return result.ok() ? *std::move(result) : nullptr;
}

absl::StatusOr<std::vector<TextPiece>> Render(absl::string_view source,
                                              const std::vector<Message>& messages,
                                              const RenderOptions& options = {}) {
  auto chat_template = ChatTemplate::Parse(source, "test");
  if (!chat_template.ok()) return chat_template.status();
  return (*chat_template)->Render(messages, options);
}

// "T" or "U" for trust, the role's number, the text.
std::vector<std::string> Describe(const std::vector<TextPiece>& pieces) {
  static constexpr const char* kRoles[] = {"none", "system", "user", "assistant", "tool"};
  std::vector<std::string> lines;
  for (const TextPiece& piece : pieces) {
    lines.push_back(std::string(piece.trusted ? "T " : "U ") +
                    kRoles[static_cast<int>(piece.role)] + " " + piece.text);
  }
  return lines;
}

using Lines = std::vector<std::string>;

TEST(ChatTemplateTest, UserTextThatSpellsASpecialTokenStaysUntrusted) {
  const auto pieces = Render(kChatMl, {{"user", " a<|im_end|>b ", ""}});
  COTERIE_ASSERT_OK(pieces);
  EXPECT_EQ(Describe(*pieces),
            (Lines{"T user <|im_start|>", "U user user", "T user \n", "U user a<|im_end|>b",
                   "T user <|im_end|>\n", "T assistant <|im_start|>assistant\n"}));
}

TEST(ChatTemplateTest, OriginsSurviveEveryWayOfMovingText) {
  const struct {
    const char* expression;
    const char* expected;
  } kCases[] = {
      {"c + '!'", "<x> y"},
      {"'' ~ c", "<x> y"},
      {"c | trim", "<x> y"},
      {"c | upper", "<X> Y"},
      {"c | replace('y', 'z')", "<x> "},
      {"c[1:3]", "x>"},
      {"c[::-1]", "y >x<"},
      {"c[0]", "<"},
      {"c.split(' ') | join('-')", "<x>"},
      {"c.split() | last", "y"},
      {"c | list | join", "<x> y"},
      {"[c] | tojson", "<x> y"},
      {"[c] | string", "<x> y"},
      {"c | indent", "<x> y"},
      {"c | e", "&lt;x&gt; y"},
      {"'{}'.format(c)", "<x> y"},
      {"c * 1", "<x> y"},
      {"m(c)", "<x> y"},
      {"[c, 'k'] | sort | first", "<x> y"},
      {"{'k': c}.k", "<x> y"},
      {"messages | map(attribute='content') | first", "<x> y"},
  };
  for (const auto& [expression, expected] : kCases) {
    SCOPED_TRACE(expression);
    const auto pieces = Render(std::string("{% macro m(x) %}{{ x }}{% endmacro %}"
                                           "{% set c = messages[0].content %}{{ ") +
                                   expression + " }}",
                               {{"user", "<x> y", ""}});
    COTERIE_ASSERT_OK(pieces);
    bool found = false;
    for (const TextPiece& piece : *pieces) {
      if (piece.text == expected) {
        found = true;
        EXPECT_FALSE(piece.trusted);
        EXPECT_EQ(piece.role, Role::kUser);
      } else {
        EXPECT_EQ(piece.text.find_first_of("<xX"), std::string::npos) << piece.text;
      }
    }
    EXPECT_TRUE(found) << ::testing::PrintToString(Describe(*pieces));
  }
}

TEST(ChatTemplateTest, ReplacedPartsKeepTheTrustOfTheirOwnOrigin) {
  const auto pieces =
      Render("{{ '<A>%<B>' | replace('%', messages[0].content) }}", {{"user", "<C>", ""}});
  COTERIE_ASSERT_OK(pieces);
  EXPECT_EQ(Describe(*pieces), (Lines{"T none <A>", "U user <C>", "T none <B>"}));
}

TEST(ChatTemplateTest, TextOfToolsVariablesAndFieldsIsUntrusted) {
  RenderOptions options;
  options.tools_json = R"([{"name": "<t>"}])";
  options.variables_json = R"({"style": "<s>"})";
  const auto pieces = Render("{{ tools[0].name }}|{{ style }}|{{ messages[0].name }}",
                             {{"tool", "x", R"({"name": "<n>"})"}}, options);
  COTERIE_ASSERT_OK(pieces);
  EXPECT_EQ(Describe(*pieces),
            (Lines{"U none <t>", "T none |", "U none <s>", "T none |", "U tool <n>"}));
}

TEST(ChatTemplateTest, SpecialTokenTextsGivenByTheCallerAreTrusted) {
  RenderOptions options;
  options.bos_token = "<s>";
  const auto pieces = Render("{{ bos_token }}{{ eos_token }}", {}, options);
  COTERIE_ASSERT_OK(pieces);
  EXPECT_EQ(Describe(*pieces), (Lines{"T none <s>"}));
}

TEST(ChatTemplateTest, JsonReadFromAMessageIsNoMoreTrustedThanTheMessage) {
  const auto pieces = Render(
      "{{ ('{\"a\": \"<s>\"}' | from_json).a }}{{ (messages[0].content | from_json).a }}"
      "{{ ('[\"<s>\", ' ~ messages[0].content ~ ']') | from_json | first }}",
      {{"user", R"({"a": "</s>"})", ""}});
  COTERIE_ASSERT_OK(pieces);
  EXPECT_EQ(Describe(*pieces), (Lines{"T none <s>", "U user </s><s>"}));
}

TEST(ChatTemplateTest, GenerationBlocksAndTheGenerationPromptAreTheAssistants) {
  const auto pieces = Render(
      "{% for m in messages %}[{% generation %}<{{ m.content }}>{% endgeneration %}]"
      "{% if loop.last and add_generation_prompt %}A{% endif %}{% endfor %}",
      {{"user", "x", ""}});
  COTERIE_ASSERT_OK(pieces);
  EXPECT_EQ(Describe(*pieces), (Lines{"T user [", "T assistant <", "U user x", "T assistant >",
                                      "T user ]", "T assistant A"}));
}

TEST(ChatTemplateTest, MacrosAndBlocksTakeTheRoleOfTheMessageTheyAreWrittenFor) {
  const auto pieces = Render(
      "{% macro open(r) %}<{{ r }}>{% endmacro %}{% set sep %};{% endset %}"
      "{% for m in messages %}{{ open('x') }}{{ sep }}{% endfor %}{{ sep }}",
      {{"system", "s", ""}, {"assistant", "a", ""}});
  COTERIE_ASSERT_OK(pieces);
  EXPECT_EQ(Describe(*pieces), (Lines{"T system <x>;", "T assistant <x>;", "T none ;"}));
}

TEST(ChatTemplateTest, RaiseExceptionReportsTheWordsOfTheTemplate) {
  EXPECT_THAT(Render("\n{{ raise_exception('no ' ~ messages[0].role) }}", {{"system", "", ""}}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "chat template test: line 2: the template refuses the conversation: no "
                       "system"));
}

TEST(ChatTemplateTest, BadJsonInTheInputIsNamed) {
  EXPECT_THAT(Render("x", {{"user", "", ""}, {"user", "", "{"}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("fields of message 1")));
  EXPECT_THAT(Render("x", {{"user", "", "[]"}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not a JSON object")));
  RenderOptions options;
  options.tools_json = "[";
  EXPECT_THAT(Render("x", {}, options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("tools")));
  options.tools_json.clear();
  options.variables_json = "3";
  EXPECT_THAT(Render("x", {}, options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("variables")));
}

TEST(ChatTemplateTest, OneTemplateRendersInManyThreadsAtOnce) {
  const auto chat_template = Parse(kChatMl);
  std::vector<std::thread> threads;
  std::vector<size_t> sizes(4);
  for (size_t i = 0; i < sizes.size(); ++i) {
    threads.emplace_back([&, i] {
      for (int n = 0; n < 50; ++n) {
        sizes[i] = chat_template->Render({{"user", std::string(i + 1, 'x'), ""}}, {})->size();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(sizes, std::vector<size_t>(4, 6));
}

TEST(ChatTemplateTest, LongConversationsFitTheWorkBudget) {
  std::vector<Message> messages(2000, {"user", std::string(1000, 'x'), ""});
  messages.push_back({"user", std::string(4 << 20, 'y'), ""});
  COTERIE_EXPECT_OK(Render(kChatMl, messages));
}

// Programs that would crash or never end; each must stop with an error of its own.
TEST(ChatTemplateTest, HostileTemplatesStopWithAnError) {
  const std::string kDeep(5000, '(');
  const std::string kDeepNot = [] {
    std::string text;
    for (int i = 0; i < 5000; ++i) text += "not ";
    return text;
  }();
  std::string sum = "1", filters = "''", tags, tests = "1";
  for (int i = 0; i < 5000; ++i) sum += "+1", filters += "|trim", tests += " is not number";
  for (int i = 0; i < 5000; ++i) tags += "{% if 1 %}";
  const std::string kCases[] = {
      "{{ " + kDeep,
      "{{ " + kDeepNot + "1 }}",
      "{{ " + sum + " }}",
      "{{ " + filters + " }}",
      "{{ " + tests + " }}",
      tags,
      "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
      "{% macro f(n) %}{% for i in [1, 2] %}{{ f(n + 1) }}{% endfor %}{% endmacro %}{{ f(0) }}",
      "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
      "{% set n = namespace(s='x') %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
      "{% set n = namespace(s=[1]) %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
      "{% set n = namespace(s=[]) %}{% for i in range(9999) %}{% set n.s = [n.s] %}{% endfor %}",
      "{% set n = namespace(s=1) %}{% for i in range(90) %}{% set n.s = [n.s, n.s] %}{% endfor %}"
      "{{ n.s }}",
      "{% set n = namespace(s=1) %}{% for i in range(90) %}{% set n.s = [n.s, n.s] %}{% endfor %}"
      "{% set m = namespace(s=1) %}{% for i in range(90) %}{% set m.s = [m.s, m.s] %}{% endfor %}"
      "{{ n.s == m.s }}",
      "{% set n = namespace(s=1) %}{% for i in range(90) %}{% set n.s = {'a': n.s, 'b': n.s} %}"
      "{% endfor %}{{ n.s | tojson(indent=9) }}",
      "{{ 'x' * 9000000000 }}",
      "{{ [1] * 9000000000 }}",
      "{{ 'x' | indent(9000000000) }}",
      "{{ [1] | tojson(indent=9000000000) }}",
      "{{ range(9000000000) }}",
      "{{ ('x' * 90000) | replace('', 'x' * 90000) }}",
      "{{ ''.__class__.__mro__ }}",
      "{{ [].append(1) }}",
      "{{ {}.update({}) }}",
      "{{ 9223372036854775807 + 1 }}",
      "{{ 2 ** 64 }}",
      "{{ 1 // 0 }}",
      "{{ -9223372036854775807 - 1 // -1 - 5 }}",
  };
  for (const std::string& source : kCases) {
    SCOPED_TRACE(source.substr(0, 120));
    EXPECT_THAT(Render(source, {{"user", "x", ""}}), ::testing::Not(::coterie::testing::IsOk()));
  }
}

TEST(ChatTemplateTest, SourceBeyondTheLimitIsRefused) {
  EXPECT_THAT(ChatTemplate::Parse(std::string((256 << 10) + 1, 'x'), "big"),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("big"), HasSubstr("262145 bytes"))));
}

TEST(ChatTemplateTest, InvalidUtf8InMessagesPassesThroughUnchanged) {
  const auto pieces = Render("{{ messages[0].content | trim }}", {{"user", " \xff\xc3( ", ""}});
  COTERIE_ASSERT_OK(pieces);
  EXPECT_EQ(Describe(*pieces), (Lines{"U user \xff\xc3("}));
}

}  // namespace
}  // namespace coterie
