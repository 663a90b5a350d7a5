#include "core/formats/jinja/builtins.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "core/base/status_macros.h"
#include "core/formats/jinja/builtin_tables.h"
#include "core/formats/jinja/characters.h"
#include "core/formats/jinja/printing.h"
#include "core/formats/jinja/text_operations.h"
#include "core/formats/jinja/value_tests.h"

namespace coterie::jinja {
namespace {

// Filters and tests of Jinja 3.1.6 that no chat template seen needs.
constexpr absl::string_view kMissingFilters[] = {
    "center", "filesizeformat", "forceescape", "format",    "groupby", "pprint",   "random",
    "slice",  "striptags",      "truncate",    "urlencode", "urlize",  "wordwrap", "xmlattr"};
constexpr absl::string_view kMissingTests[] = {"filter", "test"};
constexpr absl::string_view kMissingGlobals[] = {"cycler", "joiner", "lipsum"};
constexpr absl::string_view kGlobals[] = {"dict", "namespace", "raise_exception", "range",
                                          "strftime_now"};

template <typename Names>
bool IsListed(const Names& names, absl::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

const Builtin* FindBuiltin(absl::Span<const Builtin> table, absl::string_view name) {
  for (const Builtin& builtin : table) {
    if (builtin.name == name) return &builtin;
  }
  return nullptr;
}

const Builtin* FindFilter(absl::string_view name) {
  const Builtin* filter = FindBuiltin(TextFilters(), name);
  return filter != nullptr ? filter : FindBuiltin(SequenceFilters(), name);
}

absl::StatusOr<Value> Invoke(const Builtin& builtin, const Value& input,
                             const CallArguments& arguments, Environment& environment) {
  BoundArguments bound;
  if (builtin.parameters != "*") {
    COTERIE_ASSIGN_OR_RETURN(bound, Bind(builtin.name, builtin.parameters, arguments));
  }
  // What is walked over at most once by every builtin that does not charge for itself.
  const int64_t cost = input.is_string() ? input.walk_cost() : 1;
  COTERIE_RETURN_IF_ERROR(environment.work.Charge(cost));
  return builtin.function({input, bound, arguments, environment});
}

absl::StatusOr<Value> CallRange(const CallArguments& arguments, Work& work) {
  int64_t bounds[3] = {0, 0, 1};
  const size_t n = arguments.positional.size();
  if (n < 1 || n > 3 || !arguments.named.empty()) {
    return absl::InvalidArgumentError("range takes one to three arguments");
  }
  for (size_t i = 0; i < n; ++i) {
    if (!arguments.positional[i].AsInteger(&bounds[n == 1 ? 1 : i])) {
      return absl::InvalidArgumentError("range takes integers");
    }
  }
  const auto [begin, end, step] = bounds;
  if (step == 0) return absl::InvalidArgumentError("range() arg 3 must not be zero");
  std::vector<Value> items;
  int64_t at = begin;
  while (step > 0 ? at < end : at > end) {
    if (static_cast<int64_t>(items.size()) >= kMaxRange) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "Range too big. The sandbox blocks ranges larger than MAX_RANGE (", kMaxRange, ")."));
    }
    items.emplace_back(at);
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  COTERIE_RETURN_IF_ERROR(work.Charge(static_cast<int64_t>(items.size()) + 1));
  return MakeSequence(Sequence::Form::kList, std::move(items));
}

absl::StatusOr<Value> CallDict(const CallArguments& arguments, Work& work) {
  auto mapping = std::make_shared<Mapping>();
  if (arguments.positional.size() > 1) {
    return absl::InvalidArgumentError("dict expected at most 1 argument");
  }
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    if (!source.is(Value::Kind::kMapping)) {
      return absl::UnimplementedError("dict() of anything but a dict");
    }
    for (const auto& [key, value] : source.mapping().entries()) {
      COTERIE_RETURN_IF_ERROR(work.Charge(key.walk_cost()));
      COTERIE_RETURN_IF_ERROR(mapping->Set(key, value));
    }
  }
  for (const auto& [name, value] : arguments.named) {
    COTERIE_RETURN_IF_ERROR(mapping->Set(TextValue(name), value));
  }
  return Value(std::shared_ptr<const Mapping>(std::move(mapping)));
}

