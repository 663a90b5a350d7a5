// The tests of `is`.

#include "core/formats/jinja/value_tests.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "core/formats/jinja/builtin_tables.h"
#include "core/formats/jinja/characters.h"

namespace coterie::jinja {
namespace {

using Kind = Value::Kind;

bool IsIterable(const Value& value) {
  return value.is_undefined() || value.is_string() || value.is(Kind::kSequence) ||
         value.is(Kind::kMapping) || value.is(Kind::kLoop);
}

// What has a length and can be subscripted; an undefined value does, to Python.
bool IsSequence(const Value& value) {
  return value.is_undefined() || value.is_string() || value.is(Kind::kMapping) ||
         (value.is(Kind::kSequence) && value.sequence().is_indexable());
}

bool IsSame(const Value& a, const Value& b) {
  if (a.kind() != b.kind()) return false;
  if (a.is(Kind::kMapping)) return &a.mapping() == &b.mapping();
  if (a.is(Kind::kSequence)) return &a.sequence() == &b.sequence();
  return Equal(a, b);
}

// Whether letters occur and all have the case.
bool HasOnlyCase(const Value& value, bool (*wanted)(uint32_t), bool (*unwanted)(uint32_t)) {
  if (!value.is_string()) return false;
  bool any = false;
  const absl::string_view text = value.text().bytes();
  for (size_t i = 0; i < text.size();) {
    const Character character = CharacterAt(text, i);
    if (unwanted(character.code)) return false;
    any |= wanted(character.code);
    i += character.n_bytes;
  }
  return any;
}

struct KindTest {
  absl::string_view name;
  bool (*matches)(const Value& value);
};

constexpr KindTest kKindTests[] = {
    {"boolean", [](const Value& value) { return value.is(Kind::kBool); }},
    {"callable", [](const Value& value) { return value.is(Kind::kCallable); }},
    {"defined", [](const Value& value) { return !value.is_undefined(); }},
    {"escaped", [](const Value& value) { return value.is_string() && value.text().markup(); }},
    {"false", [](const Value& value) { return value.is(Kind::kBool) && !value.boolean(); }},
    {"float", [](const Value& value) { return value.is(Kind::kFloat); }},
    {"integer", [](const Value& value) { return value.is(Kind::kInt); }},
    {"iterable", IsIterable},
    {"lower", [](const Value& value) { return HasOnlyCase(value, IsLower, IsUpper); }},
    {"mapping", [](const Value& value) { return value.is(Kind::kMapping); }},
    {"none", [](const Value& value) { return value.is_none(); }},
    {"number", [](const Value& value) { return value.is_number(); }},
    {"sequence", IsSequence},
    {"string", [](const Value& value) { return value.is_string(); }},
    {"true", [](const Value& value) { return value.is(Kind::kBool) && value.boolean(); }},
    {"undefined", [](const Value& value) { return value.is_undefined(); }},
    {"upper", [](const Value& value) { return HasOnlyCase(value, IsUpper, IsLower); }},
};

// Tests with one operand and the comparison that they make.
enum class Relation { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kSame, kIn };

struct RelationTest {
  absl::string_view name;
  Relation relation;
};

constexpr RelationTest kRelationTests[] = {
    {"==", Relation::kEqual},
    {"eq", Relation::kEqual},
    {"equalto", Relation::kEqual},
    {"!=", Relation::kNotEqual},
    {"ne", Relation::kNotEqual},
    {"<", Relation::kLess},
    {"lt", Relation::kLess},
    {"lessthan", Relation::kLess},
    {"<=", Relation::kLessEqual},
    {"le", Relation::kLessEqual},
    {">", Relation::kGreater},
    {"gt", Relation::kGreater},
    {"greaterthan", Relation::kGreater},
    {">=", Relation::kGreaterEqual},
    {"ge", Relation::kGreaterEqual},
    {"sameas", Relation::kSame},
    {"in", Relation::kIn},
};

absl::StatusOr<bool> Relate(Relation relation, const Value& a, const Value& b, Work& work) {
  COTERIE_RETURN_IF_ERROR(work.Charge(std::min(a.walk_cost(), b.walk_cost())));
  switch (relation) {
    case Relation::kEqual:
      return Equal(a, b);
    case Relation::kNotEqual:
      return !Equal(a, b);
    case Relation::kLess:
      return Less(a, b);
    case Relation::kGreater:
      return Less(b, a);
    case Relation::kSame:
      return IsSame(a, b);
    case Relation::kIn:
      return Contains(b, a, work);
    default:
      break;
  }
  COTERIE_ASSIGN_OR_RETURN(const bool less,
                           relation == Relation::kLessEqual ? Less(a, b) : Less(b, a));
  return less || Equal(a, b);
}

absl::StatusOr<bool> TestDivisibility(absl::string_view name, const Value& value,
                                      const CallArguments& arguments) {
  int64_t number = 0, divisor = 2;
  const bool has_divisor = name == "divisibleby";
  if (!value.AsInteger(&number) || arguments.positional.size() != (has_divisor ? 1 : 0) ||
      (has_divisor && !arguments.positional[0].AsInteger(&divisor))) {
    return absl::InvalidArgumentError(absl::StrCat("test '", name, "' needs integers"));
  }
  if (divisor == 0) return absl::InvalidArgumentError("integer division or modulo by zero");
  const bool divides = divisor == -1 || number % divisor == 0;
  return name == "odd" ? !divides : divides;
}

bool IsDivisibilityTest(absl::string_view name) {
  return name == "divisibleby" || name == "even" || name == "odd";
}

}  // namespace

bool IsKnownTest(absl::string_view name) {
  return IsDivisibilityTest(name) ||
         std::any_of(std::begin(kKindTests), std::end(kKindTests),
                     [name](const KindTest& test) { return test.name == name; }) ||
         std::any_of(std::begin(kRelationTests), std::end(kRelationTests),
                     [name](const RelationTest& test) { return test.name == name; });
}

absl::StatusOr<bool> ApplyTest(absl::string_view name, const Value& input,
                               const CallArguments& arguments, Environment& environment) {
  if (IsDivisibilityTest(name)) return TestDivisibility(name, input, arguments);
  for (const KindTest& test : kKindTests) {
    if (test.name != name) continue;
    if (arguments.positional.empty() && arguments.named.empty()) return test.matches(input);
    return absl::InvalidArgumentError(absl::StrCat("test '", name, "' takes no argument"));
  }
  for (const RelationTest& test : kRelationTests) {
    if (test.name != name) continue;
    if (arguments.positional.size() == 1 && arguments.named.empty()) {
      return Relate(test.relation, input, arguments.positional[0], environment.work);
    }
    return absl::InvalidArgumentError(absl::StrCat("test '", name, "' takes one argument"));
  }
  return absl::UnimplementedError(absl::StrCat("test '", name, "'"));
}

}  // namespace coterie::jinja
