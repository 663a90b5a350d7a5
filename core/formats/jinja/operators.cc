// Arithmetic and comparison as Python defines them.

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "core/formats/jinja/builtin_tables.h"
#include "core/formats/jinja/interpreter.h"
#include "core/formats/jinja/text_operations.h"

namespace coterie::jinja {
namespace {

using Kind = Value::Kind;

absl::Status BadOperands(absl::string_view op, const Value& a, const Value& b) {
  if (a.is_undefined()) return absl::InvalidArgumentError(a.complaint());
  if (b.is_undefined()) return absl::InvalidArgumentError(b.complaint());
  return absl::InvalidArgumentError(absl::StrCat("unsupported operand type(s) for ", op, ": '",
                                                 a.TypeName(), "' and '", b.TypeName(), "'"));
}

absl::Status Overflow() { return absl::UnimplementedError("an integer outside the 64-bit range"); }

absl::StatusOr<Value> IntegerPower(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) return absl::InvalidArgumentError("0.0 cannot be raised to a negative power");
    return Value(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  if (base == 0 || base == 1) return Value(exponent == 0 ? int64_t{1} : base);
  if (base == -1) return Value(int64_t{exponent % 2 == 0 ? 1 : -1});
  for (int64_t i = 0; i < exponent; ++i) {
    if (__builtin_mul_overflow(result, base, &result)) return Overflow();
  }
  return Value(result);
}

absl::StatusOr<Value> IntegerArithmetic(absl::string_view op, int64_t a, int64_t b) {
  int64_t result = 0;
  if (op == "+")
    return __builtin_add_overflow(a, b, &result) ? Overflow()
                                                 : absl::StatusOr<Value>(Value(result));
  if (op == "-")
    return __builtin_sub_overflow(a, b, &result) ? Overflow()
                                                 : absl::StatusOr<Value>(Value(result));
  if (op == "*")
    return __builtin_mul_overflow(a, b, &result) ? Overflow()
                                                 : absl::StatusOr<Value>(Value(result));
  if (op == "**") return IntegerPower(a, b);
  if (b == 0) return absl::InvalidArgumentError("division by zero");
  if (op == "/") return Value(static_cast<double>(a) / static_cast<double>(b));
  if (b == -1) {
    if (op == "%") return Value(int64_t{0});
    return a == INT64_MIN ? Overflow() : absl::StatusOr<Value>(Value(-a));
  }
  // Python rounds quotients down and gives remainders the sign of the divisor.
  int64_t quotient = a / b;
  int64_t remainder = a % b;
  if (remainder != 0 && (remainder < 0) != (b < 0)) {
    --quotient;
    remainder += b;
  }
  return Value(op == "//" ? quotient : remainder);
}

absl::StatusOr<Value> RealArithmetic(absl::string_view op, double a, double b) {
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  if (op == "**") {
    const double power = std::pow(a, b);
    if (std::isnan(power) && !std::isnan(a) && !std::isnan(b)) {
      return absl::UnimplementedError("a complex number");
    }
    return Value(power);
  }
  if (b == 0) return absl::InvalidArgumentError("float division by zero");
  if (op == "/") return Value(a / b);
  double remainder = std::fmod(a, b);
  if (remainder != 0 && (remainder < 0) != (b < 0)) remainder += b;
  if (op == "%") return Value(remainder);
  return Value(std::floor((a - remainder) / b + 0.5));
}

absl::StatusOr<Value> AddSequences(const Value& a, const Value& b, Work& work) {
  std::vector<Value> items = a.sequence().items;
  const std::vector<Value>& tail = b.sequence().items;
  COTERIE_RETURN_IF_ERROR(work.Charge(static_cast<int64_t>(items.size() + tail.size()) + 1));
  items.insert(items.end(), tail.begin(), tail.end());
  return MakeSequence(a.sequence().form, std::move(items));
}

absl::StatusOr<Value> RepeatSequence(const Value& a, int64_t count, Work& work) {
  const std::vector<Value>& items = a.sequence().items;
  std::vector<Value> repeated;
  for (int64_t i = 0; i < count && !items.empty(); ++i) {
    COTERIE_RETURN_IF_ERROR(work.Charge(static_cast<int64_t>(items.size()) + 1));
    repeated.insert(repeated.end(), items.begin(), items.end());
  }
  return MakeSequence(a.sequence().form, std::move(repeated));
}

bool IsList(const Value& value) {
  return value.is(Kind::kSequence) && value.sequence().is_indexable();
}

}  // namespace

absl::StatusOr<Value> Arithmetic(absl::string_view op, const Value& a, const Value& b, Work& work) {
  int64_t left = 0, right = 0;
  double x = 0, y = 0;
  const bool left_is_integer = a.AsInteger(&left), right_is_integer = b.AsInteger(&right);
  if (left_is_integer && right_is_integer) return IntegerArithmetic(op, left, right);
  if (a.AsReal(&x) && b.AsReal(&y)) return RealArithmetic(op, x, y);
  if (op == "+" && a.is_string() && b.is_string()) {
    COTERIE_ASSIGN_OR_RETURN(Text sum, Add(a.text(), b.text(), work));
    return Value(std::move(sum));
  }
  if (op == "+" && IsList(a) && IsList(b) && a.sequence().form == b.sequence().form) {
    return AddSequences(a, b, work);
  }
  if (op == "*" && (right_is_integer || left_is_integer)) {
    const Value& repeated = right_is_integer ? a : b;
    const int64_t count = right_is_integer ? right : left;
    if (repeated.is_string()) {
      COTERIE_ASSIGN_OR_RETURN(Text text, Repeat(repeated.text(), count, work));
      return Value(std::move(text));
    }
    if (IsList(repeated)) return RepeatSequence(repeated, count, work);
  }
  if (op == "%" && a.is_string()) return absl::UnimplementedError("string formatting by %");
  return BadOperands(op, a, b);
}

absl::StatusOr<bool> Compare(Comparison comparison, const Value& a, const Value& b, Work& work) {
  if (comparison == Comparison::kIn || comparison == Comparison::kNotIn) {
    COTERIE_ASSIGN_OR_RETURN(const bool contained, Contains(b, a, work));
    return contained == (comparison == Comparison::kIn);
  }
  COTERIE_RETURN_IF_ERROR(work.Charge(std::min(a.walk_cost(), b.walk_cost())));
  if (comparison == Comparison::kEqual) return Equal(a, b);
  if (comparison == Comparison::kNotEqual) return !Equal(a, b);
  if (a.is_undefined() || b.is_undefined()) return BadOperands("<", a, b);
  if (comparison == Comparison::kLess) return Less(a, b);
  if (comparison == Comparison::kGreater) return Less(b, a);
  // <= and >= of numbers must be false for NaN, so they are not the negation of > and <.
  const bool less_equal = comparison == Comparison::kLessEqual;
  COTERIE_ASSIGN_OR_RETURN(const bool strictly, less_equal ? Less(a, b) : Less(b, a));
  return strictly || Equal(a, b);
}

}  // namespace coterie::jinja
