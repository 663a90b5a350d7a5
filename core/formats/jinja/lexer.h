#pragma once

// Splits template source into tokens, with Jinja's whitespace rules under trim_blocks and
// lstrip_blocks (jinja.palletsprojects.com, "Whitespace Control"; behaviour of release 3.1.6).

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace coterie::jinja {

enum class TokenKind : uint8_t {
  kData,           // Text between tags, whitespace control applied. In `text`.
  kBlockBegin,     // {%
  kBlockEnd,       // %}
  kVariableBegin,  // {{
  kVariableEnd,    // }}
  kName,           // In `text`.
  kString,         // Unescaped, in `text`.
  kInteger,        // In `integer`.
  kReal,           // In `real`.
  kOperator,       // In `text`: "+", "==", "(" ...
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  int line = 1;
  std::string text;
  int64_t integer = 0;
  double real = 0;

  bool IsName(absl::string_view name) const { return kind == TokenKind::kName && text == name; }
  bool IsOperator(absl::string_view op) const { return kind == TokenKind::kOperator && text == op; }
};

// Tokens of the whole source; the last is kEnd. kDataLoss with the line for what is no token
// (unclosed comments, strings, brackets; characters outside the language), kUnimplemented for
// integers beyond 64 bits.
absl::StatusOr<std::vector<Token>> Tokenize(absl::string_view source);

// "line 3: what is wrong".
absl::Status SyntaxError(int line, absl::string_view message);

}  // namespace coterie::jinja
