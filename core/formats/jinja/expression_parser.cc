#include "core/formats/jinja/expression_parser.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/quote.h"
#include "core/base/status_macros.h"
#include "core/formats/jinja/builtins.h"
#include "core/formats/jinja/work.h"

namespace coterie::jinja {

// Counts one level of syntax nesting while it lives.
class NestingGuard {
 public:
  explicit NestingGuard(ExpressionParser& parser) : parser_(parser) { ++parser_.depth_; }
  ~NestingGuard() { --parser_.depth_; }
  NestingGuard(const NestingGuard&) = delete;
  NestingGuard& operator=(const NestingGuard&) = delete;

  absl::Status Check() const {
    if (parser_.depth_ <= kMaxSyntaxDepth) return absl::OkStatus();
    return absl::ResourceExhaustedError(absl::StrCat("line ", parser_.stream_.current().line,
                                                     ": expressions are nested deeper than ",
                                                     kMaxSyntaxDepth, " levels"));
  }

 private:
  ExpressionParser& parser_;
};

bool TokenStream::SkipName(absl::string_view name) {
  if (!current().IsName(name)) return false;
  Advance();
  return true;
}

bool TokenStream::SkipOperator(absl::string_view op) {
  if (!current().IsOperator(op)) return false;
  Advance();
  return true;
}

absl::Status TokenStream::ExpectOperator(absl::string_view op) {
  if (SkipOperator(op)) return absl::OkStatus();
  return Unexpected(absl::StrCat("'", op, "'"));
}

absl::StatusOr<std::string> TokenStream::ExpectName() {
  if (current().kind != TokenKind::kName) return Unexpected("a name");
  std::string name = current().text;
  Advance();
  return name;
}

absl::Status TokenStream::Unexpected(absl::string_view wanted) const {
  std::string found;
  switch (current().kind) {
    case TokenKind::kEnd:
      found = "the end of the template";
      break;
    case TokenKind::kBlockEnd:
    case TokenKind::kVariableEnd:
      found = "the end of the tag";
      break;
    case TokenKind::kString:
      found = "a string";
      break;
    case TokenKind::kInteger:
    case TokenKind::kReal:
      found = "a number";
      break;
    default:
      found = Quote(current().text);
  }
  return SyntaxError(current().line, absl::StrCat("expected ", wanted, ", found ", found));
}

ExpressionPtr ExpressionParser::Make(ExpressionKind kind) const {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = stream_.current().line;
  return node;
}

ExpressionPtr ExpressionParser::MakeUnder(ExpressionKind kind, ExpressionPtr operand) const {
  ExpressionPtr node = Make(kind);
  node->operands.push_back(std::move(operand));
  return node;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::Finish(ExpressionPtr node) const {
  for (const ExpressionPtr& operand : node->operands) {
    if (operand != nullptr) node->height = std::max(node->height, operand->height + 1);
  }
  for (const Argument& argument : node->arguments) {
    node->height = std::max(node->height, argument.value->height + 1);
  }
  if (node->height > kMaxExpressionHeight) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "line ", node->line, ": the expression has more than ", kMaxExpressionHeight, " levels"));
  }
  return node;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::Parse(bool with_inline_if) {
  NestingGuard guard(*this);
  COTERIE_RETURN_IF_ERROR(guard.Check());
  COTERIE_ASSIGN_OR_RETURN(ExpressionPtr value, ParseBinary(0));
  while (with_inline_if && stream_.current().IsName("if")) {
    ExpressionPtr node = MakeUnder(ExpressionKind::kInlineIf, std::move(value));
    stream_.Advance();
    COTERIE_ASSIGN_OR_RETURN(ExpressionPtr condition, ParseBinary(0));
    node->operands.push_back(std::move(condition));
    node->operands.emplace_back();
    if (stream_.SkipName("else")) {
      COTERIE_ASSIGN_OR_RETURN(node->operands.back(), Parse());
    }
    COTERIE_ASSIGN_OR_RETURN(value, Finish(std::move(node)));
  }
  return value;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseTuple(bool with_inline_if,
                                                           bool parenthesized) {
  ExpressionPtr tuple = Make(ExpressionKind::kTuple);
  bool has_comma = false;
  const auto at_end = [this] {
    const Token& token = stream_.current();
    return token.kind == TokenKind::kBlockEnd || token.kind == TokenKind::kVariableEnd ||
           token.IsOperator(")") || token.IsName("recursive");
  };
  while (!at_end()) {
    COTERIE_ASSIGN_OR_RETURN(ExpressionPtr element, Parse(with_inline_if));
    tuple->operands.push_back(std::move(element));
    if (!stream_.SkipOperator(",")) break;
    has_comma = true;
  }
  if (!has_comma && !tuple->operands.empty()) return std::move(tuple->operands[0]);
  if (tuple->operands.empty() && !parenthesized) return stream_.Unexpected("an expression");
  return Finish(std::move(tuple));
}

// Binary operators from the loosest to the tightest; `not`, comparisons and ~ stand between.
absl::StatusOr<ExpressionPtr> ExpressionParser::ParseBinary(int level) {
  static constexpr int kOr = 0, kAnd = 1, kNotLevel = 2, kSum = 3, kConcatLevel = 4, kProduct = 5,
                       kPower = 6, kUnary = 7;
  if (level == kNotLevel) return ParseNot();
  if (level == kConcatLevel) return ParseConcat();
  if (level == kUnary) return ParseUnary(/*with_filters=*/true);
  COTERIE_ASSIGN_OR_RETURN(ExpressionPtr left, ParseBinary(level + 1));
  while (true) {
    const Token& token = stream_.current();
    ExpressionKind kind = ExpressionKind::kArithmetic;
    if (level == kOr && token.IsName("or")) {
      kind = ExpressionKind::kOr;
    } else if (level == kAnd && token.IsName("and")) {
      kind = ExpressionKind::kAnd;
    } else if (!(level == kSum && (token.IsOperator("+") || token.IsOperator("-"))) &&
               !(level == kProduct && (token.IsOperator("*") || token.IsOperator("/") ||
                                       token.IsOperator("//") || token.IsOperator("%"))) &&
               !(level == kPower && token.IsOperator("**"))) {
      return left;
    }
    ExpressionPtr node = MakeUnder(kind, std::move(left));
    node->name = token.text;
    stream_.Advance();
    COTERIE_ASSIGN_OR_RETURN(ExpressionPtr right, ParseBinary(level + 1));
    node->operands.push_back(std::move(right));
    COTERIE_ASSIGN_OR_RETURN(left, Finish(std::move(node)));
  }
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseNot() {
  if (!stream_.current().IsName("not")) return ParseComparison();
  NestingGuard guard(*this);
  COTERIE_RETURN_IF_ERROR(guard.Check());
  ExpressionPtr node = Make(ExpressionKind::kNot);
  stream_.Advance();
  COTERIE_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseNot());
  node->operands.push_back(std::move(operand));
  return Finish(std::move(node));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseComparison() {
  static constexpr int kSum = 3;
  static constexpr std::pair<absl::string_view, Comparison> kOperators[] = {
      {"==", Comparison::kEqual},  {"!=", Comparison::kNotEqual},
      {"<", Comparison::kLess},    {"<=", Comparison::kLessEqual},
      {">", Comparison::kGreater}, {">=", Comparison::kGreaterEqual},
  };
  COTERIE_ASSIGN_OR_RETURN(ExpressionPtr first, ParseBinary(kSum));
  ExpressionPtr node = MakeUnder(ExpressionKind::kCompare, std::move(first));
  while (true) {
    const size_t n_before = node->comparisons.size();
    for (const auto& [text, comparison] : kOperators) {
      if (stream_.SkipOperator(text)) {
        node->comparisons.push_back(comparison);
        break;
      }
    }
    if (node->comparisons.size() == n_before) {
      if (stream_.SkipName("in")) {
        node->comparisons.push_back(Comparison::kIn);
      } else if (stream_.current().IsName("not") && stream_.next().IsName("in")) {
        stream_.Advance();
        stream_.Advance();
        node->comparisons.push_back(Comparison::kNotIn);
      } else {
        break;
      }
    }
    COTERIE_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseBinary(kSum));
    node->operands.push_back(std::move(operand));
  }
  if (node->comparisons.empty()) return std::move(node->operands[0]);
  return Finish(std::move(node));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseConcat() {
  static constexpr int kProduct = 5;
  COTERIE_ASSIGN_OR_RETURN(ExpressionPtr first, ParseBinary(kProduct));
  if (!stream_.current().IsOperator("~")) return first;
  ExpressionPtr node = MakeUnder(ExpressionKind::kConcat, std::move(first));
  while (stream_.SkipOperator("~")) {
    COTERIE_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseBinary(kProduct));
    node->operands.push_back(std::move(operand));
  }
  return Finish(std::move(node));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseUnary(bool with_filters) {
  NestingGuard guard(*this);
  COTERIE_RETURN_IF_ERROR(guard.Check());
  ExpressionPtr value;
  const bool minus = stream_.current().IsOperator("-");
  if (minus || stream_.current().IsOperator("+")) {
    ExpressionPtr node = Make(minus ? ExpressionKind::kNegate : ExpressionKind::kPlus);
    stream_.Advance();
    COTERIE_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseUnary(/*with_filters=*/false));
    node->operands.push_back(std::move(operand));
    COTERIE_ASSIGN_OR_RETURN(value, Finish(std::move(node)));
  } else {
    COTERIE_ASSIGN_OR_RETURN(value, ParsePrimary());
  }
  COTERIE_ASSIGN_OR_RETURN(value, ParsePostfix(std::move(value)));
  if (!with_filters) return value;
  return ParseFilters(std::move(value));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParsePrimary() {
  const Token& token = stream_.current();
  ExpressionPtr node = Make(ExpressionKind::kLiteral);
  switch (token.kind) {
    case TokenKind::kName:
      return ParseName();
    case TokenKind::kString: {
      std::string text;
      for (; stream_.current().kind == TokenKind::kString; stream_.Advance()) {
        text += stream_.current().text;
      }
      node->literal = TextValue(text);
      return node;
    }
    case TokenKind::kInteger:
      node->literal = Value(token.integer);
      stream_.Advance();
      return node;
    case TokenKind::kReal:
      node->literal = Value(token.real);
      stream_.Advance();
      return node;
    default:
      break;
  }
  if (stream_.SkipOperator("(")) {
    COTERIE_ASSIGN_OR_RETURN(node, ParseTuple(/*with_inline_if=*/true, /*parenthesized=*/true));
    COTERIE_RETURN_IF_ERROR(stream_.ExpectOperator(")"));
    return node;
  }
  if (token.IsOperator("[")) return ParseList();
  if (token.IsOperator("{")) return ParseMapping();
  return stream_.Unexpected("an expression");
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseName() {
  ExpressionPtr node = Make(ExpressionKind::kLiteral);
  const std::string& name = stream_.current().text;
  if (name == "true" || name == "True") {
    node->literal = Value(true);
  } else if (name == "false" || name == "False") {
    node->literal = Value(false);
  } else if (name == "none" || name == "None") {
    node->literal = Value(None{});
  } else {
    node->kind = ExpressionKind::kName;
    node->name = name;
    name_reads_.add_generation_prompt += name == "add_generation_prompt" ? 1 : 0;
    name_reads_.varargs += name == "varargs" ? 1 : 0;
    name_reads_.kwargs += name == "kwargs" ? 1 : 0;
  }
  stream_.Advance();
  return node;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseList() {
  ExpressionPtr node = Make(ExpressionKind::kList);
  COTERIE_RETURN_IF_ERROR(stream_.ExpectOperator("["));
  while (!stream_.current().IsOperator("]")) {
    COTERIE_ASSIGN_OR_RETURN(ExpressionPtr element, Parse());
    node->operands.push_back(std::move(element));
    if (!stream_.SkipOperator(",")) break;
  }
  COTERIE_RETURN_IF_ERROR(stream_.ExpectOperator("]"));
  return Finish(std::move(node));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseMapping() {
  ExpressionPtr node = Make(ExpressionKind::kMapping);
  COTERIE_RETURN_IF_ERROR(stream_.ExpectOperator("{"));
  while (!stream_.current().IsOperator("}")) {
    COTERIE_ASSIGN_OR_RETURN(ExpressionPtr key, Parse());
    COTERIE_RETURN_IF_ERROR(stream_.ExpectOperator(":"));
    COTERIE_ASSIGN_OR_RETURN(ExpressionPtr value, Parse());
    node->operands.push_back(std::move(key));
    node->operands.push_back(std::move(value));
    if (!stream_.SkipOperator(",")) break;
  }
  COTERIE_RETURN_IF_ERROR(stream_.ExpectOperator("}"));
  return Finish(std::move(node));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParsePostfix(ExpressionPtr operand) {
  while (true) {
    const Token& token = stream_.current();
    if (token.IsOperator(".")) {
      COTERIE_ASSIGN_OR_RETURN(operand, ParseAttribute(std::move(operand)));
    } else if (token.IsOperator("[")) {
      COTERIE_ASSIGN_OR_RETURN(operand, ParseSubscript(std::move(operand)));
    } else if (token.IsOperator("(")) {
      COTERIE_ASSIGN_OR_RETURN(operand, ParseCall(std::move(operand)));
    } else {
      return operand;
    }
  }
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseFilters(ExpressionPtr operand) {
  while (true) {
    if (stream_.SkipOperator("|")) {
      COTERIE_ASSIGN_OR_RETURN(operand, ParseFilter(std::move(operand)));
    } else if (stream_.SkipName("is")) {
      COTERIE_ASSIGN_OR_RETURN(operand, ParseTest(std::move(operand)));
    } else if (stream_.current().IsOperator("(")) {
      COTERIE_ASSIGN_OR_RETURN(operand, ParseCall(std::move(operand)));
    } else {
      return operand;
    }
  }
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseFilter(ExpressionPtr operand) {
  ExpressionPtr node = MakeUnder(ExpressionKind::kFilter, std::move(operand));
  COTERIE_ASSIGN_OR_RETURN(node->name, stream_.ExpectName());
  while (stream_.SkipOperator(".")) {
    COTERIE_ASSIGN_OR_RETURN(const std::string part, stream_.ExpectName());
    absl::StrAppend(&node->name, ".", part);
  }
  if (IsUnsupportedFilter(node->name)) {
    return absl::UnimplementedError(
        absl::StrCat("line ", node->line, ": filter '", node->name, "'"));
  }
  if (stream_.current().IsOperator("(")) {
    COTERIE_RETURN_IF_ERROR(ParseArguments(&node->arguments));
  }
  return Finish(std::move(node));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseFilterChain() {
  COTERIE_ASSIGN_OR_RETURN(ExpressionPtr chain, ParseFilter(nullptr));
  return ParseFilters(std::move(chain));
}

// Whether what follows a test's name without parentheses is its argument.
bool ExpressionParser::AtTestArgument() const {
  const Token& token = stream_.current();
  switch (token.kind) {
    case TokenKind::kName:
      return token.text != "else" && token.text != "or" && token.text != "and";
    case TokenKind::kString:
    case TokenKind::kInteger:
    case TokenKind::kReal:
      return true;
    default:
      return token.IsOperator("[") || token.IsOperator("{");
  }
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseTest(ExpressionPtr operand) {
  NestingGuard guard(*this);
  COTERIE_RETURN_IF_ERROR(guard.Check());
  const bool negated = stream_.SkipName("not");
  ExpressionPtr node = MakeUnder(ExpressionKind::kTest, std::move(operand));
  COTERIE_ASSIGN_OR_RETURN(node->name, stream_.ExpectName());
  if (IsUnsupportedTest(node->name)) {
    return absl::UnimplementedError(absl::StrCat("line ", node->line, ": test '", node->name, "'"));
  }
  if (stream_.current().IsOperator("(")) {
    COTERIE_RETURN_IF_ERROR(ParseArguments(&node->arguments));
  } else if (AtTestArgument()) {
    if (stream_.current().IsName("is")) {
      return SyntaxError(node->line, "tests cannot be chained with is");
    }
    COTERIE_ASSIGN_OR_RETURN(ExpressionPtr argument, ParsePrimary());
    COTERIE_ASSIGN_OR_RETURN(argument, ParsePostfix(std::move(argument)));
    node->arguments.push_back({Argument::Form::kPositional, "", std::move(argument)});
  }
  COTERIE_ASSIGN_OR_RETURN(node, Finish(std::move(node)));
  if (!negated) return node;
  return Finish(MakeUnder(ExpressionKind::kNot, std::move(node)));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseAttribute(ExpressionPtr operand) {
  ExpressionPtr node = MakeUnder(ExpressionKind::kAttribute, std::move(operand));
  COTERIE_RETURN_IF_ERROR(stream_.ExpectOperator("."));
  if (stream_.current().kind == TokenKind::kInteger) {
    ExpressionPtr index = Make(ExpressionKind::kLiteral);
    index->literal = Value(stream_.current().integer);
    stream_.Advance();
    node->kind = ExpressionKind::kItem;
    node->operands.push_back(std::move(index));
  } else {
    COTERIE_ASSIGN_OR_RETURN(node->name, stream_.ExpectName());
  }
  return Finish(std::move(node));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseSubscript(ExpressionPtr operand) {
  ExpressionPtr node = MakeUnder(ExpressionKind::kItem, std::move(operand));
  COTERIE_RETURN_IF_ERROR(stream_.ExpectOperator("["));
  node->operands.resize(4);
  const auto at_boundary = [this] {
    return stream_.current().IsOperator(":") || stream_.current().IsOperator("]");
  };
  int n_colons = 0;
  for (size_t part = 1; part <= 3; ++part) {
    if (!at_boundary()) {
      COTERIE_ASSIGN_OR_RETURN(node->operands[part], Parse());
    }
    if (part == 3 || !stream_.SkipOperator(":")) break;
    ++n_colons;
  }
  if (stream_.current().IsOperator(",")) {
    return absl::UnimplementedError(absl::StrCat("line ", node->line, ": tuple as subscript"));
  }
  COTERIE_RETURN_IF_ERROR(stream_.ExpectOperator("]"));
  if (n_colons > 0) {
    node->kind = ExpressionKind::kSlice;
  } else {
    if (node->operands[1] == nullptr) return SyntaxError(node->line, "expected a subscript");
    node->operands.resize(2);
  }
  return Finish(std::move(node));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseCall(ExpressionPtr operand) {
  ExpressionPtr node = MakeUnder(ExpressionKind::kCall, std::move(operand));
  COTERIE_RETURN_IF_ERROR(ParseArguments(&node->arguments));
  return Finish(std::move(node));
}

absl::Status ExpressionParser::ParseArguments(std::vector<Argument>* arguments) {
  using Form = Argument::Form;
  COTERIE_RETURN_IF_ERROR(stream_.ExpectOperator("("));
  bool has_named = false;
  while (!stream_.current().IsOperator(")")) {
    Argument argument;
    if (stream_.SkipOperator("*")) {
      argument.form = Form::kSpread;
    } else if (stream_.SkipOperator("**")) {
      argument.form = Form::kSpreadNamed;
    } else if (stream_.current().kind == TokenKind::kName && stream_.next().IsOperator("=")) {
      argument.form = Form::kNamed;
      argument.name = stream_.current().text;
      stream_.Advance();
      stream_.Advance();
    } else if (has_named) {
      return SyntaxError(stream_.current().line, "a positional argument follows a named one");
    }
    has_named |= argument.form != Form::kPositional;
    COTERIE_ASSIGN_OR_RETURN(argument.value, Parse());
    arguments->push_back(std::move(argument));
    if (!stream_.SkipOperator(",")) break;
  }
  return stream_.ExpectOperator(")");
}

}  // namespace coterie::jinja
