#include "core/formats/jinja/lexer.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "core/formats/jinja/characters.h"

namespace coterie::jinja {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsOctal(char c) { return c >= '0' && c <= '7'; }
bool IsHex(char c) { return IsDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }
bool IsBinary(char c) { return c == '0' || c == '1'; }
bool IsNameStart(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<uint8_t>(c) >= 0x80;
}

std::string NormalizeNewlines(absl::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  return out;
}

class Lexer {
 public:
  explicit Lexer(absl::string_view source) : normalized_(NormalizeNewlines(source)) {
    if (!normalized_.empty() && normalized_.back() == '\n') normalized_.pop_back();
    source_ = normalized_;
  }

  absl::StatusOr<std::vector<Token>> Run();

 private:
  bool Sees(absl::string_view text) const { return source_.substr(at_, text.size()) == text; }
  char Peek(size_t ahead = 0) const {
    return at_ + ahead < source_.size() ? source_[at_ + ahead] : '\0';
  }
  void Advance(size_t n_bytes);
  void SkipSpace();
  Token& Emit(TokenKind kind);
  // Emits the text up to the tag at `tag`, whose sign ('-', '+' or none) strips its end.
  void EmitData(size_t tag, char sign, bool is_variable);

  absl::Status LexTag();
  absl::Status LexComment();
  absl::Status LexInside(absl::string_view end);
  absl::Status LexToken();
  bool AtRaw(size_t* end) const;
  absl::Status LexRaw(size_t body);
  // Consumes the end of a tag: "-%}" eats the whitespace after it, "%}" one newline if trimming.
  bool ConsumeEnd(absl::string_view end, bool trims_newline);

  absl::Status LexNumber();
  size_t ScanDigits(size_t at, bool (*is_digit)(char)) const;
  absl::Status LexString();
  absl::Status LexEscape(std::string* out);
  absl::Status LexCodeEscape(int n_digits, std::string* out);
  absl::Status LexOperator();

