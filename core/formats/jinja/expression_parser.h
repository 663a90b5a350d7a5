#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "core/formats/jinja/ast.h"
#include "core/formats/jinja/lexer.h"

namespace coterie::jinja {

// A position in a list of tokens that ends with kEnd. Thread-compatible.
class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[at_]; }
  const Token& next() const { return tokens_[at_ + 1 < tokens_.size() ? at_ + 1 : at_]; }
  void Advance() { at_ += at_ + 1 < tokens_.size() ? 1 : 0; }
  bool SkipName(absl::string_view name);
  bool SkipOperator(absl::string_view op);
  // kDataLoss naming what was found instead.
  absl::Status ExpectOperator(absl::string_view op);
  absl::StatusOr<std::string> ExpectName();
  absl::Status Unexpected(absl::string_view wanted) const;

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
};

// Parses expressions at the stream's position. Errors as ParseTemplate. Thread-compatible.
class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& stream) : stream_(stream) {}

  // An expression; with_inline_if false leaves an `if` after it alone.
  absl::StatusOr<ExpressionPtr> Parse(bool with_inline_if = true);
  // One expression or a tuple without parentheses.
  absl::StatusOr<ExpressionPtr> ParseTuple(bool with_inline_if = true, bool parenthesized = false);
  // Filters of a {% filter %} or {% set %} block: name(arguments) | name ...; the innermost has no
  // operand.
  absl::StatusOr<ExpressionPtr> ParseFilterChain();

  // How often expressions have read the names on which statements depend.
  struct NameReads {
    int add_generation_prompt = 0;
    int varargs = 0;
    int kwargs = 0;
  };
  const NameReads& name_reads() const { return name_reads_; }

 private:
  friend class NestingGuard;

  absl::StatusOr<ExpressionPtr> ParseBinary(int level);
  absl::StatusOr<ExpressionPtr> ParseNot();
  absl::StatusOr<ExpressionPtr> ParseComparison();
  absl::StatusOr<ExpressionPtr> ParseConcat();
  absl::StatusOr<ExpressionPtr> ParseUnary(bool with_filters);
  absl::StatusOr<ExpressionPtr> ParsePrimary();
  absl::StatusOr<ExpressionPtr> ParseName();
  absl::StatusOr<ExpressionPtr> ParseList();
  absl::StatusOr<ExpressionPtr> ParseMapping();
  absl::StatusOr<ExpressionPtr> ParsePostfix(ExpressionPtr operand);
  absl::StatusOr<ExpressionPtr> ParseFilters(ExpressionPtr operand);
  absl::StatusOr<ExpressionPtr> ParseFilter(ExpressionPtr operand);
  absl::StatusOr<ExpressionPtr> ParseTest(ExpressionPtr operand);
  absl::StatusOr<ExpressionPtr> ParseAttribute(ExpressionPtr operand);
  absl::StatusOr<ExpressionPtr> ParseSubscript(ExpressionPtr operand);
  absl::StatusOr<ExpressionPtr> ParseCall(ExpressionPtr operand);
  absl::Status ParseArguments(std::vector<Argument>* arguments);
  bool AtTestArgument() const;

  // Sets the height; kResourceExhausted if it exceeds the limit.
  absl::StatusOr<ExpressionPtr> Finish(ExpressionPtr node) const;
  ExpressionPtr Make(ExpressionKind kind) const;
  ExpressionPtr MakeUnder(ExpressionKind kind, ExpressionPtr operand) const;

  TokenStream& stream_;
  int depth_ = 0;
  NameReads name_reads_;
};

}  // namespace coterie::jinja
