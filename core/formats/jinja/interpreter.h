#pragma once

// Runs parsed templates.
//
// Roles. Text that stems from a message value keeps the origin it came with (untrusted, with the
// message's role) through every operation on it. Text of the template gets its role when it is
// first written to the output, or to the text of a macro or block:
//   - inside {% generation %}, or a branch of an `if` whose condition names add_generation_prompt
//     and came out true while that variable is true: kAssistant;
//   - else inside a `for` whose variable is an element of `messages`: that message's role (the
//     innermost such loop; macros called from there included);
//   - else it stays open, and is kNone if nothing above settles it before it is printed.

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "core/formats/jinja/ast.h"
#include "core/formats/jinja/builtins.h"
#include "core/formats/jinja/value.h"
#include "core/formats/jinja/work.h"

namespace coterie::jinja {

// Variables of one frame. Names are few, so they are searched in line; a hostile template may have
// many, so searching is work.
struct Scope {
  std::shared_ptr<Scope> parent;
  std::vector<std::pair<absl::string_view, Value>> variables;

  absl::Status Set(absl::string_view name, Value value, Work& work);
  // Here or in a parent; null where there is none.
  absl::StatusOr<const Value*> Find(absl::string_view name, Work& work) const;
};

// One rendering of one template. Thread-compatible; used once.
class Interpreter {
 public:
  // `template_block` and `globals` must outlive the interpreter.
  Interpreter(const Block& template_block, const std::map<std::string, Value>& globals,
              const std::tm& now, const Limits& limits);

  // The text with its origins. Messages of errors begin with "line N: ". kInvalidArgument where
  // Jinja would raise (raise_exception included), kUnimplemented for what this subset lacks,
  // kResourceExhausted past a limit of work.h.
  absl::StatusOr<Text> Run();

 private:
  enum class Flow { kNext, kBreak, kContinue };
  class DepthGuard;

  absl::StatusOr<Flow> ExecuteBlock(const Block& block);
  absl::StatusOr<Flow> Execute(const Statement& statement);
  absl::StatusOr<Flow> ExecuteUnguarded(const Statement& statement);
  absl::StatusOr<Flow> ExecuteIf(const Statement& statement);
  absl::StatusOr<Flow> ExecuteFor(const Statement& statement);
  absl::StatusOr<Flow> ExecuteWith(const Statement& statement);
  absl::StatusOr<Flow> ExecuteGeneration(const Statement& statement);
  absl::StatusOr<std::vector<Value>> LoopItems(const Statement& statement);
  absl::Status ExecuteSetBlock(const Statement& statement);
  absl::Status ExecuteCallBlock(const Statement& statement);
  absl::Status ExecuteFilterBlock(const Statement& statement);
  absl::Status Assign(const Target& target, Value value);
  // Runs a block with an output of its own.
  absl::StatusOr<Text> Capture(const Block& block);
  absl::Status Write(const Text& text);

  absl::StatusOr<Value> Evaluate(const Expression& expression);
  absl::StatusOr<Value> EvaluateUnguarded(const Expression& expression);
  absl::StatusOr<Value> EvaluateName(const Expression& expression);
  absl::StatusOr<Value> EvaluateMapping(const Expression& expression);
  absl::StatusOr<Value> EvaluateSlice(const Expression& expression);
  absl::StatusOr<Value> EvaluateSigned(const Expression& expression);
  absl::StatusOr<Value> EvaluateArithmetic(const Expression& expression);
  absl::StatusOr<Value> EvaluateConcat(const Expression& expression);
  absl::StatusOr<Value> EvaluateLogic(const Expression& expression);
  absl::StatusOr<Value> EvaluateCompare(const Expression& expression);
  absl::StatusOr<Value> EvaluateInlineIf(const Expression& expression);
  absl::StatusOr<Value> EvaluateFilter(const Expression& expression, const Value& input);
  absl::StatusOr<Value> EvaluateTest(const Expression& expression);
  absl::StatusOr<Value> EvaluateCall(const Expression& expression, const Value* caller);
  absl::StatusOr<std::vector<Value>> EvaluateAll(const std::vector<ExpressionPtr>& operands);
  absl::StatusOr<CallArguments> EvaluateArguments(const std::vector<Argument>& arguments);
  // Applies a filter chain whose innermost filter has no operand.
  absl::StatusOr<Value> ApplyChain(const Expression& chain, Value input);

  Value MakeMacro(const Statement& statement);
  absl::StatusOr<Value> CallValue(const Value& callee, const CallArguments& arguments,
                                  const Value* caller);
  absl::StatusOr<Value> CallMacro(const Callable& callable, const CallArguments& arguments,
                                  const Value* caller);
  absl::Status BindParameters(const Statement& macro, const CallArguments& arguments);
  absl::StatusOr<Value> ArgumentFor(const Statement& macro, size_t i,
                                    const CallArguments& arguments);
  absl::Status SetVariable(absl::string_view name, Value value) {
    return scope_->Set(name, std::move(value), environment_.work);
  }

  const Block& template_;
  const std::map<std::string, Value>& globals_;
  Environment environment_;
  std::shared_ptr<Scope> scope_;
  // Scopes in which macros were defined: their callables hold them by address.
  std::vector<std::shared_ptr<Scope>> pinned_scopes_;
  const size_t max_output_bytes_;
  Text* output_ = nullptr;
  Role role_ = Role::kNone;
  int depth_ = 0;
  int error_line_ = 0;
};

// Operators on values, apart for their number. `op` is one of + - * / // % **.
absl::StatusOr<Value> Arithmetic(absl::string_view op, const Value& a, const Value& b, Work& work);
absl::StatusOr<bool> Compare(Comparison comparison, const Value& a, const Value& b, Work& work);

}  // namespace coterie::jinja