absl::StatusOr<Value> CallNamespace(const CallArguments& arguments, Environment& environment) {
  Namespace& space = environment.namespaces.emplace_back();
  if (!arguments.positional.empty()) {
    COTERIE_ASSIGN_OR_RETURN(const Value source,
                             CallDict({arguments.positional, {}}, environment.work));
    for (const auto& [key, value] : source.mapping().entries()) {
      if (key.is_string()) COTERIE_RETURN_IF_ERROR(space.Set(key.text().bytes(), value));
    }
  }
  for (const auto& [name, value] : arguments.named) {
    COTERIE_RETURN_IF_ERROR(space.Set(name, value));
  }
  return Value(&space);
}

absl::StatusOr<Value> CallRaise(const CallArguments& arguments, Work& work) {
  Text message;
  if (!arguments.positional.empty()) {
    COTERIE_ASSIGN_OR_RETURN(message, ToText(arguments.positional[0], work));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the template refuses the conversation: ", message.bytes()));
}

absl::StatusOr<Value> CallStrftime(const CallArguments& arguments, const Environment& environment) {
  if (arguments.positional.size() != 1 || !arguments.positional[0].is_string()) {
    return absl::InvalidArgumentError("strftime_now takes a format");
  }
  const std::string format(arguments.positional[0].text().bytes());
  if (format.size() > 256) return absl::InvalidArgumentError("the format of strftime_now is long");
  if (format.empty()) return TextValue("");
  // No directive writes over 64 bytes in the C locale; field widths are refused.
  for (size_t i = 0; i + 1 < format.size(); ++i) {
    if (format[i] == '%' && format[i + 1] >= '0' && format[i + 1] <= '9') {
      return absl::UnimplementedError("field widths in strftime_now");
    }
  }
  std::string out(format.size() * 64, '\0');
  out.resize(std::strftime(out.data(), out.size(), format.c_str(), &environment.now));
  return TextValue(out);
}

absl::StatusOr<Value> LoopAttribute(const Value& object, absl::string_view name) {
  const Loop& loop = object.loop();
  const int64_t n = static_cast<int64_t>(loop.items->items.size());
  const auto neighbour = [&](int64_t i, absl::string_view complaint) {
    return i >= 0 && i < n ? loop.items->items[static_cast<size_t>(i)]
                           : Value::MakeUndefined(std::string(complaint));
  };
  if (name == "index") return Value(loop.index + 1);
  if (name == "index0") return Value(loop.index);
  if (name == "revindex") return Value(n - loop.index);
  if (name == "revindex0") return Value(n - loop.index - 1);
  if (name == "first") return Value(loop.index == 0);
  if (name == "last") return Value(loop.index + 1 == n);
  if (name == "length") return Value(n);
  // Depth counts recursive calls of a loop, not loops around it.
  if (name == "depth") return Value(int64_t{1});
  if (name == "depth0") return Value(int64_t{0});
  if (name == "previtem") return neighbour(loop.index - 1, "there is no previous item");
  if (name == "nextitem") return neighbour(loop.index + 1, "there is no next item");
  if (name == "cycle") {
    auto method = std::make_shared<Callable>();
    method->form = Callable::Form::kLoopMethod;
    method->name = "cycle";
    method->self = object;
    return Value(std::shared_ptr<const Callable>(std::move(method)));
  }
  if (name == "changed") return absl::UnimplementedError("loop.changed");
  return Value::MakeUndefined(absl::StrCat("'loop' has no attribute '", name, "'"));
}

absl::Span<const Builtin> MethodsOf(const Value& object) {
  if (object.is_string()) return StringMethods();
  if (object.is(Value::Kind::kMapping)) return MappingMethods();
  if (object.is(Value::Kind::kSequence) && object.sequence().is_indexable()) {
    return SequenceMethods();
  }
  return {};
}

// Methods that change a list or dict; Jinja's immutable sandbox forbids them.
bool IsMutator(const Value& object, absl::string_view name) {
  static constexpr absl::string_view kListMutators[] = {"append", "clear",  "extend",  "insert",
                                                        "pop",    "remove", "reverse", "sort"};
  static constexpr absl::string_view kDictMutators[] = {"clear", "pop", "popitem", "setdefault",
                                                        "update"};
  if (object.is(Value::Kind::kMapping)) return IsListed(kDictMutators, name);
  return object.is(Value::Kind::kSequence) && object.sequence().form == Sequence::Form::kList &&
         IsListed(kListMutators, name);
}

// What Python has and this subset does not: it must not pass for undefined.
bool IsMissingMethod(const Value& object, absl::string_view name) {
  static constexpr absl::string_view kStringMethods[] = {
      "casefold", "center",      "encode",    "expandtabs",   "format_map", "isalnum",
      "isalpha",  "isascii",     "isdecimal", "isidentifier", "islower",    "isnumeric",
      "isupper",  "isprintable", "istitle",   "ljust",        "maketrans",  "rindex",
      "rjust",    "swapcase",    "translate", "zfill"};
  if (object.is_string()) return IsListed(kStringMethods, name);
  if (object.is(Value::Kind::kMapping)) return name == "fromkeys";
  return object.is(Value::Kind::kSequence) && name == "copy";
}

std::string TypeForPeople(const Value& object) {
  if (object.is_none()) return "None";
  return absl::StrCat(object.TypeName(), " object");
}

}  // namespace

