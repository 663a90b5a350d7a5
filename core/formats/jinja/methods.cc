// Methods of strings, sequences and mappings.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
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
using Form = Sequence::Form;

absl::StatusOr<Value> ListOfTexts(std::vector<Text> texts) {
  std::vector<Value> items;
  items.reserve(texts.size());
  for (Text& text : texts) items.emplace_back(std::move(text));
  return MakeSequence(Form::kList, std::move(items));
}

absl::StatusOr<const Text*> StringArgument(const BuiltinCall& call, size_t i) {
  if (call.Has(i) && call.arguments[i]->is_string()) return &call.arguments[i]->text();
  return absl::InvalidArgumentError(
      absl::StrCat("a string method needs a str argument, not ",
                   call.Has(i) ? call.arguments[i]->TypeName() : "nothing"));
}

template <Side side>
absl::StatusOr<Value> StripMethod(const BuiltinCall& call) {
  if (!call.Has(0) || call.arguments[0]->is_none()) {
    return Value(Strip(call.input.text(), side, nullptr));
  }
  COTERIE_ASSIGN_OR_RETURN(const Text* characters, StringArgument(call, 0));
  COTERIE_RETURN_IF_ERROR(call.work().Charge(
      static_cast<int64_t>(characters->size() * (call.input.text().size() / 64 + 1))));
  return Value(Strip(call.input.text(), side, characters));
}

template <bool from_right>
absl::StatusOr<Value> SplitMethod(const BuiltinCall& call) {
  COTERIE_ASSIGN_OR_RETURN(const int64_t max_splits, call.Integer(1, -1));
  const Text* separator = nullptr;
  if (call.Has(0) && !call.arguments[0]->is_none()) {
    COTERIE_ASSIGN_OR_RETURN(separator, StringArgument(call, 0));
    if (separator->empty()) return absl::InvalidArgumentError("empty separator");
  }
  const int64_t n_separator = separator == nullptr ? 1 : static_cast<int64_t>(separator->size());
  // Pieces carry more than their bytes, and searching backwards is quadratic at worst.
  COTERIE_RETURN_IF_ERROR(call.work().Charge(
      static_cast<int64_t>(call.input.text().size()) * (from_right ? n_separator : 1) / 4 + 1));
  return ListOfTexts(Split(call.input.text(), separator, max_splits, from_right));
}

absl::StatusOr<Value> SplitLinesMethod(const BuiltinCall& call) {
  COTERIE_RETURN_IF_ERROR(call.work().Charge(static_cast<int64_t>(call.input.text().size())));
  return ListOfTexts(SplitLines(call.input.text(), call.Flag(0)));
}

absl::StatusOr<Value> ReplaceMethod(const BuiltinCall& call) {
  COTERIE_ASSIGN_OR_RETURN(const Text* from, StringArgument(call, 0));
  COTERIE_ASSIGN_OR_RETURN(const Text* to, StringArgument(call, 1));
  COTERIE_ASSIGN_OR_RETURN(const int64_t count, call.Integer(2, -1));
  COTERIE_ASSIGN_OR_RETURN(Text text, Replace(call.input.text(), *from, *to, count, call.work()));
  text.set_markup(call.input.text().markup());
  return Value(std::move(text));
}

template <bool at_end>
absl::StatusOr<Value> AffixMethod(const BuiltinCall& call) {
  const Value* affix = call.Has(0) ? call.arguments[0] : nullptr;
  absl::Span<const Value> options;
  if (affix != nullptr) {
    COTERIE_RETURN_IF_ERROR(call.work().Charge(affix->walk_cost()));
    options = affix->is(Kind::kSequence) ? absl::MakeConstSpan(affix->sequence().items)
                                         : absl::MakeConstSpan(affix, 1);
  }
  bool found = false;
  for (const Value& option : options) {
    if (!option.is_string()) {
      return absl::InvalidArgumentError(absl::StrCat(
          at_end ? "endswith" : "startswith", " first arg must be str, not ", option.TypeName()));
    }
    const absl::string_view text = call.input.text().bytes();
    const absl::string_view part = option.text().bytes();
    found |= at_end ? absl::EndsWith(text, part) : absl::StartsWith(text, part);
  }
  if (affix == nullptr) return absl::InvalidArgumentError("startswith and endswith need a str");
  return Value(found);
}