  std::string normalized_;
  absl::string_view source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::string open_brackets_;  // The closing brackets that are due.
  std::vector<Token> tokens_;
};

void Lexer::Advance(size_t n_bytes) {
  line_ +=
      static_cast<int>(std::count(source_.begin() + at_, source_.begin() + at_ + n_bytes, '\n'));
  at_ += n_bytes;
}

void Lexer::SkipSpace() {
  while (at_ < source_.size()) {
    const Character character = CharacterAt(source_, at_);
    if (!IsSpace(character.code)) return;
    Advance(character.n_bytes);
  }
}

Token& Lexer::Emit(TokenKind kind) {
  Token& token = tokens_.emplace_back();
  token.kind = kind;
  token.line = line_;
  return token;
}

void Lexer::EmitData(size_t tag, char sign, bool is_variable) {
  size_t end = tag;
  const auto strip_to = [&](size_t limit) {
    size_t stripped = tag;
    while (stripped > limit) {
      const Character character = CharacterBefore(source_, stripped);
      if (!IsSpace(character.code)) break;
      stripped -= character.n_bytes;
    }
    return stripped;
  };
  if (sign == '-') {
    end = strip_to(at_);
  } else if (sign != '+' && !is_variable) {
    const size_t newline = source_.substr(at_, tag - at_).rfind('\n');
    const bool has_line_start = newline != absl::string_view::npos || line_starting_;
    const size_t line_begin = newline == absl::string_view::npos ? at_ : at_ + newline + 1;
    if (has_line_start && strip_to(line_begin) == line_begin) end = line_begin;
  }
  if (end > at_) Emit(TokenKind::kData).text = std::string(source_.substr(at_, end - at_));
  Advance(tag - at_);
}

bool Lexer::ConsumeEnd(absl::string_view end, bool trims_newline) {
  if (Peek() == '-' && source_.substr(at_ + 1, end.size()) == end) {
    const size_t begin = at_;
    Advance(1 + end.size());
    SkipSpace();
    line_starting_ = source_[at_ - 1] == '\n' && at_ > begin;
    return true;
  }
  const bool plus = trims_newline && Peek() == '+' && source_.substr(at_ + 1, end.size()) == end;
  if (!plus && !Sees(end)) return false;
  Advance(end.size() + (plus ? 1 : 0));
  line_starting_ = false;
  if (!plus && trims_newline && Peek() == '\n') {
    Advance(1);
    line_starting_ = true;
  }
  return true;
}

bool Lexer::AtRaw(size_t* end) const {
  size_t i = at_ + 2;
  if (i < source_.size() && (source_[i] == '-' || source_[i] == '+')) ++i;
  const auto skip_space = [&] {
    while (i < source_.size() && IsSpace(CharacterAt(source_, i).code)) {
      i += CharacterAt(source_, i).n_bytes;
    }
  };
  skip_space();
  if (source_.substr(i, 3) != "raw") return false;
  i += 3;
  skip_space();
  const bool strips = source_.substr(i, 3) == "-%}";
  if (!strips && source_.substr(i, 2) != "%}") return false;
  i += strips ? 3 : 2;
  if (strips) skip_space();
  *end = i;
  return true;
}

absl::Status Lexer::LexRaw(size_t body) {
  const int begin_line = line_;
  Advance(body - at_);
  line_starting_ = source_[at_ - 1] == '\n';
  for (size_t tag = at_; (tag = source_.find("{%", tag)) != absl::string_view::npos; ++tag) {
    size_t i = tag + 2;
    const char sign = i < source_.size() ? source_[i] : '\0';
    if (sign == '-' || sign == '+') ++i;
    while (i < source_.size() && IsSpace(CharacterAt(source_, i).code)) {
      i += CharacterAt(source_, i).n_bytes;
    }
    if (source_.substr(i, 6) != "endraw") continue;
    i += 6;
    while (i < source_.size() && IsSpace(CharacterAt(source_, i).code)) {
      i += CharacterAt(source_, i).n_bytes;
    }
    const absl::string_view rest = source_.substr(i, 3);
    if (rest.substr(0, 2) != "%}" && rest != "-%}" && rest != "+%}") continue;
    EmitData(tag, sign, /*is_variable=*/false);
    Advance(i - at_);
    ConsumeEnd("%}", /*trims_newline=*/true);
    return absl::OkStatus();
  }
  return SyntaxError(begin_line, "the raw block is never closed");
}

absl::Status Lexer::LexComment() {
  const int begin_line = line_;
  const size_t end = source_.find("#}", at_);
  if (end == absl::string_view::npos) return SyntaxError(begin_line, "the comment is never closed");
  // The sign before "#}" belongs to the end of the tag.
  const bool has_sign = end > at_ && (source_[end - 1] == '-' || source_[end - 1] == '+');
  Advance(end - at_ - (has_sign ? 1 : 0));
  ConsumeEnd("#}", /*trims_newline=*/true);
  return absl::OkStatus();
}

absl::Status Lexer::LexTag() {
  size_t tag = at_;
  for (; (tag = source_.find('{', tag)) != absl::string_view::npos; ++tag) {
    const char next = tag + 1 < source_.size() ? source_[tag + 1] : '\0';
    if (next == '%' || next == '{' || next == '#') break;
  }
  if (tag == absl::string_view::npos) {
    Emit(TokenKind::kData).text = std::string(source_.substr(at_));
    Advance(source_.size() - at_);
    return absl::OkStatus();
  }
  const char type = source_[tag + 1];
  const char next = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
  const char sign = next == '-' || next == '+' ? next : '\0';
  EmitData(tag, sign, type == '{');
  size_t raw_body = 0;
  if (type == '%' && AtRaw(&raw_body)) return LexRaw(raw_body);
  if (type == '#') {
    Advance(2 + (sign != '\0' ? 1 : 0));
    return LexComment();
  }
  Emit(type == '%' ? TokenKind::kBlockBegin : TokenKind::kVariableBegin);
  Advance(2 + (sign != '\0' ? 1 : 0));
  return LexInside(type == '%' ? "%}" : "}}");
}

absl::Status Lexer::LexInside(absl::string_view end) {
  const bool is_block = end == "%}";
  const int begin_line = line_;
  open_brackets_.clear();
  while (true) {
    if (open_brackets_.empty()) {
      const int line = line_;
      if (ConsumeEnd(end, is_block)) {
        Emit(is_block ? TokenKind::kBlockEnd : TokenKind::kVariableEnd).line = line;
        return absl::OkStatus();
      }
    }
    if (at_ >= source_.size()) return SyntaxError(begin_line, "the tag is never closed");
    COTERIE_RETURN_IF_ERROR(LexToken());
  }
}

absl::Status Lexer::LexToken() {
  const char c = Peek();
  if (IsSpace(CharacterAt(source_, at_).code)) {
    SkipSpace();
    return absl::OkStatus();
  }
  if (IsDigit(c)) return LexNumber();
  if (c == '"' || c == '\'') return LexString();
  if (!IsNameStart(c)) return LexOperator();
  size_t end = at_;
  while (end < source_.size() && (IsNameStart(source_[end]) || IsDigit(source_[end]))) ++end;
  Emit(TokenKind::kName).text = std::string(source_.substr(at_, end - at_));
  Advance(end - at_);
  return absl::OkStatus();
}

// Digits with single underscores between them.
size_t Lexer::ScanDigits(size_t at, bool (*is_digit)(char)) const {
  while (at < source_.size()) {
    if (is_digit(source_[at])) {
      ++at;
    } else if (source_[at] == '_' && at + 1 < source_.size() && is_digit(source_[at + 1])) {
      at += 2;
    } else {
      break;
    }
  }
  return at;
}

absl::Status Lexer::LexNumber() {
  const auto at = [&](size_t i) { return i < source_.size() ? source_[i] : '\0'; };
  const size_t whole = ScanDigits(at_, IsDigit);
  size_t end = whole;
  const bool after_dot = at_ > 0 && source_[at_ - 1] == '.';
  if (!after_dot && at(end) == '.' && IsDigit(at(end + 1))) end = ScanDigits(end + 1, IsDigit);
  if (!after_dot && (at(end) | 0x20) == 'e') {
    const size_t digits = end + 1 + (at(end + 1) == '+' || at(end + 1) == '-' ? 1 : 0);
    if (IsDigit(at(digits))) end = ScanDigits(digits, IsDigit);
  }
  std::string digits;
  if (end > whole) {
    for (char c : source_.substr(at_, end - at_)) {
      if (c != '_') digits += c;
    }
    Emit(TokenKind::kReal).real = std::strtod(digits.c_str(), nullptr);
    Advance(end - at_);
    return absl::OkStatus();
  }
  int base = 10;
  size_t begin = at_;
  if (Peek() == '0' &&
      ((Peek(1) | 0x20) == 'x' || (Peek(1) | 0x20) == 'o' || (Peek(1) | 0x20) == 'b')) {
    base = (Peek(1) | 0x20) == 'x' ? 16 : (Peek(1) | 0x20) == 'o' ? 8 : 2;
    begin += 2;
    end = ScanDigits(begin, base == 16 ? IsHex : base == 8 ? IsOctal : IsBinary);
  }
  for (char c : source_.substr(begin, end - begin)) {
    if (c != '_') digits += c;
  }
  errno = 0;
  const int64_t value = std::strtoll(digits.c_str(), nullptr, base);
  if (errno != 0) {
    return absl::UnimplementedError(absl::StrCat("line ", line_, ": integer beyond 64 bits"));
  }
  Emit(TokenKind::kInteger).integer = value;
  Advance(end - at_);
  return absl::OkStatus();
}

absl::Status Lexer::LexString() {
  const char quote = Peek();
  const int begin_line = line_;
  std::string text;
  Advance(1);
  while (true) {
    if (at_ >= source_.size()) return SyntaxError(begin_line, "the string is never closed");
    const char c = Peek();
    if (c == '\\') {
      COTERIE_RETURN_IF_ERROR(LexEscape(&text));
      continue;
    }
    Advance(1);
    if (c == quote) break;
    text += c;
  }
  Token& token = Emit(TokenKind::kString);
  token.text = std::move(text);
  token.line = begin_line;
  return absl::OkStatus();
}

absl::Status Lexer::LexEscape(std::string* out) {
  static constexpr absl::string_view kFrom = "\\'\"abfnrtv";
  static constexpr absl::string_view kTo = "\\'\"\a\b\f\n\r\t\v";
  if (at_ + 1 >= source_.size()) return SyntaxError(line_, "the string is never closed");
  const char c = Peek(1);
  Advance(2);
  const size_t simple = kFrom.find(c);
  if (simple != absl::string_view::npos) {
    *out += kTo[simple];
  } else if (c == '\n') {
    return absl::OkStatus();
  } else if (IsOctal(c)) {
    uint32_t code = static_cast<uint32_t>(c - '0');
    for (int i = 0; i < 2 && IsOctal(Peek()); ++i) {
      code = code * 8 + static_cast<uint32_t>(Peek() - '0');
      Advance(1);
    }
    AppendUtf8(code, out);
  } else if (c == 'x' || c == 'u' || c == 'U') {
    return LexCodeEscape(c == 'x' ? 2 : c == 'u' ? 4 : 8, out);
  } else if (c == 'N') {
    return absl::UnimplementedError(absl::StrCat("line ", line_, ": string escape \\N"));
  } else {
    *out += '\\';
    *out += c;
  }
  return absl::OkStatus();
}

absl::Status Lexer::LexCodeEscape(int n_digits, std::string* out) {
  uint32_t code = 0;
  for (int i = 0; i < n_digits; ++i) {
    const char c = Peek();
    if (!IsHex(c)) return SyntaxError(line_, "truncated \\x, \\u or \\U escape in a string");
    code = code * 16 + static_cast<uint32_t>(IsDigit(c) ? c - '0' : (c | 0x20) - 'a' + 10);
    Advance(1);
  }
  if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) {
    return SyntaxError(line_, "a string escape names no Unicode character");
  }
  AppendUtf8(code, out);
  return absl::OkStatus();
}

