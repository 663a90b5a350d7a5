#include "core/formats/jinja/interpreter.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "core/formats/jinja/builtin_tables.h"
#include "core/formats/jinja/printing.h"

namespace coterie::jinja {

using Kind = Value::Kind;

// Sets a member for as long as it lives.
template <typename T>
class Restorer {
 public:
  Restorer(T& place, T value) : place_(place), old_(std::exchange(place, std::move(value))) {}
  ~Restorer() { place_ = std::move(old_); }
  Restorer(const Restorer&) = delete;
  Restorer& operator=(const Restorer&) = delete;

 private:
  T& place_;
  T old_;
};

namespace {

constexpr size_t kNamesPerUnit = 16;  // Compared for one unit of work.

}  // namespace

absl::Status Scope::Set(absl::string_view name, Value value, Work& work) {
  COTERIE_RETURN_IF_ERROR(work.Charge(static_cast<int64_t>(variables.size() / kNamesPerUnit)));
  for (auto& [key, old] : variables) {
    if (key == name) {
      old = std::move(value);
      return absl::OkStatus();
    }
  }
  variables.emplace_back(name, std::move(value));
  return absl::OkStatus();
}

absl::StatusOr<const Value*> Scope::Find(absl::string_view name, Work& work) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->parent.get()) {
    COTERIE_RETURN_IF_ERROR(
        work.Charge(static_cast<int64_t>(scope->variables.size() / kNamesPerUnit)));
    for (const auto& [key, value] : scope->variables) {
      if (key == name) return &value;
    }
  }
  return nullptr;
}

Interpreter::Interpreter(const Block& template_block, const std::map<std::string, Value>& globals,
                         const std::tm& now, const Limits& limits)
    : template_(template_block),
      globals_(globals),
      environment_{Work(limits.work_units), now, {}},
      scope_(std::make_shared<Scope>()),
      max_output_bytes_(limits.output_bytes) {}

absl::StatusOr<Text> Interpreter::Run() {
  Text output;
  output_ = &output;
  const absl::StatusOr<Flow> flow = ExecuteBlock(template_);
  output_ = nullptr;
  if (flow.ok()) return output;
  return absl::Status(flow.status().code(),
                      absl::StrCat("line ", error_line_, ": ", flow.status().message()));
}

absl::Status Interpreter::Write(const Text& text) {
  COTERIE_RETURN_IF_ERROR(environment_.work.ChargeBytes(text.cost_bytes()));
  if (text.size() > max_output_bytes_ - output_->size()) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the template writes more than a conversation can be: limit=", max_output_bytes_));
  }
  if (role_ == Role::kNone) {
    output_->Append(text);
  } else {
    Text settled = text;
    settled.SettleRole(role_);
    output_->Append(settled);
  }
  return absl::OkStatus();
}