template <bool at_end>
absl::StatusOr<Value> RemoveAffixMethod(const BuiltinCall& call) {
  COTERIE_ASSIGN_OR_RETURN(const Text* affix, StringArgument(call, 0));
  const Text& text = call.input.text();
  const size_t kept = text.size() - std::min(text.size(), affix->size());
  if (at_end && absl::EndsWith(text.bytes(), affix->bytes())) {
    return Value(text.Substring(0, kept));
  }
  if (!at_end && absl::StartsWith(text.bytes(), affix->bytes())) {
    return Value(text.Substring(affix->size(), text.size()));
  }
  return Value(text);
}

template <LetterCase letter_case>
absl::StatusOr<Value> CaseMethod(const BuiltinCall& call) {
  COTERIE_RETURN_IF_ERROR(call.work().Charge(static_cast<int64_t>(call.input.text().size()) / 4));
  return Value(ChangeCase(call.input.text(), letter_case));
}

// Python's str.title begins a word after every character that is no letter.
absl::StatusOr<Value> TitleMethod(const BuiltinCall& call) {
  const Text& text = call.input.text();
  COTERIE_RETURN_IF_ERROR(call.work().Charge(static_cast<int64_t>(text.size()) / 4));
  Text out;
  bool after_letter = false;
  for (size_t i = 0; i < text.size();) {
    const Character character = CharacterAt(text.bytes(), i);
    const absl::string_view bytes = text.bytes().substr(i, character.n_bytes);
    out.Append(after_letter ? ToLower(bytes) : ToUpper(bytes), text.OriginAt(i));
    after_letter = IsLower(character.code) || IsUpper(character.code);
    i += character.n_bytes;
  }
  return Value(std::move(out));
}

// The argument that the replacement field `name` of str.format stands for.
absl::StatusOr<Value> FormatArgument(const BuiltinCall& call, absl::string_view name,
                                     size_t* next_position) {
  size_t position = 0;
  if (name.empty() || absl::SimpleAtoi(name, &position)) {
    if (name.empty()) position = (*next_position)++;
    if (position < call.raw.positional.size()) return call.raw.positional[position];
    return absl::InvalidArgumentError("replacement index out of range for positional args");
  }
  if (name.find_first_of(".[!:") != absl::string_view::npos) {
    return absl::UnimplementedError(absl::StrCat("str.format with the field '{", name, "}'"));
  }
  const Value* value = call.raw.FindNamed(name);
  if (value != nullptr) return *value;
  return absl::InvalidArgumentError(absl::StrCat("str.format has no argument '", name, "'"));
}

absl::StatusOr<Value> FormatMethod(const BuiltinCall& call) {
  const Text& text = call.input.text();
  const absl::string_view bytes = text.bytes();
  COTERIE_RETURN_IF_ERROR(call.work().Charge(static_cast<int64_t>(bytes.size())));
  Text out;
  size_t next_position = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] != '{' && bytes[i] != '}') {
      out.AppendRange(text, i, i + 1);
      continue;
    }
    if (i + 1 < bytes.size() && bytes[i + 1] == bytes[i]) {
      out.AppendRange(text, i, i + 1);
      ++i;
      continue;
    }
    const size_t end = bytes.find('}', i);
    if (bytes[i] == '}' || end == absl::string_view::npos) {
      return absl::InvalidArgumentError("single '{' or '}' in the format string");
    }
    COTERIE_ASSIGN_OR_RETURN(
        const Value value, FormatArgument(call, bytes.substr(i + 1, end - i - 1), &next_position));
    COTERIE_ASSIGN_OR_RETURN(const Text part, ToText(value, call.work()));
    COTERIE_RETURN_IF_ERROR(call.work().ChargeBytes(part.cost_bytes()));
    out.Append(part);
    i = end;
  }
  return Value(std::move(out));
}

