// Templates that are no templates, and constructs beyond the subset: one error each, with its line.

#include <string>

#include "core/formats/chat_template.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::StatusIs;

void ExpectParseError(absl::StatusCode code, absl::string_view source, absl::string_view message) {
  SCOPED_TRACE(std::string(source));
  EXPECT_THAT(ChatTemplate::Parse(source, "t"),
              StatusIs(code, "chat template t: " + std::string(message)));
}

TEST(JinjaSyntaxTest, MalformedTemplatesAreDataLossWithLineAndReason) {
  const struct {
    const char* source;
    const char* message;
  } kCases[] = {
      {"{{ 1", "line 1: the tag is never closed"},
      {"\n{{ 'a }}", "line 2: the string is never closed"},
      {"{{ 'a\\", "line 1: the string is never closed"},
      {"{# a", "line 1: the comment is never closed"},
      {"{% raw %} {% endra %}", "line 1: the raw block is never closed"},
      {"{{ ? }}", "line 1: unexpected character '?'"},
      {"{{ (1] }}", "line 1: unexpected ']'"},
      {"{{ 1) }}", "line 1: unexpected ')'"},
      {"{{ '\\x4' }}", "line 1: truncated \\x, \\u or \\U escape in a string"},
      {"{{ '\\ud800' }}", "line 1: a string escape names no Unicode character"},
      {"{{ }}", "line 1: expected an expression, found the end of the tag"},
      {"{{ 1 2 }}", "line 1: expected '}}', found a number"},
      {"{{ 1 + }}", "line 1: expected an expression, found the end of the tag"},
      {"{{ a. }}", "line 1: expected a name, found the end of the tag"},
      {"{{ a[] }}", "line 1: expected a subscript"},
      {"{{ a[1:2:3:4] }}", "line 1: expected ']', found ':'"},
      {"{{ {1} }}", "line 1: expected ':', found '}'"},
      {"{{ [1 2] }}", "line 1: expected ']', found a number"},
      {"{{ f(a=1, 2) }}", "line 1: a positional argument follows a named one"},
      {"{{ 1 | }}", "line 1: expected a name, found the end of the tag"},
      {"{{ 1 is }}", "line 1: expected a name, found the end of the tag"},
      {"{{ 1 is defined is none }}", "line 1: tests cannot be chained with is"},
      {"{% %}", "line 1: expected a tag name, found the end of the tag"},
      {"{% nope %}", "line 1: unknown tag 'nope'"},
      {"{% endif %}", "line 1: unknown tag 'endif'"},
      {"\n\n{% if 1 %}\n", "line 3: the tag 'if' is never closed"},
      {"{% if 1 %}{% for a in b %}{% endif %}", "line 1: unknown tag 'endif'"},
      {"{% if 1 %}{% else %}{% elif 2 %}{% endif %}", "line 1: unknown tag 'elif'"},
      {"{% if %}{% endif %}", "line 1: expected an expression, found the end of the tag"},
      {"{% for a b %}{% endfor %}", "line 1: expected 'in', found 'b'"},
      {"{% for 1 in b %}{% endfor %}", "line 1: expected a name, found a number"},
      {"{% set a %}", "line 1: the tag 'set' is never closed"},
      {"{% set none = 1 %}", "line 1: cannot assign to 'none'"},
      {"{% set a = %}", "line 1: expected an expression, found the end of the tag"},
      {"{% macro m %}{% endmacro %}", "line 1: expected '(', found the end of the tag"},
      {"{% macro m(a=1, b) %}{% endmacro %}",
       "line 1: a parameter without default follows one with"},
      {"{% call 1 %}{% endcall %}", "line 1: the tag 'call' needs a call"},
      {"{% break %}", "line 1: 'break' outside a loop"},
      {"{% for a in b %}{% macro m() %}{% continue %}{% endmacro %}{% endfor %}",
       "line 1: 'continue' outside a loop"},
      {"{% if 1 %}{% endif 1 %}", "line 1: expected '%}', found a number"},
  };
  for (const auto& [source, message] : kCases) {
    ExpectParseError(absl::StatusCode::kDataLoss, source, message);
  }
}

