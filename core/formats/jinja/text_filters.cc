// Filters whose result is a text or a number.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "core/formats/jinja/builtin_tables.h"
#include "core/formats/jinja/characters.h"
#include "core/formats/jinja/printing.h"
#include "core/formats/jinja/text_operations.h"

namespace coterie::jinja {
namespace {

using Kind = Value::Kind;

absl::StatusOr<Value> Trim(const BuiltinCall& call) {
  COTERIE_ASSIGN_OR_RETURN(const Text text, call.InputText());
  if (!call.Has(0) || call.arguments[0]->is_none()) return Value(Strip(text, Side::kBoth, nullptr));
  COTERIE_ASSIGN_OR_RETURN(const Text characters, call.TextOf(0));
  COTERIE_RETURN_IF_ERROR(
      call.work().Charge(static_cast<int64_t>(characters.size() * (text.size() / 64 + 1))));
  return Value(Strip(text, Side::kBoth, &characters));
}

template <LetterCase letter_case>
absl::StatusOr<Value> Case(const BuiltinCall& call) {
  COTERIE_ASSIGN_OR_RETURN(const Text text, call.InputText());
  COTERIE_RETURN_IF_ERROR(call.work().Charge(static_cast<int64_t>(text.size()) / 4));
  return Value(ChangeCase(text, letter_case));
}

absl::StatusOr<Value> String(const BuiltinCall& call) {
  COTERIE_ASSIGN_OR_RETURN(Text text, call.InputText());
  return Value(std::move(text));
}

absl::StatusOr<Value> Safe(const BuiltinCall& call) {
  COTERIE_ASSIGN_OR_RETURN(Text text, call.InputText());
  text.set_markup(true);
  return Value(std::move(text));
}

absl::StatusOr<Value> Escape(const BuiltinCall& call) {
  COTERIE_ASSIGN_OR_RETURN(const Text text, call.InputText());
  COTERIE_ASSIGN_OR_RETURN(Text escaped, EscapeHtml(text, call.work()));
  return Value(std::move(escaped));
}

absl::StatusOr<Value> ReplaceFilter(const BuiltinCall& call) {
  if (!call.Has(0) || !call.Has(1)) {
    return absl::InvalidArgumentError("filter 'replace' needs what to replace and by what");
  }
  COTERIE_ASSIGN_OR_RETURN(const Text text, call.InputText());
  COTERIE_ASSIGN_OR_RETURN(const Text from, call.TextOf(0));
  COTERIE_ASSIGN_OR_RETURN(const Text to, call.TextOf(1));
  COTERIE_ASSIGN_OR_RETURN(const int64_t count, call.Integer(2, -1));
  COTERIE_ASSIGN_OR_RETURN(Text replaced, Replace(text, from, to, count, call.work()));
  replaced.set_markup(false);
  return Value(std::move(replaced));
}

absl::StatusOr<Value> IndentFilter(const BuiltinCall& call) {
  COTERIE_ASSIGN_OR_RETURN(const Text text, call.InputText());
  Text indentation;
  if (call.Has(0) && call.arguments[0]->is_string()) {
    indentation = call.arguments[0]->text();
  } else {
    COTERIE_ASSIGN_OR_RETURN(const int64_t width, call.Integer(0, 4));
    COTERIE_ASSIGN_OR_RETURN(indentation, Repeat(Text(" "), width, call.work()));
  }
  COTERIE_ASSIGN_OR_RETURN(Text indented,
                           Indent(text, indentation, call.Flag(1), call.Flag(2), call.work()));
  return Value(std::move(indented));
}

// indent of tojson: a number of spaces, a string, or None.
absl::Status ReadIndent(const Value& value, Work& work, JsonStyle* style) {
  int64_t width = 0;
  if (value.is_none()) return absl::OkStatus();
  if (value.is_string()) {
    style->indent = std::string(value.text().bytes());
  } else if (value.AsInteger(&width)) {
    COTERIE_RETURN_IF_ERROR(work.ChargeBytes(width));
    style->indent = std::string(static_cast<size_t>(width < 0 ? 0 : width), ' ');
  } else {
    return absl::InvalidArgumentError("indent of filter 'tojson' is neither a number nor a string");
  }
  style->item_separator = std::string(1, ',');  // A literal draws a false warning of g++ 12.
  return absl::OkStatus();
}

absl::StatusOr<Value> ToJsonFilter(const BuiltinCall& call) {
  JsonStyle style;
  style.ensure_ascii = call.Flag(0);
  style.sort_keys = call.Flag(3);
  if (call.Has(1)) COTERIE_RETURN_IF_ERROR(ReadIndent(*call.arguments[1], call.work(), &style));
  if (call.Has(2) && !call.arguments[2]->is_none()) {
    COTERIE_ASSIGN_OR_RETURN(const std::vector<Value> separators,
                             Elements(*call.arguments[2], call.work()));
    if (separators.size() != 2 || !separators[0].is_string() || !separators[1].is_string()) {
      return absl::InvalidArgumentError("separators of filter 'tojson' are not two strings");
    }
    style.item_separator = std::string(separators[0].text().bytes());
    style.key_separator = std::string(separators[1].text().bytes());
  }
  COTERIE_ASSIGN_OR_RETURN(Text json, ToJson(call.input, style, call.work()));
  return Value(std::move(json));
}

// Not a filter of Jinja, but some hosts have it and templates use it.
absl::StatusOr<Value> FromJsonFilter(const BuiltinCall& call) {
  COTERIE_ASSIGN_OR_RETURN(const Text text, call.InputText());
  // A value takes more memory than its text.
  COTERIE_RETURN_IF_ERROR(call.work().Charge(2 * static_cast<int64_t>(text.size())));
  // A text that anybody but the template had a hand in gives values of theirs.
  Origin origin;
  for (const Run& run : text.runs()) {
    if (origin.trusted && !run.origin.trusted) origin = run.origin;
  }
  return FromJson(text.bytes(), origin);
}

absl::StatusOr<Value> Length(const BuiltinCall& call) {
  const Value& value = call.input;
  if (value.is_undefined()) return Value(int64_t{0});
  if (value.is_string()) {
    COTERIE_RETURN_IF_ERROR(call.work().ChargeBytes(value.text().cost_bytes()));
    return Value(CountCharacters(value.text().bytes()));
  }
  if (value.is(Kind::kSequence) && value.sequence().form != Sequence::Form::kGenerator) {
    return Value(static_cast<int64_t>(value.sequence().items.size()));
  }
  if (value.is(Kind::kMapping)) {
    return Value(static_cast<int64_t>(value.mapping().entries().size()));
  }
  if (value.is(Kind::kLoop)) {
    return Value(static_cast<int64_t>(value.loop().items->items.size()));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("object of type '", value.TypeName(), "' has no len()"));
}

absl::StatusOr<Value> Default(const BuiltinCall& call) {
  const bool replaces = call.input.is_undefined() || (call.Flag(1) && !call.input.Truth());
  if (!replaces) return call.input;
  return call.Has(0) ? *call.arguments[0] : TextValue("");
}

// A text as a number, in the notations of Python's int() and float().
bool ReadReal(absl::string_view text, double* out) { return absl::SimpleAtod(text, out); }

absl::StatusOr<Value> Int(const BuiltinCall& call) {
  const Value fallback = call.Has(0) ? *call.arguments[0] : Value(int64_t{0});
  COTERIE_ASSIGN_OR_RETURN(const int64_t base, call.Integer(1, 10));
  if (base != 10) return absl::UnimplementedError("filter 'int' with a base other than 10");
  int64_t integer = 0;
  double real = 0;
  if (call.input.AsInteger(&integer)) return Value(integer);
  if (call.input.is_string()) {
    const Text trimmed = Strip(call.input.text(), Side::kBoth, nullptr);
    if (absl::SimpleAtoi(trimmed.bytes(), &integer)) return Value(integer);
    if (!ReadReal(trimmed.bytes(), &real)) return fallback;
  } else if (!call.input.AsReal(&real)) {
    return fallback;
  }
  if (std::isnan(real) || std::fabs(real) >= 9.2e18) return fallback;
  return Value(static_cast<int64_t>(real));
}

absl::StatusOr<Value> Float(const BuiltinCall& call) {
  double real = 0;
  if (call.input.AsReal(&real)) return Value(real);
  if (call.input.is_string() &&
      ReadReal(Strip(call.input.text(), Side::kBoth, nullptr).bytes(), &real)) {
    return Value(real);
  }
  return call.Has(0) ? *call.arguments[0] : Value(0.0);
}

absl::StatusOr<Value> Abs(const BuiltinCall& call) {
  int64_t integer = 0;
  double real = 0;
  if (call.input.AsInteger(&integer) && integer != INT64_MIN) {
    return Value(integer < 0 ? -integer : integer);
  }
  if (call.input.AsReal(&real)) return Value(std::fabs(real));
  return absl::InvalidArgumentError(
      absl::StrCat("bad operand type for abs(): '", call.input.TypeName(), "'"));
}

absl::StatusOr<Value> Round(const BuiltinCall& call) {
  COTERIE_ASSIGN_OR_RETURN(const int64_t precision, call.Integer(0, 0));
  const std::string method = call.Has(1) && call.arguments[1]->is_string()
                                 ? std::string(call.arguments[1]->text().bytes())
                                 : std::string("common");
  double real = 0;
  if (!call.input.AsReal(&real)) return absl::InvalidArgumentError("filter 'round' needs a number");
  if (precision < 0 || precision > 15) {
    return absl::UnimplementedError("filter 'round' to a precision outside 0 to 15");
  }
  if (method == "common") {
    if (!call.input.is(Kind::kFloat)) return call.input;
    // printf rounds the exact binary value half to even, as Python does.
    char buffer[400];
    std::snprintf(buffer, sizeof(buffer), "%.*f", static_cast<int>(precision), real);
    return Value(std::strtod(buffer, nullptr));
  }
  const double scale = std::pow(10, precision);
  if (method == "ceil") return Value(std::ceil(real * scale) / scale);
  if (method == "floor") return Value(std::floor(real * scale) / scale);
  return absl::InvalidArgumentError("method must be common, ceil or floor");
}

absl::StatusOr<Value> WordCount(const BuiltinCall& call) {
  COTERIE_ASSIGN_OR_RETURN(const Text text, call.InputText());
  int64_t count = 0;
  bool in_word = false;
  for (size_t i = 0; i < text.size();) {
    const Character character = CharacterAt(text.bytes(), i);
    i += character.n_bytes;
    const bool word = character.code == '_' || (character.code >= '0' && character.code <= '9') ||
                      (character.code < 0x80 ? IsLower(character.code) || IsUpper(character.code)
                                             : !IsSpace(character.code));
    count += word && !in_word ? 1 : 0;
    in_word = word;
  }
  return Value(count);
}

constexpr Builtin kTextFilters[] = {
    {"abs", "", Abs},
    {"capitalize", "", Case<LetterCase::kCapitalized>},
    {"count", "", Length},
    {"d", "default_value,boolean", Default},
    {"default", "default_value,boolean", Default},
    {"e", "", Escape},
    {"escape", "", Escape},
    {"float", "default", Float},
    {"from_json", "", FromJsonFilter},
    {"indent", "width,first,blank", IndentFilter},
    {"int", "default,base", Int},
    {"length", "", Length},
    {"lower", "", Case<LetterCase::kLower>},
    {"replace", "old,new,count", ReplaceFilter},
    {"round", "precision,method", Round},
    {"safe", "", Safe},
    {"string", "", String},
    {"title", "", Case<LetterCase::kTitle>},
    {"tojson", "ensure_ascii,indent,separators,sort_keys", ToJsonFilter},
    {"trim", "chars", Trim},
    {"upper", "", Case<LetterCase::kUpper>},
    {"wordcount", "", WordCount},
};

}  // namespace

absl::Span<const Builtin> TextFilters() { return kTextFilters; }

}  // namespace coterie::jinja