absl::StatusOr<Value> CountMethod(const BuiltinCall& call) {
  COTERIE_ASSIGN_OR_RETURN(const Text* needle, StringArgument(call, 0));
  const absl::string_view text = call.input.text().bytes();
  if (needle->empty()) return Value(CountCharacters(text) + 1);
  int64_t count = 0;
  for (size_t at = 0; (at = FindText(text, needle->bytes(), at)) != absl::string_view::npos;
       at += needle->size()) {
    ++count;
  }
  return Value(count);
}

template <bool from_right, bool must_exist>
absl::StatusOr<Value> FindMethod(const BuiltinCall& call) {
  COTERIE_ASSIGN_OR_RETURN(const Text* needle, StringArgument(call, 0));
  const absl::string_view text = call.input.text().bytes();
  if (from_right) {
    COTERIE_RETURN_IF_ERROR(
        call.work().Charge(static_cast<int64_t>(text.size() / 16 * (needle->size() + 1))));
  }
  const size_t at = from_right ? text.rfind(needle->bytes()) : FindText(text, needle->bytes(), 0);
  if (at != absl::string_view::npos) return Value(CountCharacters(text.substr(0, at)));
  if (must_exist) return absl::InvalidArgumentError("substring not found");
  return Value(int64_t{-1});
}

template <bool from_right>
absl::StatusOr<Value> PartitionMethod(const BuiltinCall& call) {
  COTERIE_ASSIGN_OR_RETURN(const Text* separator, StringArgument(call, 0));
  if (separator->empty()) return absl::InvalidArgumentError("empty separator");
  COTERIE_RETURN_IF_ERROR(
      call.work().Charge(static_cast<int64_t>(call.input.text().size() / 16 * separator->size())));
  const Text& text = call.input.text();
  const size_t at = from_right ? text.bytes().rfind(separator->bytes())
                               : FindText(text.bytes(), separator->bytes(), 0);
  std::vector<Value> parts(3, TextValue(""));
  if (at == absl::string_view::npos) {
    parts[from_right ? 2 : 0] = call.input;
  } else {
    parts = {Value(text.Substring(0, at)), Value(*separator),
             Value(text.Substring(at + separator->size(), text.size()))};
  }
  return MakeSequence(Form::kTuple, std::move(parts));
}

absl::StatusOr<Value> JoinMethod(const BuiltinCall& call) {
  if (!call.Has(0)) return absl::InvalidArgumentError("join needs an iterable");
  COTERIE_ASSIGN_OR_RETURN(const std::vector<Value> items,
                           Elements(*call.arguments[0], call.work()));
  std::vector<Text> parts;
  for (const Value& item : items) {
    if (!item.is_string()) {
      return absl::InvalidArgumentError(
          absl::StrCat("sequence item: expected str instance, ", item.TypeName(), " found"));
    }
    // Many elements may share one text; a copy of each would not.
    COTERIE_RETURN_IF_ERROR(call.work().ChargeBytes(item.text().cost_bytes()));
    parts.push_back(item.text());
  }
  COTERIE_ASSIGN_OR_RETURN(Text text, Join(parts, call.input.text(), call.work()));
  return Value(std::move(text));
}

template <bool (*matches)(uint32_t)>
absl::StatusOr<Value> AllCharacters(const BuiltinCall& call) {
  const absl::string_view text = call.input.text().bytes();
  for (size_t i = 0; i < text.size();) {
    const Character character = CharacterAt(text, i);
    if (!matches(character.code)) return Value(false);
    i += character.n_bytes;
  }
  return Value(!text.empty());
}

bool IsAsciiDigit(uint32_t code) { return code >= '0' && code <= '9'; }

absl::StatusOr<Value> SequenceCount(const BuiltinCall& call) {
  if (!call.Has(0)) return absl::InvalidArgumentError("count needs a value");
  COTERIE_RETURN_IF_ERROR(call.work().Charge(call.input.walk_cost()));
  const auto& items = call.input.sequence().items;
  return Value(
      static_cast<int64_t>(std::count_if(items.begin(), items.end(), [&](const Value& item) {
        return Equal(item, *call.arguments[0]);
      })));
}

