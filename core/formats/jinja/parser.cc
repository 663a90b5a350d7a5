#include "core/formats/jinja/parser.h"

#include <initializer_list>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "core/formats/jinja/expression_parser.h"
#include "core/formats/jinja/lexer.h"
#include "core/formats/jinja/work.h"

namespace coterie::jinja {
namespace {

using StatementPtr = std::unique_ptr<Statement>;
using EndNames = std::initializer_list<absl::string_view>;

// Tags of Jinja that chat templates do without.
constexpr absl::string_view kUnsupportedTags[] = {"include", "import", "from",      "extends",
                                                  "block",   "print",  "autoescape"};

class StatementParser {
 public:
  explicit StatementParser(std::vector<Token> tokens)
      : stream_(std::move(tokens)), expressions_(stream_) {}

  absl::StatusOr<Block> ParseAll();

 private:
  // Statements up to a tag named in `ends`, which stays in the stream right after its "{%".
  absl::StatusOr<Block> ParseBlock(EndNames ends);
  // The same, and consumes the end tag's name, which is one of `ends`.
  absl::StatusOr<Block> ParseBody(EndNames ends);
  absl::StatusOr<StatementPtr> ParsePrint();
  absl::StatusOr<StatementPtr> ParseTag();
  absl::StatusOr<StatementPtr> ParseIf();
  absl::StatusOr<StatementPtr> ParseFor();
  absl::StatusOr<StatementPtr> ParseSet();
  absl::StatusOr<StatementPtr> ParseMacro();
  absl::StatusOr<StatementPtr> ParseCallBlock();
  absl::StatusOr<StatementPtr> ParseFilterBlock();
  absl::StatusOr<StatementPtr> ParseGeneration();
  absl::StatusOr<StatementPtr> ParseWith();
  absl::StatusOr<StatementPtr> ParseLoopControl(StatementKind kind);
  absl::Status ParseParameters(Statement* statement);
  absl::StatusOr<Branch> ParseCondition();
  absl::StatusOr<Target> ParseTarget(bool with_namespace);
  absl::StatusOr<Target> ParseSingleTarget(bool with_namespace);
  absl::Status EndTag();
  StatementPtr Make(StatementKind kind) const;