TEST(JinjaSyntaxTest, ConstructsBeyondTheSubsetAreNamedAtParsing) {
  const struct {
    const char* source;
    const char* message;
  } kCases[] = {
      {"{% include 'x' %}", "line 1: tag 'include'"},
      {"\n{% import 'x' as y %}", "line 2: tag 'import'"},
      {"{% from 'x' import y %}", "line 1: tag 'from'"},
      {"{% extends 'x' %}", "line 1: tag 'extends'"},
      {"{% block x %}{% endblock %}", "line 1: tag 'block'"},
      {"{% autoescape true %}{% endautoescape %}", "line 1: tag 'autoescape'"},
      {"{% print 1 %}", "line 1: tag 'print'"},
      {"{% for a in b recursive %}{% endfor %}", "line 1: recursive loop"},
      {"{{ 1 | xmlattr }}", "line 1: filter 'xmlattr'"},
      {"{{ 1 is filter }}", "line 1: test 'filter'"},
      {"{{ a[1, 2] }}", "line 1: tuple as subscript"},
      {"{{ 99999999999999999999 }}", "line 1: integer beyond 64 bits"},
      {"{{ '\\N{DASH}' }}", "line 1: string escape \\N"},
  };
  for (const auto& [source, message] : kCases) {
    ExpectParseError(absl::StatusCode::kUnimplemented, source, message);
  }
}

TEST(JinjaSyntaxTest, ConstructsThatOnlyShowAtRunTimeAreNamedWhenReached) {
  const struct {
    const char* source;
    const char* message;
  } kCases[] = {
      {"\n{{ 1 | parse_yaml }}", "line 2: filter 'parse_yaml'"},
      {"{{ 1 is odd_one }}", "line 1: test 'odd_one'"},
      {"{{ 'a'.zfill(2) }}", "line 1: method 'str.zfill'"},
      {"{{ '%s' % 1 }}", "line 1: string formatting by %"},
      {"{{ '{:>3}'.format(1) }}", "line 1: str.format with the field '{:>3}'"},
      {"{{ joiner() }}", "line 1: function 'joiner'"},
      {"{% for i in [1] %}{{ loop.changed(i) }}{% endfor %}", "line 1: loop.changed"},
      {"{{ 2 ** 63 }}", "line 1: an integer outside the 64-bit range"},
  };
  for (const auto& [source, message] : kCases) {
    SCOPED_TRACE(source);
    const auto chat_template = ChatTemplate::Parse(source, "t");
    COTERIE_ASSERT_OK(chat_template);
    EXPECT_THAT(
        (*chat_template)->Render({}, {}),
        StatusIs(absl::StatusCode::kUnimplemented, "chat template t: " + std::string(message)));
  }
}

TEST(JinjaSyntaxTest, WhatIsNeverReachedIsNotRefused) {
  const auto chat_template = ChatTemplate::Parse("{% if 0 %}{{ 1 | parse_yaml }}{% endif %}", "t");
  COTERIE_ASSERT_OK(chat_template);
  COTERIE_EXPECT_OK((*chat_template)->Render({}, {}));
}

// Every prefix and every single-byte change of a template ends in a result or an error.
TEST(JinjaSyntaxTest, DamagedTemplatesNeverCrash) {
  const std::string source =
      "{%- macro m(a, b=[1, 'x']) -%}{{ a[0:2] | trim ~ b.0 }}{%- endmacro -%}\n"
      "{% for k, v in {'a': 1.5}.items() if v is number %}{{ m(k, b=v) if loop.first else -v }}"
      "{% else %}{# c #}{% endfor %}{% set n = namespace(q=0x1F) %}{% raw %}{{{% endraw %}";
  for (size_t n = 0; n <= source.size(); ++n) {
    const auto prefix = ChatTemplate::Parse(absl::string_view(source).substr(0, n), "t");
    if (prefix.ok()) (void)(*prefix)->Render({}, {});
  }
  int n_parsed = 0;
  for (size_t i = 0; i < source.size(); ++i) {
    for (char c : {'\0', '{', '}', '%', '"', '(', ')', '|', '-', '\\', '\xff', '9', 'e', '\n'}) {
      std::string damaged = source;
      damaged[i] = c;
      const auto result = ChatTemplate::Parse(damaged, "t");
      if (!result.ok()) continue;
      ++n_parsed;
      (void)(*result)->Render({}, {});
    }
  }
  EXPECT_GT(n_parsed, 100);
}

