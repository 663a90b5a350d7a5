// Filters that take, make or look into sequences and mappings.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "core/base/status_macros.h"
#include "core/formats/jinja/builtin_tables.h"
#include "core/formats/jinja/text_operations.h"

namespace coterie::jinja {
namespace {

using Kind = Value::Kind;
using Form = Sequence::Form;

// Follows an attribute path such as "function.name" or "0".
absl::StatusOr<Value> Follow(const Value& object, const Value& path, Work& work) {
  COTERIE_RETURN_IF_ERROR(work.Charge(path.walk_cost()));
  if (!path.is_string()) return GetItem(object, path, work);
  Value value = object;
  for (absl::string_view part : absl::StrSplit(path.text().bytes(), '.')) {
    int64_t index = 0;
    const bool is_index = absl::SimpleAtoi(part, &index) && index >= 0;
    COTERIE_ASSIGN_OR_RETURN(value,
                             GetItem(value, is_index ? Value(index) : TextValue(part), work));
  }
  return value;
}

// The value by which an element is compared: its attribute, if one is named, without regard to case
// unless that matters.
absl::StatusOr<Value> KeyOf(const Value& item, const Value* attribute, bool case_sensitive,
                            Work& work) {
  Value key = item;
  if (attribute != nullptr && !attribute->is_none()) {
    COTERIE_ASSIGN_OR_RETURN(key, Follow(item, *attribute, work));
  }
  if (case_sensitive || !key.is_string()) return key;
  COTERIE_RETURN_IF_ERROR(work.ChargeBytes(key.text().cost_bytes()));
  return Value(ChangeCase(key.text(), LetterCase::kLower));
}

absl::StatusOr<std::vector<Value>> KeysOf(const std::vector<Value>& items, const Value* attribute,
                                          bool case_sensitive, Work& work) {
  std::vector<Value> keys;
  for (const Value& item : items) {
    COTERIE_ASSIGN_OR_RETURN(Value key, KeyOf(item, attribute, case_sensitive, work));
    keys.push_back(std::move(key));
  }
  return keys;
}

// Positions of `keys` in ascending order, stable.
absl::StatusOr<std::vector<size_t>> SortedOrder(const std::vector<Value>& keys, bool reverse,
                                                Work& work) {
  int64_t cost = 0;
  for (const Value& key : keys) {
    COTERIE_RETURN_IF_ERROR(work.Charge(key.walk_cost()));
    cost += key.walk_cost();
    COTERIE_RETURN_IF_ERROR(Less(key, keys[0]).status());
  }
  COTERIE_RETURN_IF_ERROR(work.Charge(cost * 20));
  std::vector<size_t> order(keys.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  absl::Status status;
  const auto less = [&](size_t a, size_t b) {
    const absl::StatusOr<bool> result = reverse ? Less(keys[b], keys[a]) : Less(keys[a], keys[b]);
    if (!result.ok()) status = result.status();
    return result.ok() && *result;
  };
  std::stable_sort(order.begin(), order.end(), less);
  COTERIE_RETURN_IF_ERROR(status);
  return order;
}

absl::StatusOr<Value> First(const BuiltinCall& call) {
  COTERIE_ASSIGN_OR_RETURN(std::vector<Value> items, Elements(call.input, call.work()));
  if (items.empty()) return Value::MakeUndefined("No first item, sequence was empty.");
  return items.front();
}

absl::StatusOr<Value> Last(const BuiltinCall& call) {
  COTERIE_ASSIGN_OR_RETURN(std::vector<Value> items, Elements(call.input, call.work()));
  if (items.empty()) return Value::MakeUndefined("No last item, sequence was empty.");
  return items.back();
}

absl::StatusOr<Value> List(const BuiltinCall& call) {
  COTERIE_ASSIGN_OR_RETURN(std::vector<Value> items, Elements(call.input, call.work()));
  return MakeSequence(Form::kList, std::move(items));
}

absl::StatusOr<Value> Reverse(const BuiltinCall& call) {
  if (call.input.is_string()) {
    COTERIE_RETURN_IF_ERROR(call.work().Charge(static_cast<int64_t>(call.input.text().size())));
    return Value(SliceText(call.input.text(), nullptr, nullptr, -1));
  }
  COTERIE_ASSIGN_OR_RETURN(std::vector<Value> items, Elements(call.input, call.work()));
  std::reverse(items.begin(), items.end());
  return MakeSequence(Form::kGenerator, std::move(items));
}

absl::StatusOr<Value> Items(const BuiltinCall& call) {
  if (call.input.is_undefined()) return MakeSequence(Form::kGenerator, {});
  if (!call.input.is(Kind::kMapping)) {
    return absl::InvalidArgumentError("Can only get item pairs from a mapping.");
  }
  std::vector<Value> items;
  COTERIE_RETURN_IF_ERROR(call.work().Charge(call.input.mapping().entries().size() + 1));
  for (const auto& [key, value] : call.input.mapping().entries()) {
    COTERIE_ASSIGN_OR_RETURN(Value pair, MakeSequence(Form::kTuple, {key, value}));
    items.push_back(std::move(pair));
  }
  return MakeSequence(Form::kGenerator, std::move(items));
}

absl::StatusOr<Value> DictSort(const BuiltinCall& call) {
  if (!call.input.is(Kind::kMapping)) {
    return absl::InvalidArgumentError(
        absl::StrCat("filter 'dictsort' needs a dict, not ", call.input.TypeName()));
  }
  const bool by_value =
      call.Has(1) && call.arguments[1]->is_string() && call.arguments[1]->text().bytes() == "value";
  std::vector<Value> subjects;
  COTERIE_RETURN_IF_ERROR(
      call.work().Charge(static_cast<int64_t>(call.input.mapping().entries().size())));
  for (const auto& [key, value] : call.input.mapping().entries()) {
    subjects.push_back(by_value ? value : key);
  }
  COTERIE_ASSIGN_OR_RETURN(const std::vector<Value> keys,
                           KeysOf(subjects, nullptr, call.Flag(0), call.work()));
  COTERIE_ASSIGN_OR_RETURN(const std::vector<size_t> order,
                           SortedOrder(keys, call.Flag(2), call.work()));
  std::vector<Value> pairs;
  for (size_t i : order) {
    const auto& [key, value] = call.input.mapping().entries()[i];
    COTERIE_ASSIGN_OR_RETURN(Value pair, MakeSequence(Form::kTuple, {key, value}));
    pairs.push_back(std::move(pair));
  }
  return MakeSequence(Form::kList, std::move(pairs));
}

absl::StatusOr<Value> Sort(const BuiltinCall& call) {
  COTERIE_ASSIGN_OR_RETURN(const std::vector<Value> items, Elements(call.input, call.work()));
  COTERIE_ASSIGN_OR_RETURN(
      const std::vector<Value> keys,
      KeysOf(items, call.Has(2) ? call.arguments[2] : nullptr, call.Flag(1), call.work()));
  COTERIE_ASSIGN_OR_RETURN(const std::vector<size_t> order,
                           SortedOrder(keys, call.Flag(0), call.work()));
  std::vector<Value> sorted;
  for (size_t i : order) sorted.push_back(items[i]);
  return MakeSequence(Form::kList, std::move(sorted));
}

absl::StatusOr<Value> Unique(const BuiltinCall& call) {
  COTERIE_ASSIGN_OR_RETURN(const std::vector<Value> items, Elements(call.input, call.work()));
  Mapping seen;
  std::vector<Value> kept;
  for (const Value& item : items) {
    COTERIE_ASSIGN_OR_RETURN(const Value key, KeyOf(item, call.Has(1) ? call.arguments[1] : nullptr,
                                                    call.Flag(0), call.work()));
    COTERIE_RETURN_IF_ERROR(call.work().Charge(key.walk_cost()));
    if (seen.Find(key) != nullptr) continue;
    COTERIE_RETURN_IF_ERROR(seen.Set(key, Value(None{})));
    kept.push_back(item);
  }
  return MakeSequence(Form::kGenerator, std::move(kept));
}

template <bool wants_max>
absl::StatusOr<Value> Extreme(const BuiltinCall& call) {
  COTERIE_ASSIGN_OR_RETURN(const std::vector<Value> items, Elements(call.input, call.work()));
  if (items.empty()) return Value::MakeUndefined("No aggregated item, sequence was empty.");
  COTERIE_ASSIGN_OR_RETURN(
      const std::vector<Value> keys,
      KeysOf(items, call.Has(1) ? call.arguments[1] : nullptr, call.Flag(0), call.work()));
  COTERIE_RETURN_IF_ERROR(call.work().Charge(call.input.walk_cost()));
  size_t best = 0;
  for (size_t i = 1; i < items.size(); ++i) {
    COTERIE_ASSIGN_OR_RETURN(const bool better,
                             wants_max ? Less(keys[best], keys[i]) : Less(keys[i], keys[best]));
    if (better) best = i;
  }
  return items[best];
}

absl::StatusOr<Value> Sum(const BuiltinCall& call) {
  COTERIE_ASSIGN_OR_RETURN(const std::vector<Value> items, Elements(call.input, call.work()));
  int64_t total = 0;
  double real_total = 0;
  bool is_real = false;
  if (call.Has(1)) return absl::UnimplementedError("filter 'sum' with a start");
  for (const Value& item : items) {
    COTERIE_ASSIGN_OR_RETURN(const Value number,
                             KeyOf(item, call.Has(0) ? call.arguments[0] : nullptr,
                                   /*case_sensitive=*/true, call.work()));
    double real = 0;
    int64_t integer = 0;
    if (!number.AsReal(&real)) return absl::InvalidArgumentError("filter 'sum' needs numbers");
    is_real |= !number.AsInteger(&integer);
    real_total += real;
    if (__builtin_add_overflow(total, integer, &total)) {
      return absl::InvalidArgumentError("the sum is beyond 64 bits");
    }
  }
  return is_real ? Value(real_total) : Value(total);
}

absl::StatusOr<Value> JoinFilter(const BuiltinCall& call) {
  COTERIE_ASSIGN_OR_RETURN(const std::vector<Value> items, Elements(call.input, call.work()));
  Text separator;
  if (call.Has(0)) {
    COTERIE_ASSIGN_OR_RETURN(separator, call.TextOf(0));
  }
  std::vector<Text> parts;
  for (const Value& item : items) {
    COTERIE_ASSIGN_OR_RETURN(const Value part,
                             KeyOf(item, call.Has(1) ? call.arguments[1] : nullptr,
                                   /*case_sensitive=*/true, call.work()));
    CallArguments none;
    COTERIE_ASSIGN_OR_RETURN(const Value text, ApplyFilter("string", part, none, call.environment));
    parts.push_back(text.text());
  }
  COTERIE_ASSIGN_OR_RETURN(Text joined, Join(parts, separator, call.work()));
  return Value(std::move(joined));
}

absl::StatusOr<Value> Map(const BuiltinCall& call) {
  // Jinja looks at nothing else where the input is false, so that none passes as empty.
  if (!call.input.Truth()) return MakeSequence(Form::kGenerator, {});
  COTERIE_ASSIGN_OR_RETURN(const std::vector<Value> items, Elements(call.input, call.work()));
  const Value* attribute = call.raw.FindNamed("attribute");
  const Value* fallback = call.raw.FindNamed("default");
  CallArguments rest = call.raw;
  std::string filter;
  if (attribute == nullptr) {
    if (rest.positional.empty() || !rest.positional[0].is_string()) {
      return absl::InvalidArgumentError("map requires a filter argument");
    }
    filter = std::string(rest.positional[0].text().bytes());
    rest.positional.erase(rest.positional.begin());
  }
  std::vector<Value> results;
  for (const Value& item : items) {
    COTERIE_RETURN_IF_ERROR(call.work().Charge(1));
    Value result;
    if (attribute != nullptr) {
      COTERIE_ASSIGN_OR_RETURN(result, Follow(item, *attribute, call.work()));
      if (result.is_undefined() && fallback != nullptr) result = *fallback;
    } else {
      COTERIE_ASSIGN_OR_RETURN(result, ApplyFilter(filter, item, rest, call.environment));
    }
    results.push_back(std::move(result));
  }
  return MakeSequence(Form::kGenerator, std::move(results));
}

// select, reject, selectattr and rejectattr.
template <bool keeps, bool by_attribute>
absl::StatusOr<Value> Select(const BuiltinCall& call) {
  if (!call.input.Truth()) return MakeSequence(Form::kGenerator, {});
  COTERIE_ASSIGN_OR_RETURN(const std::vector<Value> items, Elements(call.input, call.work()));
  CallArguments rest = call.raw;
  const auto take_first = [&rest] {
    Value value = rest.positional.front();
    rest.positional.erase(rest.positional.begin());
    return value;
  };
  if (by_attribute && rest.positional.empty()) {
    return absl::InvalidArgumentError("Missing parameter for attribute name");
  }
  const Value attribute = by_attribute ? take_first() : Value();
  const bool has_test = !rest.positional.empty();
  const Value test = has_test ? take_first() : Value();
  if (has_test && !test.is_string()) return absl::InvalidArgumentError("the test is not a name");
  std::vector<Value> kept;
  for (const Value& item : items) {
    COTERIE_RETURN_IF_ERROR(call.work().Charge(1));
    Value subject = item;
    if (by_attribute) {
      COTERIE_ASSIGN_OR_RETURN(subject, Follow(item, attribute, call.work()));
    }
    bool passes = subject.Truth();
    if (has_test) {
      COTERIE_ASSIGN_OR_RETURN(passes,
                               ApplyTest(test.text().bytes(), subject, rest, call.environment));
    }
    if (passes == keeps) kept.push_back(item);
  }
  return MakeSequence(Form::kGenerator, std::move(kept));
}

absl::StatusOr<Value> Attr(const BuiltinCall& call) {
  if (!call.Has(0) || !call.arguments[0]->is_string()) {
    return absl::InvalidArgumentError("filter 'attr' needs a name");
  }
  // Unlike a dot, the filter never looks at the keys of a mapping.
  COTERIE_RETURN_IF_ERROR(call.work().Charge(call.arguments[0]->walk_cost()));
  const absl::string_view name = call.arguments[0]->text().bytes();
  if (call.input.is(Kind::kMapping) && call.input.mapping().Find(name) != nullptr) {
    return Value::MakeUndefined(absl::StrCat("'dict object' has no attribute '", name, "'"));
  }
  return GetAttribute(call.input, name);
}

absl::StatusOr<Value> Batch(const BuiltinCall& call) {
  COTERIE_ASSIGN_OR_RETURN(const std::vector<Value> items, Elements(call.input, call.work()));
  COTERIE_ASSIGN_OR_RETURN(const int64_t width, call.Integer(0, 0));
  if (width <= 0 || width > kMaxRange) {
    return absl::InvalidArgumentError("filter 'batch' needs a positive count");
  }
  std::vector<Value> batches;
  for (size_t i = 0; i < items.size(); i += static_cast<size_t>(width)) {
    const size_t end = std::min(items.size(), i + static_cast<size_t>(width));
    std::vector<Value> batch(items.begin() + static_cast<int64_t>(i),
                             items.begin() + static_cast<int64_t>(end));
    COTERIE_RETURN_IF_ERROR(call.work().Charge(width));
    if (call.Has(1) && !call.arguments[1]->is_none()) {
      batch.resize(static_cast<size_t>(width), *call.arguments[1]);
    }
    COTERIE_ASSIGN_OR_RETURN(Value value, MakeSequence(Form::kList, std::move(batch)));
    batches.push_back(std::move(value));
  }
  return MakeSequence(Form::kGenerator, std::move(batches));
}

constexpr Builtin kSequenceFilters[] = {
    {"attr", "name", Attr},
    {"batch", "linecount,fill_with", Batch},
    {"dictsort", "case_sensitive,by,reverse", DictSort},
    {"first", "", First},
    {"items", "", Items},
    {"join", "d,attribute", JoinFilter},
    {"last", "", Last},
    {"list", "", List},
    {"map", "*", Map},
    {"max", "case_sensitive,attribute", Extreme<true>},
    {"min", "case_sensitive,attribute", Extreme<false>},
    {"reject", "*", Select<false, false>},
    {"rejectattr", "*", Select<false, true>},
    {"reverse", "", Reverse},
    {"select", "*", Select<true, false>},
    {"selectattr", "*", Select<true, true>},
    {"sort", "reverse,case_sensitive,attribute", Sort},
    {"sum", "attribute,start", Sum},
    {"unique", "case_sensitive,attribute", Unique},
};

}  // namespace

absl::Span<const Builtin> SequenceFilters() { return kSequenceFilters; }

}  // namespace coterie::jinja