  TokenStream stream_;
  ExpressionParser expressions_;
  int depth_ = 0;
  int loop_depth_ = 0;
  int open_line_ = 1;  // Of the innermost tag that waits for its end.
  std::string open_tag_;
};

StatementPtr StatementParser::Make(StatementKind kind) const {
  auto statement = std::make_unique<Statement>();
  statement->kind = kind;
  statement->line = stream_.current().line;
  return statement;
}

absl::Status StatementParser::EndTag() {
  if (stream_.current().kind != TokenKind::kBlockEnd) return stream_.Unexpected("'%}'");
  stream_.Advance();
  return absl::OkStatus();
}

absl::StatusOr<Block> StatementParser::ParseAll() {
  COTERIE_ASSIGN_OR_RETURN(Block block, ParseBlock({}));
  if (stream_.current().kind != TokenKind::kEnd) return stream_.Unexpected("the template's end");
  return block;
}

absl::StatusOr<Block> StatementParser::ParseBlock(EndNames ends) {
  Block block;
  while (stream_.current().kind != TokenKind::kEnd) {
    const Token& token = stream_.current();
    if (token.kind == TokenKind::kData) {
      StatementPtr statement = Make(StatementKind::kText);
      statement->text = Text(token.text);
      stream_.Advance();
      block.push_back(std::move(statement));
    } else if (token.kind == TokenKind::kVariableBegin) {
      COTERIE_ASSIGN_OR_RETURN(StatementPtr statement, ParsePrint());
      block.push_back(std::move(statement));
    } else {
      stream_.Advance();  // The tag's "{%".
      for (absl::string_view end : ends) {
        if (stream_.current().IsName(end)) return block;
      }
      COTERIE_ASSIGN_OR_RETURN(StatementPtr statement, ParseTag());
      block.push_back(std::move(statement));
    }
  }
  if (ends.size() == 0) return block;
  return SyntaxError(open_line_, absl::StrCat("the tag '", open_tag_, "' is never closed"));
}

absl::StatusOr<Block> StatementParser::ParseBody(EndNames ends) {
  COTERIE_RETURN_IF_ERROR(EndTag());
  if (++depth_ > kMaxSyntaxDepth) {
    return absl::ResourceExhaustedError(absl::StrCat("line ", stream_.current().line,
                                                     ": tags are nested deeper than ",
                                                     kMaxSyntaxDepth, " levels"));
  }
  COTERIE_ASSIGN_OR_RETURN(Block block, ParseBlock(ends));
  --depth_;
  return block;
}

absl::StatusOr<StatementPtr> StatementParser::ParsePrint() {
  stream_.Advance();
  StatementPtr statement = Make(StatementKind::kPrint);
  COTERIE_ASSIGN_OR_RETURN(statement->expression, expressions_.ParseTuple());
  if (stream_.current().kind != TokenKind::kVariableEnd) return stream_.Unexpected("'}}'");
  stream_.Advance();
  return statement;
}

absl::StatusOr<StatementPtr> StatementParser::ParseTag() {
  if (stream_.current().kind != TokenKind::kName) return stream_.Unexpected("a tag name");
  const std::string name = stream_.current().text;
  const int line = stream_.current().line;
  const std::string outer_tag = std::exchange(open_tag_, name);
  const int outer_line = std::exchange(open_line_, line);
  for (absl::string_view unsupported : kUnsupportedTags) {
    if (name == unsupported) {
      return absl::UnimplementedError(absl::StrCat("line ", line, ": tag '", name, "'"));
    }
  }
  absl::StatusOr<StatementPtr> statement =
      SyntaxError(line, absl::StrCat("unknown tag '", name, "'"));
  if (name == "if") statement = ParseIf();
  if (name == "for") statement = ParseFor();
  if (name == "set") statement = ParseSet();
  if (name == "macro") statement = ParseMacro();
  if (name == "call") statement = ParseCallBlock();
  if (name == "filter") statement = ParseFilterBlock();
  if (name == "generation") statement = ParseGeneration();
  if (name == "with") statement = ParseWith();
  if (name == "break") statement = ParseLoopControl(StatementKind::kBreak);
  if (name == "continue") statement = ParseLoopControl(StatementKind::kContinue);
  if (!statement.ok()) return statement;
  COTERIE_RETURN_IF_ERROR(EndTag());
  open_tag_ = outer_tag;
  open_line_ = outer_line;
  return statement;
}

absl::StatusOr<Branch> StatementParser::ParseCondition() {
  Branch branch;
  const int reads = expressions_.name_reads().add_generation_prompt;
  COTERIE_ASSIGN_OR_RETURN(branch.condition, expressions_.ParseTuple(/*with_inline_if=*/false));
  branch.asks_generation = expressions_.name_reads().add_generation_prompt > reads;
  return branch;
}

absl::StatusOr<StatementPtr> StatementParser::ParseIf() {
  StatementPtr statement = Make(StatementKind::kIf);
  while (true) {
    stream_.Advance();  // if, elif
    COTERIE_ASSIGN_OR_RETURN(Branch branch, ParseCondition());
    COTERIE_ASSIGN_OR_RETURN(branch.body, ParseBody({"elif", "else", "endif"}));
    statement->branches.push_back(std::move(branch));
    if (!stream_.current().IsName("elif")) break;
  }
  if (stream_.SkipName("else")) {
    Branch branch;
    COTERIE_ASSIGN_OR_RETURN(branch.body, ParseBody({"endif"}));
    statement->branches.push_back(std::move(branch));
  }
  stream_.Advance();
  return statement;
}

absl::StatusOr<StatementPtr> StatementParser::ParseFor() {
  StatementPtr statement = Make(StatementKind::kFor);
  stream_.Advance();
  COTERIE_ASSIGN_OR_RETURN(statement->target, ParseTarget(/*with_namespace=*/false));
  if (!stream_.SkipName("in")) return stream_.Unexpected("'in'");
  COTERIE_ASSIGN_OR_RETURN(statement->expression,
                           expressions_.ParseTuple(/*with_inline_if=*/false));
  if (stream_.SkipName("if")) {
    COTERIE_ASSIGN_OR_RETURN(statement->condition, expressions_.Parse());
  }
  if (stream_.current().IsName("recursive")) {
    return absl::UnimplementedError(absl::StrCat("line ", statement->line, ": recursive loop"));
  }
  ++loop_depth_;
  COTERIE_ASSIGN_OR_RETURN(statement->body, ParseBody({"else", "endfor"}));
  --loop_depth_;
  if (stream_.SkipName("else")) {
    COTERIE_ASSIGN_OR_RETURN(statement->otherwise, ParseBody({"endfor"}));
  }
  stream_.Advance();
  return statement;
}

absl::StatusOr<Target> StatementParser::ParseSingleTarget(bool with_namespace) {
  Target target;
  const int line = stream_.current().line;
  if (stream_.SkipOperator("(")) {
    COTERIE_ASSIGN_OR_RETURN(target, ParseTarget(with_namespace));
    COTERIE_RETURN_IF_ERROR(stream_.ExpectOperator(")"));
    return target;
  }
  COTERIE_ASSIGN_OR_RETURN(target.name, stream_.ExpectName());
  for (absl::string_view constant : {"true", "false", "none", "True", "False", "None"}) {
    if (target.name == constant) {
      return SyntaxError(line, absl::StrCat("cannot assign to '", constant, "'"));
    }
  }
  if (with_namespace && stream_.SkipOperator(".")) {
    COTERIE_ASSIGN_OR_RETURN(target.attribute, stream_.ExpectName());
  }
  return target;
}

absl::StatusOr<Target> StatementParser::ParseTarget(bool with_namespace) {
  if (++depth_ > kMaxSyntaxDepth) {
    return absl::ResourceExhaustedError(
        absl::StrCat("line ", stream_.current().line, ": assignment targets are nested too deep"));
  }
  COTERIE_ASSIGN_OR_RETURN(Target first, ParseSingleTarget(with_namespace));
  --depth_;
  if (!stream_.current().IsOperator(",")) return first;
  Target tuple;
  tuple.elements.push_back(std::move(first));
  while (stream_.SkipOperator(",")) {
    if (stream_.current().kind != TokenKind::kName && !stream_.current().IsOperator("(")) break;
    if (stream_.current().IsName("in")) break;
    COTERIE_ASSIGN_OR_RETURN(Target element, ParseSingleTarget(with_namespace));
    tuple.elements.push_back(std::move(element));
  }
  return tuple;
}

absl::StatusOr<StatementPtr> StatementParser::ParseSet() {
  StatementPtr statement = Make(StatementKind::kSet);
  stream_.Advance();
  COTERIE_ASSIGN_OR_RETURN(statement->target, ParseTarget(/*with_namespace=*/true));
  if (stream_.SkipOperator("=")) {
    COTERIE_ASSIGN_OR_RETURN(statement->expression, expressions_.ParseTuple());
    return statement;
  }
  statement->kind = StatementKind::kSetBlock;
  if (stream_.SkipOperator("|")) {
    COTERIE_ASSIGN_OR_RETURN(statement->filter, expressions_.ParseFilterChain());
  }
  COTERIE_ASSIGN_OR_RETURN(statement->body, ParseBody({"endset"}));
  stream_.Advance();
  return statement;
}

absl::Status StatementParser::ParseParameters(Statement* statement) {
  COTERIE_RETURN_IF_ERROR(stream_.ExpectOperator("("));
  while (!stream_.current().IsOperator(")")) {
    Parameter parameter;
    COTERIE_ASSIGN_OR_RETURN(parameter.name, stream_.ExpectName());
    if (stream_.SkipOperator("=")) {
      COTERIE_ASSIGN_OR_RETURN(parameter.fallback, expressions_.Parse());
    } else if (!statement->parameters.empty() && statement->parameters.back().fallback != nullptr) {
      return SyntaxError(stream_.current().line, "a parameter without default follows one with");
    }
    statement->parameters.push_back(std::move(parameter));
    if (!stream_.SkipOperator(",")) break;
  }
  return stream_.ExpectOperator(")");
}

absl::StatusOr<StatementPtr> StatementParser::ParseMacro() {
  StatementPtr statement = Make(StatementKind::kMacro);
  stream_.Advance();
  COTERIE_ASSIGN_OR_RETURN(statement->name, stream_.ExpectName());
  COTERIE_RETURN_IF_ERROR(ParseParameters(statement.get()));
  const ExpressionParser::NameReads before = expressions_.name_reads();
  const int loop_depth = std::exchange(loop_depth_, 0);
  COTERIE_ASSIGN_OR_RETURN(statement->body, ParseBody({"endmacro"}));
  loop_depth_ = loop_depth;
  statement->uses_varargs = expressions_.name_reads().varargs > before.varargs;
  statement->uses_kwargs = expressions_.name_reads().kwargs > before.kwargs;
  stream_.Advance();
  return statement;
}

absl::StatusOr<StatementPtr> StatementParser::ParseCallBlock() {
  StatementPtr statement = Make(StatementKind::kCallBlock);
  statement->name = "caller";
  stream_.Advance();
  if (stream_.current().IsOperator("(")) {
    COTERIE_RETURN_IF_ERROR(ParseParameters(statement.get()));
  }
  COTERIE_ASSIGN_OR_RETURN(statement->expression, expressions_.Parse());
  if (statement->expression->kind != ExpressionKind::kCall) {
    return SyntaxError(statement->line, "the tag 'call' needs a call");
  }
  const int loop_depth = std::exchange(loop_depth_, 0);
  COTERIE_ASSIGN_OR_RETURN(statement->body, ParseBody({"endcall"}));
  loop_depth_ = loop_depth;
  stream_.Advance();
  return statement;
}

absl::StatusOr<StatementPtr> StatementParser::ParseFilterBlock() {
  StatementPtr statement = Make(StatementKind::kFilterBlock);
  stream_.Advance();
  COTERIE_ASSIGN_OR_RETURN(statement->filter, expressions_.ParseFilterChain());
  COTERIE_ASSIGN_OR_RETURN(statement->body, ParseBody({"endfilter"}));
  stream_.Advance();
  return statement;
}

absl::StatusOr<StatementPtr> StatementParser::ParseGeneration() {
  StatementPtr statement = Make(StatementKind::kGeneration);
  stream_.Advance();
  const int loop_depth = std::exchange(loop_depth_, 0);
  COTERIE_ASSIGN_OR_RETURN(statement->body, ParseBody({"endgeneration"}));
  loop_depth_ = loop_depth;
  stream_.Advance();
  return statement;
}

absl::StatusOr<StatementPtr> StatementParser::ParseWith() {
  StatementPtr statement = Make(StatementKind::kWith);
  stream_.Advance();
  while (stream_.current().kind != TokenKind::kBlockEnd) {
    if (!statement->assignments.empty()) COTERIE_RETURN_IF_ERROR(stream_.ExpectOperator(","));
    COTERIE_ASSIGN_OR_RETURN(Target target, ParseSingleTarget(/*with_namespace=*/false));
    COTERIE_RETURN_IF_ERROR(stream_.ExpectOperator("="));
    COTERIE_ASSIGN_OR_RETURN(ExpressionPtr value, expressions_.Parse());
    statement->assignments.emplace_back(std::move(target), std::move(value));
  }
  COTERIE_ASSIGN_OR_RETURN(statement->body, ParseBody({"endwith"}));
  stream_.Advance();
  return statement;
}

absl::StatusOr<StatementPtr> StatementParser::ParseLoopControl(StatementKind kind) {
  StatementPtr statement = Make(kind);
  if (loop_depth_ == 0) {
    return SyntaxError(statement->line,
                       absl::StrCat("'", stream_.current().text, "' outside a loop"));
  }
  stream_.Advance();
  return statement;
}

}  // namespace

absl::StatusOr<Block> ParseTemplate(absl::string_view source) {
  COTERIE_ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return StatementParser(std::move(tokens)).ParseAll();
}

}  // namespace coterie::jinja
