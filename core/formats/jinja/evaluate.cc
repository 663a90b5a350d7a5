// The expressions of the interpreter.

#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "core/formats/jinja/builtin_tables.h"
#include "core/formats/jinja/interpreter.h"
#include "core/formats/jinja/printing.h"
#include "core/formats/jinja/text_operations.h"

namespace coterie::jinja {
namespace {

using Kind = Value::Kind;
using Form = Sequence::Form;

}  // namespace

// Counts one level of evaluation while it lives.
class Interpreter::DepthGuard {
 public:
  explicit DepthGuard(int& depth) : depth_(depth) { ++depth_; }
  ~DepthGuard() { --depth_; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;

 private:
  int& depth_;
};

absl::StatusOr<Value> Interpreter::Evaluate(const Expression& expression) {
  DepthGuard guard(depth_);
  if (depth_ > kMaxEvaluationDepth) {
    return absl::ResourceExhaustedError("macros and expressions are nested too deep");
  }
  COTERIE_RETURN_IF_ERROR(environment_.work.Charge(1));
  absl::StatusOr<Value> value = EvaluateUnguarded(expression);
  if (!value.ok() && error_line_ == 0) error_line_ = expression.line;
  return value;
}

absl::StatusOr<Value> Interpreter::EvaluateUnguarded(const Expression& expression) {
  switch (expression.kind) {
    case ExpressionKind::kLiteral:
      return expression.literal;
    case ExpressionKind::kName:
      return EvaluateName(expression);
    case ExpressionKind::kList:
    case ExpressionKind::kTuple: {
      COTERIE_ASSIGN_OR_RETURN(std::vector<Value> items, EvaluateAll(expression.operands));
      return MakeSequence(expression.kind == ExpressionKind::kList ? Form::kList : Form::kTuple,
                          std::move(items));
    }
    case ExpressionKind::kMapping:
      return EvaluateMapping(expression);
    case ExpressionKind::kAttribute: {
      COTERIE_ASSIGN_OR_RETURN(const Value object, Evaluate(*expression.operands[0]));
      return GetAttribute(object, expression.name);
    }
    case ExpressionKind::kItem: {
      COTERIE_ASSIGN_OR_RETURN(const Value object, Evaluate(*expression.operands[0]));
      COTERIE_ASSIGN_OR_RETURN(const Value key, Evaluate(*expression.operands[1]));
      return GetItem(object, key, environment_.work);
    }
    case ExpressionKind::kSlice:
      return EvaluateSlice(expression);
    case ExpressionKind::kCall:
      return EvaluateCall(expression, nullptr);
    case ExpressionKind::kFilter: {
      COTERIE_ASSIGN_OR_RETURN(const Value input, Evaluate(*expression.operands[0]));
      return EvaluateFilter(expression, input);
    }
    case ExpressionKind::kTest:
      return EvaluateTest(expression);
    case ExpressionKind::kNot: {
      COTERIE_ASSIGN_OR_RETURN(const Value value, Evaluate(*expression.operands[0]));
      return Value(!value.Truth());
    }
    case ExpressionKind::kNegate:
    case ExpressionKind::kPlus:
      return EvaluateSigned(expression);
    case ExpressionKind::kArithmetic:
      return EvaluateArithmetic(expression);
    case ExpressionKind::kConcat:
      return EvaluateConcat(expression);
    case ExpressionKind::kAnd:
    case ExpressionKind::kOr:
      return EvaluateLogic(expression);
    case ExpressionKind::kCompare:
      return EvaluateCompare(expression);
    case ExpressionKind::kInlineIf:
      return EvaluateInlineIf(expression);
  }
  return Value();
}

absl::StatusOr<Value> Interpreter::EvaluateName(const Expression& expression) {
  COTERIE_ASSIGN_OR_RETURN(const Value* local, scope_->Find(expression.name, environment_.work));
  if (local != nullptr) return *local;
  const auto global = globals_.find(expression.name);
  if (global != globals_.end()) return global->second;
  if (IsGlobalFunction(expression.name)) {
    auto callable = std::make_shared<Callable>();
    callable->name = expression.name;
    return Value(std::shared_ptr<const Callable>(std::move(callable)));
  }
  return Value::MakeUndefined(absl::StrCat("'", expression.name, "' is undefined"));
}

absl::StatusOr<std::vector<Value>> Interpreter::EvaluateAll(
    const std::vector<ExpressionPtr>& operands) {
  std::vector<Value> values;
  values.reserve(operands.size());
  for (const ExpressionPtr& operand : operands) {
    COTERIE_ASSIGN_OR_RETURN(Value value, Evaluate(*operand));
    values.push_back(std::move(value));
  }
  return values;
}

absl::StatusOr<Value> Interpreter::EvaluateMapping(const Expression& expression) {
  auto mapping = std::make_shared<Mapping>();
  for (size_t i = 0; i < expression.operands.size(); i += 2) {
    COTERIE_ASSIGN_OR_RETURN(const Value key, Evaluate(*expression.operands[i]));
    COTERIE_ASSIGN_OR_RETURN(Value value, Evaluate(*expression.operands[i + 1]));
    COTERIE_RETURN_IF_ERROR(environment_.work.Charge(key.walk_cost()));
    COTERIE_RETURN_IF_ERROR(mapping->Set(key, std::move(value)));
  }
  return Value(std::shared_ptr<const Mapping>(std::move(mapping)));
}

absl::StatusOr<Value> Interpreter::EvaluateSlice(const Expression& expression) {
  COTERIE_ASSIGN_OR_RETURN(const Value object, Evaluate(*expression.operands[0]));
  int64_t bounds[3] = {0, 0, 1};
  const int64_t* given[3] = {nullptr, nullptr, nullptr};
  for (size_t i = 0; i < 3; ++i) {
    if (expression.operands[i + 1] == nullptr) continue;
    COTERIE_ASSIGN_OR_RETURN(const Value bound, Evaluate(*expression.operands[i + 1]));
    if (bound.is_none()) continue;
    if (!bound.AsInteger(&bounds[i])) {
      return Value::MakeUndefined("slice indices must be integers or None");
    }
    given[i] = &bounds[i];
  }
  const int64_t step = bounds[2];
  if (step == 0) return absl::InvalidArgumentError("slice step cannot be zero");
  if (object.is_string()) {
    COTERIE_RETURN_IF_ERROR(environment_.work.Charge(static_cast<int64_t>(object.text().size())));
    return Value(SliceText(object.text(), given[0], given[1], step));
  }
  if (object.is_undefined()) return absl::InvalidArgumentError(object.complaint());
  if (!object.is(Kind::kSequence) || !object.sequence().is_indexable()) {
    return Value::MakeUndefined(absl::StrCat("'", object.TypeName(), "' has no slices"));
  }
  const std::vector<Value>& items = object.sequence().items;
  COTERIE_RETURN_IF_ERROR(environment_.work.Charge(static_cast<int64_t>(items.size())));
  std::vector<Value> kept;
  for (int64_t i : SlicePositions(static_cast<int64_t>(items.size()), given[0], given[1], step)) {
    kept.push_back(items[static_cast<size_t>(i)]);
  }
  return MakeSequence(object.sequence().form, std::move(kept));
}

absl::StatusOr<Value> Interpreter::EvaluateSigned(const Expression& expression) {
  COTERIE_ASSIGN_OR_RETURN(const Value value, Evaluate(*expression.operands[0]));
  if (value.is_undefined()) return absl::InvalidArgumentError(value.complaint());
  // Zero minus zero would lose the sign of -0.0.
  if (value.is(Kind::kFloat) && expression.kind == ExpressionKind::kNegate) {
    return Value(-value.real());
  }
  return Arithmetic(expression.kind == ExpressionKind::kNegate ? "-" : "+", Value(int64_t{0}),
                    value, environment_.work);
}

absl::StatusOr<Value> Interpreter::EvaluateArithmetic(const Expression& expression) {
  COTERIE_ASSIGN_OR_RETURN(const Value left, Evaluate(*expression.operands[0]));
  COTERIE_ASSIGN_OR_RETURN(const Value right, Evaluate(*expression.operands[1]));
  return Arithmetic(expression.name, left, right, environment_.work);
}

absl::StatusOr<Value> Interpreter::EvaluateConcat(const Expression& expression) {
  COTERIE_ASSIGN_OR_RETURN(const std::vector<Value> values, EvaluateAll(expression.operands));
  Text joined;
  for (const Value& value : values) {
    COTERIE_ASSIGN_OR_RETURN(const Text text, ToText(value, environment_.work));
    joined.Append(text);
  }
  return Value(std::move(joined));
}

absl::StatusOr<Value> Interpreter::EvaluateLogic(const Expression& expression) {
  COTERIE_ASSIGN_OR_RETURN(Value left, Evaluate(*expression.operands[0]));
  const bool decides_when = expression.kind == ExpressionKind::kOr;
  if (left.Truth() == decides_when) return left;
  return Evaluate(*expression.operands[1]);
}

absl::StatusOr<Value> Interpreter::EvaluateCompare(const Expression& expression) {
  COTERIE_ASSIGN_OR_RETURN(Value left, Evaluate(*expression.operands[0]));
  for (size_t i = 0; i < expression.comparisons.size(); ++i) {
    COTERIE_ASSIGN_OR_RETURN(Value right, Evaluate(*expression.operands[i + 1]));
    COTERIE_ASSIGN_OR_RETURN(const bool holds,
                             Compare(expression.comparisons[i], left, right, environment_.work));
    if (!holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

absl::StatusOr<Value> Interpreter::EvaluateInlineIf(const Expression& expression) {
  COTERIE_ASSIGN_OR_RETURN(const Value condition, Evaluate(*expression.operands[1]));
  if (condition.Truth()) return Evaluate(*expression.operands[0]);
  if (expression.operands[2] != nullptr) return Evaluate(*expression.operands[2]);
  return Value::MakeUndefined("the inline if-expression evaluated to false and has no else");
}

absl::StatusOr<CallArguments> Interpreter::EvaluateArguments(
    const std::vector<Argument>& arguments) {
  CallArguments result;
  for (const Argument& argument : arguments) {
    COTERIE_ASSIGN_OR_RETURN(Value value, Evaluate(*argument.value));
    switch (argument.form) {
      case Argument::Form::kPositional:
        result.positional.push_back(std::move(value));
        break;
      case Argument::Form::kNamed:
        result.named.emplace_back(argument.name, std::move(value));
        break;
      case Argument::Form::kSpread: {
        COTERIE_ASSIGN_OR_RETURN(std::vector<Value> items, Elements(value, environment_.work));
        for (Value& item : items) result.positional.push_back(std::move(item));
        break;
      }
      case Argument::Form::kSpreadNamed:
        if (!value.is(Kind::kMapping)) return absl::InvalidArgumentError("** needs a dict");
        COTERIE_RETURN_IF_ERROR(environment_.work.Charge(value.walk_cost()));
        for (const auto& [key, item] : value.mapping().entries()) {
          if (!key.is_string()) return absl::InvalidArgumentError("keywords must be strings");
          result.named.emplace_back(std::string(key.text().bytes()), item);
        }
    }
  }
  return result;
}

absl::StatusOr<Value> Interpreter::EvaluateFilter(const Expression& expression,
                                                  const Value& input) {
  COTERIE_ASSIGN_OR_RETURN(const CallArguments arguments, EvaluateArguments(expression.arguments));
  return ApplyFilter(expression.name, input, arguments, environment_);
}

absl::StatusOr<Value> Interpreter::ApplyChain(const Expression& chain, Value input) {
  DepthGuard guard(depth_);
  if (chain.kind != ExpressionKind::kFilter) {
    return absl::UnimplementedError("tests and calls in the filters of a block");
  }
  if (chain.operands[0] != nullptr) {
    COTERIE_ASSIGN_OR_RETURN(input, ApplyChain(*chain.operands[0], std::move(input)));
  }
  return EvaluateFilter(chain, input);
}

absl::StatusOr<Value> Interpreter::EvaluateTest(const Expression& expression) {
  COTERIE_ASSIGN_OR_RETURN(const Value input, Evaluate(*expression.operands[0]));
  COTERIE_ASSIGN_OR_RETURN(const CallArguments arguments, EvaluateArguments(expression.arguments));
  COTERIE_ASSIGN_OR_RETURN(const bool holds,
                           ApplyTest(expression.name, input, arguments, environment_));
  return Value(holds);
}

absl::StatusOr<Value> Interpreter::EvaluateCall(const Expression& expression, const Value* caller) {
  COTERIE_ASSIGN_OR_RETURN(const Value callee, Evaluate(*expression.operands[0]));
  COTERIE_ASSIGN_OR_RETURN(const CallArguments arguments, EvaluateArguments(expression.arguments));
  return CallValue(callee, arguments, caller);
}

}  // namespace coterie::jinja
