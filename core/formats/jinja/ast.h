#pragma once

// Syntax trees of templates. Const after parsing; a tree is never higher than kMaxExpressionHeight
// plus kMaxSyntaxDepth, so walking it by recursion is safe.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/formats/jinja/value.h"

namespace coterie::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

enum class ExpressionKind : uint8_t {
  kLiteral,     // literal
  kName,        // name
  kList,        // operands
  kTuple,       // operands
  kMapping,     // operands: key, value, key, value ...
  kAttribute,   // operands[0].name
  kItem,        // operands[0][operands[1]]
  kSlice,       // operands[0][operands[1]:operands[2]:operands[3]], null where left out
  kCall,        // operands[0](arguments)
  kFilter,      // operands[0] | name(arguments); operands[0] is null in filter blocks
  kTest,        // operands[0] is name(arguments)
  kNot,         // not operands[0]
  kNegate,      // -operands[0]
  kPlus,        // +operands[0]
  kArithmetic,  // operands[0] name operands[1]; name is the operator
  kConcat,      // operands joined by ~
  kAnd,         // operands[0] and operands[1]
  kOr,          // operands[0] or operands[1]
  kCompare,     // operands[0] comparisons[0] operands[1] comparisons[1] operands[2] ...
  kInlineIf,    // operands[0] if operands[1] else operands[2], which may be null
};

enum class Comparison : uint8_t {
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn
};

// An argument of a call, filter or test.
struct Argument {
  enum class Form : uint8_t { kPositional, kNamed, kSpread, kSpreadNamed };

  Form form = Form::kPositional;
  std::string name;
  ExpressionPtr value;
};

struct Expression {
  ExpressionKind kind = ExpressionKind::kLiteral;
  int line = 1;
  int height = 1;
  std::string name;
  Value literal;
  std::vector<ExpressionPtr> operands;
  std::vector<Argument> arguments;
  std::vector<Comparison> comparisons;
};

enum class StatementKind : uint8_t {
  kText,         // text
  kPrint,        // expression
  kIf,           // branches
  kFor,          // for target in expression if condition: body, otherwise
  kSet,          // target = expression
  kSetBlock,     // target = body, through filter if there is one
  kMacro,        // name(parameters): body
  kCallBlock,    // expression is the call, which may call caller(parameters): body
  kFilterBlock,  // body through filter
  kGeneration,   // body, marked as the assistant's
  kWith,         // targets = expressions: body
  kBreak,
  kContinue,
};

// What an assignment writes to: a name, an attribute of a namespace, or a tuple of targets.
struct Target {
  std::string name;
  std::string attribute;         // Of the namespace `name`, if not empty.
  std::vector<Target> elements;  // Not empty for tuples.
};

struct Parameter {
  std::string name;
  ExpressionPtr fallback;  // Null if there is none.
};

struct Statement;
using Block = std::vector<std::unique_ptr<Statement>>;

// `condition` is null for else. `asks_generation` is set where the condition names
// add_generation_prompt.
struct Branch {
  ExpressionPtr condition;
  bool asks_generation = false;
  Block body;
};

struct Statement {
  StatementKind kind = StatementKind::kText;
  int line = 1;
  Text text;
  ExpressionPtr expression;
  ExpressionPtr condition;
  ExpressionPtr filter;
  Target target;
  std::string name;
  std::vector<Parameter> parameters;
  bool uses_varargs = false;  // The macro's body names the variable.
  bool uses_kwargs = false;
  std::vector<Branch> branches;
  std::vector<std::pair<Target, ExpressionPtr>> assignments;
  Block body;
  Block otherwise;
};

}  // namespace coterie::jinja