const Value* CallArguments::FindNamed(absl::string_view name) const {
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

absl::StatusOr<BoundArguments> Bind(absl::string_view function, absl::string_view parameters,
                                    const CallArguments& arguments) {
  const std::vector<absl::string_view> names = absl::StrSplit(parameters, ',', absl::SkipEmpty());
  BoundArguments bound(names.size(), nullptr);
  if (arguments.positional.size() > names.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", function, "' takes at most ", names.size(), " arguments"));
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) bound[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto it = std::find(names.begin(), names.end(), name);
    if (it == names.end() || bound[static_cast<size_t>(it - names.begin())] != nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", function, "' got an unexpected argument '", name, "'"));
    }
    bound[static_cast<size_t>(it - names.begin())] = &value;
  }
  return bound;
}

absl::StatusOr<int64_t> BuiltinCall::Integer(size_t i, int64_t fallback) const {
  int64_t value = fallback;
  if (!Has(i) || arguments[i]->AsInteger(&value)) return value;
  return absl::InvalidArgumentError(
      absl::StrCat("an argument is not an integer but a ", arguments[i]->TypeName()));
}

absl::StatusOr<Text> BuiltinCall::ToTextOf(const Value& value) const {
  return ToText(value, environment.work);
}

absl::StatusOr<std::vector<Value>> Elements(const Value& value, Work& work) {
  std::vector<Value> elements;
  if (value.is_undefined()) return elements;
  if (value.is_string()) {
    const Text& text = value.text();
    COTERIE_RETURN_IF_ERROR(work.Charge(static_cast<int64_t>(text.size()) * 4));
    for (size_t i = 0; i < text.size();) {
      const size_t end = i + CharacterAt(text.bytes(), i).n_bytes;
      elements.emplace_back(text.Substring(i, end));
      i = end;
    }
    return elements;
  }
  if (value.is(Value::Kind::kSequence)) {
    COTERIE_RETURN_IF_ERROR(work.Charge(static_cast<int64_t>(value.sequence().items.size())));
    return value.sequence().items;
  }
  if (value.is(Value::Kind::kMapping)) {
    COTERIE_RETURN_IF_ERROR(work.Charge(static_cast<int64_t>(value.mapping().entries().size())));
    for (const auto& [key, element] : value.mapping().entries()) elements.push_back(key);
    return elements;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", value.TypeName(), "' object is not iterable"));
}

absl::StatusOr<bool> Contains(const Value& haystack, const Value& needle, Work& work) {
  COTERIE_RETURN_IF_ERROR(work.Charge(haystack.walk_cost()));
  if (haystack.is_undefined()) return false;
  if (haystack.is_string()) {
    if (!needle.is_string()) {
      return absl::InvalidArgumentError(
          absl::StrCat("'in <string>' requires string as left operand, not ", needle.TypeName()));
    }
    return FindText(haystack.text().bytes(), needle.text().bytes(), 0) != absl::string_view::npos;
  }
  COTERIE_RETURN_IF_ERROR(work.Charge(needle.walk_cost()));
  if (haystack.is(Value::Kind::kMapping)) return haystack.mapping().Find(needle) != nullptr;
  if (haystack.is(Value::Kind::kSequence)) {
    const auto& items = haystack.sequence().items;
    return std::any_of(items.begin(), items.end(),
                       [&needle](const Value& item) { return Equal(item, needle); });
  }
  return absl::InvalidArgumentError(
      absl::StrCat("argument of type '", haystack.TypeName(), "' is not iterable"));
}

bool IsUnsupportedFilter(absl::string_view name) { return IsListed(kMissingFilters, name); }
bool IsUnsupportedTest(absl::string_view name) { return IsListed(kMissingTests, name); }

absl::StatusOr<Value> ApplyFilter(absl::string_view name, const Value& input,
                                  const CallArguments& arguments, Environment& environment) {
  const Builtin* filter = FindFilter(name);
  if (filter == nullptr) return absl::UnimplementedError(absl::StrCat("filter '", name, "'"));
  return Invoke(*filter, input, arguments, environment);
}

bool IsGlobalFunction(absl::string_view name) {
  return IsListed(kGlobals, name) || IsListed(kMissingGlobals, name);
}

absl::StatusOr<Value> CallGlobal(absl::string_view name, const CallArguments& arguments,
                                 Environment& environment) {
  if (name == "range") return CallRange(arguments, environment.work);
  if (name == "dict") return CallDict(arguments, environment.work);
  if (name == "namespace") return CallNamespace(arguments, environment);
  if (name == "raise_exception") return CallRaise(arguments, environment.work);
  if (name == "strftime_now") return CallStrftime(arguments, environment);
  return absl::UnimplementedError(absl::StrCat("function '", name, "'"));
}

absl::StatusOr<Value> GetAttribute(const Value& object, absl::string_view name) {
  if (object.is_undefined()) return absl::InvalidArgumentError(object.complaint());
  if (object.is(Value::Kind::kNamespace)) {
    const Value* value = object.space()->Find(name);
    if (value != nullptr) return *value;
  }
  if (object.is(Value::Kind::kLoop)) return LoopAttribute(object, name);
  if (FindBuiltin(MethodsOf(object), name) != nullptr) {
    auto method = std::make_shared<Callable>();
    method->form = Callable::Form::kMethod;
    method->name = std::string(name);
    method->self = object;
    return Value(std::shared_ptr<const Callable>(std::move(method)));
  }
  if (IsMutator(object, name) || (absl::StartsWith(name, "__") && absl::EndsWith(name, "__"))) {
    return Value::MakeUndefined(absl::StrCat("access to attribute '", name, "' of '",
                                             object.TypeName(), "' object is unsafe."));
  }
  if (IsMissingMethod(object, name)) {
    return absl::UnimplementedError(absl::StrCat("method '", object.TypeName(), ".", name, "'"));
  }
  if (object.is(Value::Kind::kMapping)) {
    const Value* value = object.mapping().Find(name);
    if (value != nullptr) return *value;
  }
  return Value::MakeUndefined(
      absl::StrCat("'", TypeForPeople(object), "' has no attribute '", name, "'"));
}

absl::StatusOr<Value> GetItem(const Value& object, const Value& key, Work& work) {
  if (object.is_undefined()) return absl::InvalidArgumentError(object.complaint());
  COTERIE_RETURN_IF_ERROR(work.Charge(key.walk_cost()));
  int64_t index = 0;
  if (object.is(Value::Kind::kMapping)) {
    const Value* value = object.mapping().Find(key);
    if (value != nullptr) return *value;
  } else if (object.is(Value::Kind::kSequence) && object.sequence().is_indexable() &&
             key.AsInteger(&index)) {
    const auto& items = object.sequence().items;
    const int64_t n = static_cast<int64_t>(items.size());
    if (index < 0 && index >= -n) index += n;
    if (index >= 0 && index < n) return items[static_cast<size_t>(index)];
    return Value::MakeUndefined(absl::StrCat("the list has no element ", index));
  } else if (object.is_string() && key.AsInteger(&index)) {
    COTERIE_RETURN_IF_ERROR(work.Charge(static_cast<int64_t>(object.text().size()) + 1));
    const std::vector<size_t> offsets = CharacterOffsets(object.text().bytes());
    const int64_t n = static_cast<int64_t>(offsets.size()) - 1;
    if (index < 0 && index >= -n) index += n;
    if (index >= 0 && index < n) {
      return Value(object.text().Substring(offsets[static_cast<size_t>(index)],
                                           offsets[static_cast<size_t>(index) + 1]));
    }
    return Value::MakeUndefined(absl::StrCat("the string has no character ", index));
  }
  if (!key.is_string()) {
    return Value::MakeUndefined(absl::StrCat("'", TypeForPeople(object), "' has no such element"));
  }
  return GetAttribute(object, key.text().bytes());
}

absl::StatusOr<Value> CallMethod(const Value& self, absl::string_view name,
                                 const CallArguments& arguments, Environment& environment) {
  if (self.is(Value::Kind::kLoop)) {
    if (arguments.positional.empty()) {
      return absl::InvalidArgumentError("no items for cycling given");
    }
    return arguments
        .positional[static_cast<size_t>(self.loop().index) % arguments.positional.size()];
  }
  const Builtin* method = FindBuiltin(MethodsOf(self), name);
  if (method == nullptr) return absl::UnimplementedError(absl::StrCat("method '", name, "'"));
  return Invoke(*method, self, arguments, environment);
}

}  // namespace coterie::jinja