absl::StatusOr<Text> Interpreter::Capture(const Block& block) {
  Text output;
  Restorer<Text*> redirect(output_, &output);
  COTERIE_RETURN_IF_ERROR(ExecuteBlock(block).status());
  return output;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteBlock(const Block& block) {
  for (const auto& statement : block) {
    COTERIE_ASSIGN_OR_RETURN(const Flow flow, Execute(*statement));
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Execute(const Statement& statement) {
  Restorer<int> deeper(depth_, depth_ + 1);
  absl::StatusOr<Flow> flow = Flow::kNext;
  if (depth_ > kMaxEvaluationDepth) {
    flow = absl::ResourceExhaustedError("macros and tags are nested too deep");
  } else {
    absl::Status charged = environment_.work.Charge(1);
    flow = charged.ok() ? ExecuteUnguarded(statement) : absl::StatusOr<Flow>(charged);
  }
  // The innermost place knows the line best.
  if (!flow.ok() && error_line_ == 0) error_line_ = statement.line;
  return flow;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteUnguarded(const Statement& statement) {
  switch (statement.kind) {
    case StatementKind::kText:
      COTERIE_RETURN_IF_ERROR(Write(statement.text));
      return Flow::kNext;
    case StatementKind::kPrint: {
      COTERIE_ASSIGN_OR_RETURN(const Value value, Evaluate(*statement.expression));
      COTERIE_ASSIGN_OR_RETURN(const Text text, ToText(value, environment_.work));
      COTERIE_RETURN_IF_ERROR(Write(text));
      return Flow::kNext;
    }
    case StatementKind::kIf:
      return ExecuteIf(statement);
    case StatementKind::kFor:
      return ExecuteFor(statement);
    case StatementKind::kSet: {
      COTERIE_ASSIGN_OR_RETURN(Value value, Evaluate(*statement.expression));
      COTERIE_RETURN_IF_ERROR(Assign(statement.target, std::move(value)));
      return Flow::kNext;
    }
    case StatementKind::kSetBlock:
      COTERIE_RETURN_IF_ERROR(ExecuteSetBlock(statement));
      return Flow::kNext;
    case StatementKind::kMacro:
      COTERIE_RETURN_IF_ERROR(SetVariable(statement.name, MakeMacro(statement)));
      return Flow::kNext;
    case StatementKind::kCallBlock:
      COTERIE_RETURN_IF_ERROR(ExecuteCallBlock(statement));
      return Flow::kNext;
    case StatementKind::kFilterBlock:
      COTERIE_RETURN_IF_ERROR(ExecuteFilterBlock(statement));
      return Flow::kNext;
    case StatementKind::kGeneration:
      return ExecuteGeneration(statement);
    case StatementKind::kWith:
      return ExecuteWith(statement);
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteIf(const Statement& statement) {
  for (const Branch& branch : statement.branches) {
    bool taken = true;
    if (branch.condition != nullptr) {
      COTERIE_ASSIGN_OR_RETURN(const Value condition, Evaluate(*branch.condition));
      taken = condition.Truth();
    }
    if (!taken) continue;
    bool prompts_assistant = false;
    if (branch.asks_generation) {
      COTERIE_ASSIGN_OR_RETURN(const Value* asked,
                               scope_->Find("add_generation_prompt", environment_.work));
      const auto global = globals_.find("add_generation_prompt");
      if (asked == nullptr && global != globals_.end()) asked = &global->second;
      prompts_assistant = asked != nullptr && asked->Truth();
    }
    Restorer<Role> role(role_, prompts_assistant ? Role::kAssistant : role_);
    return ExecuteBlock(branch.body);
  }
  return Flow::kNext;
}

absl::StatusOr<std::vector<Value>> Interpreter::LoopItems(const Statement& statement) {
  COTERIE_ASSIGN_OR_RETURN(const Value iterable, Evaluate(*statement.expression));
  COTERIE_ASSIGN_OR_RETURN(std::vector<Value> items, Elements(iterable, environment_.work));
  if (statement.condition == nullptr) return items;
  std::vector<Value> kept;
  for (Value& item : items) {
    auto scope = std::make_shared<Scope>();
    scope->parent = scope_;
    Restorer<std::shared_ptr<Scope>> frame(scope_, scope);
    COTERIE_RETURN_IF_ERROR(Assign(statement.target, item));
    COTERIE_ASSIGN_OR_RETURN(const Value condition, Evaluate(*statement.condition));
    if (condition.Truth()) kept.push_back(std::move(item));
  }
  return kept;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteFor(const Statement& statement) {
  COTERIE_ASSIGN_OR_RETURN(std::vector<Value> items, LoopItems(statement));
  COTERIE_ASSIGN_OR_RETURN(const Value list, MakeSequence(Sequence::Form::kList, std::move(items)));
  const auto shared = std::make_shared<const Sequence>(list.sequence());
  if (shared->items.empty()) {
    auto scope = std::make_shared<Scope>();
    scope->parent = scope_;
    Restorer<std::shared_ptr<Scope>> frame(scope_, scope);
    return ExecuteBlock(statement.otherwise);
  }
  for (size_t i = 0; i < shared->items.size(); ++i) {
    const Value& item = shared->items[i];
    COTERIE_RETURN_IF_ERROR(environment_.work.Charge(4));
    auto scope = std::make_shared<Scope>();
    scope->parent = scope_;
    Restorer<std::shared_ptr<Scope>> frame(scope_, scope);
    auto loop = std::make_shared<Loop>();
    loop->items = shared;
    loop->index = static_cast<int64_t>(i);
    COTERIE_RETURN_IF_ERROR(
        SetVariable("loop", Value(std::shared_ptr<const Loop>(std::move(loop)))));
    COTERIE_RETURN_IF_ERROR(Assign(statement.target, item));
    const bool is_message = item.is(Kind::kMapping) && item.mapping().is_message();
    Restorer<Role> role(role_, is_message ? item.mapping().role() : role_);
    COTERIE_ASSIGN_OR_RETURN(const Flow flow, ExecuteBlock(statement.body));
    if (flow == Flow::kBreak) break;
  }
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteWith(const Statement& statement) {
  auto scope = std::make_shared<Scope>();
  scope->parent = scope_;
  std::vector<Value> values;
  for (const auto& assignment : statement.assignments) {
    COTERIE_ASSIGN_OR_RETURN(Value value, Evaluate(*assignment.second));
    values.push_back(std::move(value));
  }
  Restorer<std::shared_ptr<Scope>> frame(scope_, scope);
  for (size_t i = 0; i < values.size(); ++i) {
    COTERIE_RETURN_IF_ERROR(Assign(statement.assignments[i].first, values[i]));
  }
  return ExecuteBlock(statement.body);
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteGeneration(const Statement& statement) {
  auto scope = std::make_shared<Scope>();
  scope->parent = scope_;
  Restorer<std::shared_ptr<Scope>> frame(scope_, scope);
  Restorer<Role> role(role_, Role::kAssistant);
  return ExecuteBlock(statement.body);
}

absl::Status Interpreter::ExecuteSetBlock(const Statement& statement) {
  Text text;
  {
    auto scope = std::make_shared<Scope>();
    scope->parent = scope_;
    Restorer<std::shared_ptr<Scope>> frame(scope_, scope);
    COTERIE_ASSIGN_OR_RETURN(text, Capture(statement.body));
  }
  Value value(std::move(text));
  if (statement.filter != nullptr) {
    COTERIE_ASSIGN_OR_RETURN(value, ApplyChain(*statement.filter, std::move(value)));
  }
  return Assign(statement.target, std::move(value));
}

absl::Status Interpreter::ExecuteCallBlock(const Statement& statement) {
  const Value caller = MakeMacro(statement);
  COTERIE_ASSIGN_OR_RETURN(const Value value, EvaluateCall(*statement.expression, &caller));
  COTERIE_ASSIGN_OR_RETURN(const Text text, ToText(value, environment_.work));
  return Write(text);
}

absl::Status Interpreter::ExecuteFilterBlock(const Statement& statement) {
  auto scope = std::make_shared<Scope>();
  scope->parent = scope_;
  Restorer<std::shared_ptr<Scope>> frame(scope_, scope);
  COTERIE_ASSIGN_OR_RETURN(Text body, Capture(statement.body));
  COTERIE_ASSIGN_OR_RETURN(const Value value,
                           ApplyChain(*statement.filter, Value(std::move(body))));
  COTERIE_ASSIGN_OR_RETURN(const Text text, ToText(value, environment_.work));
  return Write(text);
}

absl::Status Interpreter::Assign(const Target& target, Value value) {
  if (!target.elements.empty()) {
    COTERIE_ASSIGN_OR_RETURN(const std::vector<Value> parts, Elements(value, environment_.work));
    if (parts.size() != target.elements.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("cannot unpack ", parts.size(), " values into ", target.elements.size()));
    }
    for (size_t i = 0; i < parts.size(); ++i) {
      COTERIE_RETURN_IF_ERROR(Assign(target.elements[i], parts[i]));
    }
    return absl::OkStatus();
  }
  if (target.attribute.empty()) {
    return SetVariable(target.name, std::move(value));
  }
  COTERIE_ASSIGN_OR_RETURN(const Value* space, scope_->Find(target.name, environment_.work));
  if (space == nullptr || !space->is(Kind::kNamespace)) {
    return absl::InvalidArgumentError("cannot assign attribute on non-namespace object");
  }
  return space->space()->Set(target.attribute, std::move(value));
}

Value Interpreter::MakeMacro(const Statement& statement) {
  auto callable = std::make_shared<Callable>();
  callable->form = Callable::Form::kMacro;
  callable->name = statement.name;
  callable->macro = &statement;
  callable->scope = scope_.get();
  if (pinned_scopes_.empty() || pinned_scopes_.back() != scope_) pinned_scopes_.push_back(scope_);
  return Value(std::shared_ptr<const Callable>(std::move(callable)));
}

absl::StatusOr<Value> Interpreter::ArgumentFor(const Statement& macro, size_t i,
                                               const CallArguments& arguments) {
  const Parameter& parameter = macro.parameters[i];
  const Value* named = arguments.FindNamed(parameter.name);
  if (i < arguments.positional.size()) {
    if (named == nullptr) return arguments.positional[i];
    return absl::InvalidArgumentError(
        absl::StrCat("macro '", macro.name, "' got two values for '", parameter.name, "'"));
  }
  if (named != nullptr) return *named;
  if (parameter.fallback != nullptr) return Evaluate(*parameter.fallback);
  return Value::MakeUndefined(absl::StrCat("parameter '", parameter.name, "' was not provided"));
}

absl::Status Interpreter::BindParameters(const Statement& macro, const CallArguments& arguments) {
  const size_t n_parameters = macro.parameters.size();
  const size_t n_names = n_parameters + arguments.named.size();
  COTERIE_RETURN_IF_ERROR(
      environment_.work.Charge(static_cast<int64_t>(n_names * n_names / kNamesPerUnit)));
  for (size_t i = 0; i < n_parameters; ++i) {
    COTERIE_ASSIGN_OR_RETURN(Value value, ArgumentFor(macro, i, arguments));
    COTERIE_RETURN_IF_ERROR(SetVariable(macro.parameters[i].name, std::move(value)));
  }
  std::vector<Value> rest;
  for (size_t i = n_parameters; i < arguments.positional.size(); ++i) {
    rest.push_back(arguments.positional[i]);
  }
  auto rest_named = std::make_shared<Mapping>();
  for (const auto& [name, value] : arguments.named) {
    bool known = false;
    for (const Parameter& parameter : macro.parameters) known |= parameter.name == name;
    if (!known) COTERIE_RETURN_IF_ERROR(rest_named->Set(TextValue(name), value));
  }
  if ((!rest.empty() && !macro.uses_varargs) ||
      (!rest_named->entries().empty() && !macro.uses_kwargs)) {
    return absl::InvalidArgumentError(
        absl::StrCat("macro '", macro.name, "' got an argument it does not take"));
  }
  COTERIE_ASSIGN_OR_RETURN(Value varargs, MakeSequence(Sequence::Form::kTuple, std::move(rest)));
  if (macro.uses_varargs) {
    COTERIE_RETURN_IF_ERROR(SetVariable("varargs", std::move(varargs)));
  }
  if (!macro.uses_kwargs) return absl::OkStatus();
  return SetVariable("kwargs", Value(std::shared_ptr<const Mapping>(std::move(rest_named))));
}

absl::StatusOr<Value> Interpreter::CallMacro(const Callable& callable,
                                             const CallArguments& arguments, const Value* caller) {
  auto scope = std::make_shared<Scope>();
  for (const auto& pinned : pinned_scopes_) {
    if (pinned.get() == callable.scope) scope->parent = pinned;
  }
  COTERIE_RETURN_IF_ERROR(environment_.work.Charge(static_cast<int64_t>(pinned_scopes_.size())));
  Restorer<std::shared_ptr<Scope>> frame(scope_, scope);
  COTERIE_RETURN_IF_ERROR(SetVariable(
      "caller", caller != nullptr ? *caller : Value::MakeUndefined("No caller defined")));
  COTERIE_RETURN_IF_ERROR(BindParameters(*callable.macro, arguments));
  COTERIE_ASSIGN_OR_RETURN(Text text, Capture(callable.macro->body));
  return Value(std::move(text));
}

absl::StatusOr<Value> Interpreter::CallValue(const Value& callee, const CallArguments& arguments,
                                             const Value* caller) {
  if (callee.is_undefined()) return absl::InvalidArgumentError(callee.complaint());
  if (!callee.is(Kind::kCallable)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", callee.TypeName(), "' object is not callable"));
  }
  const Callable& callable = callee.callable();
  switch (callable.form) {
    case Callable::Form::kMacro:
      return CallMacro(callable, arguments, caller);
    case Callable::Form::kGlobal:
      return CallGlobal(callable.name, arguments, environment_);
    case Callable::Form::kMethod:
    case Callable::Form::kLoopMethod:
      break;
  }
  return CallMethod(callable.self, callable.name, arguments, environment_);
}

}  // namespace coterie::jinja