absl::StatusOr<Value> SequenceIndex(const BuiltinCall& call) {
  if (!call.Has(0)) return absl::InvalidArgumentError("index needs a value");
  COTERIE_RETURN_IF_ERROR(call.work().Charge(call.input.walk_cost()));
  const auto& items = call.input.sequence().items;
  for (size_t i = 0; i < items.size(); ++i) {
    if (Equal(items[i], *call.arguments[0])) return Value(static_cast<int64_t>(i));
  }
  return absl::InvalidArgumentError("the value is not in the list");
}

absl::StatusOr<Value> MappingGet(const BuiltinCall& call) {
  if (!call.Has(0)) return absl::InvalidArgumentError("get expected at least 1 argument, got 0");
  COTERIE_RETURN_IF_ERROR(call.work().Charge(call.arguments[0]->walk_cost()));
  const Value* value = call.input.mapping().Find(*call.arguments[0]);
  if (value != nullptr) return *value;
  return call.Has(1) ? *call.arguments[1] : Value(None{});
}

absl::StatusOr<Value> MappingItems(const BuiltinCall& call) {
  COTERIE_RETURN_IF_ERROR(call.work().Charge(call.input.mapping().entries().size() + 1));
  std::vector<Value> items;
  for (const auto& [key, value] : call.input.mapping().entries()) {
    COTERIE_ASSIGN_OR_RETURN(Value pair, MakeSequence(Form::kTuple, {key, value}));
    items.push_back(std::move(pair));
  }
  return MakeSequence(Form::kView, std::move(items));
}

template <bool keys>
absl::StatusOr<Value> MappingParts(const BuiltinCall& call) {
  COTERIE_RETURN_IF_ERROR(call.work().Charge(call.input.mapping().entries().size() + 1));
  std::vector<Value> items;
  for (const auto& [key, value] : call.input.mapping().entries()) {
    items.push_back(keys ? key : value);
  }
  return MakeSequence(Form::kView, std::move(items));
}

absl::StatusOr<Value> MappingCopy(const BuiltinCall& call) { return call.input; }

constexpr Builtin kStringMethods[] = {
    {"capitalize", "", CaseMethod<LetterCase::kCapitalized>},
    {"count", "sub", CountMethod},
    {"endswith", "suffix", AffixMethod<true>},
    {"find", "sub", FindMethod<false, false>},
    {"format", "*", FormatMethod},
    {"index", "sub", FindMethod<false, true>},
    {"isdigit", "", AllCharacters<IsAsciiDigit>},
    {"isspace", "", AllCharacters<IsSpace>},
    {"join", "iterable", JoinMethod},
    {"lower", "", CaseMethod<LetterCase::kLower>},
    {"lstrip", "chars", StripMethod<Side::kLeft>},
    {"partition", "sep", PartitionMethod<false>},
    {"removeprefix", "prefix", RemoveAffixMethod<false>},
    {"removesuffix", "suffix", RemoveAffixMethod<true>},
    {"replace", "old,new,count", ReplaceMethod},
    {"rfind", "sub", FindMethod<true, false>},
    {"rpartition", "sep", PartitionMethod<true>},
    {"rsplit", "sep,maxsplit", SplitMethod<true>},
    {"rstrip", "chars", StripMethod<Side::kRight>},
    {"split", "sep,maxsplit", SplitMethod<false>},
    {"splitlines", "keepends", SplitLinesMethod},
    {"startswith", "prefix", AffixMethod<false>},
    {"strip", "chars", StripMethod<Side::kBoth>},
    {"title", "", TitleMethod},
    {"upper", "", CaseMethod<LetterCase::kUpper>},
};

constexpr Builtin kSequenceMethods[] = {
    {"count", "value", SequenceCount},
    {"index", "value", SequenceIndex},
};

constexpr Builtin kMappingMethods[] = {
    {"copy", "", MappingCopy},           {"get", "key,default", MappingGet},
    {"items", "", MappingItems},         {"keys", "", MappingParts<true>},
    {"values", "", MappingParts<false>},
};

}  // namespace

absl::Span<const Builtin> StringMethods() { return kStringMethods; }
absl::Span<const Builtin> SequenceMethods() { return kSequenceMethods; }
absl::Span<const Builtin> MappingMethods() { return kMappingMethods; }

}  // namespace coterie::jinja