// What 108 templates of known models use; how each of it behaves is in the golden tests.
TEST(JinjaSyntaxTest, EverythingThatTemplatesOfKnownModelsUseIsThere) {
  const char* const kUses[] = {
      "{{ x | tojson }}",
      "{{ x | length }}",
      "{{ x | trim }}",
      "{{ x | string }}",
      "{{ {} | items | list }}",
      "{{ x | default('') }}",
      "{{ x | safe }}",
      "{{ x | list }}",
      "{{ x | join }}",
      "{{ [] | selectattr('a') | list }}",
      "{{ x | lower }}",
      "{{ [] | map('trim') | list }}",
      "{{ {} | dictsort }}",
      "{{ x | upper }}",
      "{{ x | replace('a', 'b') }}",
      "{{ x | last }}",
      "{{ '1' | from_json }}",
      "{{ x | indent }}",
      "{{ x | capitalize }}",
      "{{ x | first }}",
      "{{ x | int }}",
      "{{ [] | reject('none') | list }}",
      "{{ [] | rejectattr('a') | list }}",
      "{{ [] | unique | list }}",
      "{{ [] | sort }}",
      "{{ x is string }}",
      "{{ x is defined }}",
      "{{ x is none }}",
      "{{ x is mapping }}",
      "{{ x is iterable }}",
      "{{ x is sequence }}",
      "{{ x is false }}",
      "{{ x is undefined }}",
      "{{ x is true }}",
      "{{ x is boolean }}",
      "{{ x.split('a') }}",
      "{{ x.lstrip() }}",
      "{{ {}.items() | list }}",
      "{{ x.rstrip() }}",
      "{{ x.strip() }}",
      "{{ x.endswith('a') }}",
      "{{ {}.get('a') }}",
      "{{ x.startswith('a') }}",
      "{{ x.replace('a', 'b') }}",
      "{{ x.capitalize() }}",
      "{% if x %}{% elif x %}{% else %}{% endif %}",
      "{% for a in [1] %}{% if x %}{% break %}{% endif %}{% continue %}{% else %}{% endfor %}",
      "{% set a = 1 %}{% set b %}{{ a }}{% endset %}{{ b }}",
      "{% macro f(a, b=1) %}{{ caller() if caller }}{% endmacro %}{% call f(1) %}c{% endcall %}",
      "{% set n = namespace(a=1) %}{% set n.a = n.a + 1 %}",
      "{{ x[1:-1:2] ~ ('a' if x else 'b') }}",
      "{% generation %}{{ x }}{% endgeneration %}",
      "{% filter upper %}a{% endfilter %}",
  };
  RenderOptions options;
  options.variables_json = R"({"x": "text"})";
  for (const char* use : kUses) {
    SCOPED_TRACE(use);
    const auto chat_template = ChatTemplate::Parse(use, "t");
    COTERIE_ASSERT_OK(chat_template);
    COTERIE_EXPECT_OK((*chat_template)->Render({}, options));
  }
  // Lists are not changed in the sandbox: append and pop are known, and refused as the reference
  // does.
  for (const char* use : {"{{ [].append(1) }}", "{{ [1].pop() }}"}) {
    EXPECT_THAT((*ChatTemplate::Parse(use, "t"))->Render({}, {}),
                StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("unsafe")));
  }
}

}  // namespace
}  // namespace coterie