absl::Status Lexer::LexOperator() {
  static constexpr absl::string_view kTwo[] = {"//", "**", "==", "!=", ">=", "<="};
  static constexpr absl::string_view kOne = "+-*/%~[](){}<>=.:|,;";
  absl::string_view op;
  for (absl::string_view two : kTwo) {
    if (Sees(two)) op = two;
  }
  if (op.empty()) {
    const size_t i = kOne.find(Peek());
    if (i == absl::string_view::npos) {
      return SyntaxError(line_,
                         absl::StrCat("unexpected character '", source_.substr(at_, 1), "'"));
    }
    op = kOne.substr(i, 1);
  }
  if (op == "(" || op == "[" || op == "{") {
    open_brackets_ += op == "(" ? ')' : op == "[" ? ']' : '}';
  } else if (op == ")" || op == "]" || op == "}") {
    if (open_brackets_.empty() || open_brackets_.back() != op[0]) {
      return SyntaxError(line_, absl::StrCat("unexpected '", op, "'"));
    }
    open_brackets_.pop_back();
  }
  Emit(TokenKind::kOperator).text = std::string(op);
  Advance(op.size());
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Token>> Lexer::Run() {
  while (at_ < source_.size()) COTERIE_RETURN_IF_ERROR(LexTag());
  Emit(TokenKind::kEnd);
  return std::move(tokens_);
}

}  // namespace

absl::Status SyntaxError(int line, absl::string_view message) {
  return absl::DataLossError(absl::StrCat("line ", line, ": ", message));
}

absl::StatusOr<std::vector<Token>> Tokenize(absl::string_view source) {
  return Lexer(source).Run();
}

}  // namespace coterie::jinja
