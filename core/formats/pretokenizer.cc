#include "core/formats/pretokenizer.h"

#include "core/formats/unicode.h"
#include "core/formats/utf8.h"

namespace coterie {
namespace {

constexpr uint8_t kLetterOrNumber = kUnicodeLetter | kUnicodeNumber;
constexpr uint8_t kWordClasses = kLetterOrNumber | kUnicodeSpace;

// The text up to where matching ends, with the class of each character.
struct Scan {
  const char* text;
  size_t end;

  // Requires i < end. Sets the character's length.
  uint8_t ClassAt(size_t i, size_t* n_bytes) const {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < 0x80) {
      *n_bytes = 1;
      return unicode_tables::kClassBlocks[byte];  // Block 0 is the first.
    }
    const Utf8Char c = DecodeUtf8(text + i);
    *n_bytes = c.n_bytes;
    return UnicodeClass(c.code_point);
  }

  // The end of the run of characters at i whose class, under the mask, is in (or out of) it.
  size_t SkipIn(size_t i, uint8_t mask) const {
    size_t n_bytes;
    while (i < end && (ClassAt(i, &n_bytes) & mask) != 0) i += n_bytes;
    return i;
  }
  size_t SkipOut(size_t i, uint8_t mask) const {
    size_t n_bytes;
    while (i < end && (ClassAt(i, &n_bytes) & mask) == 0) i += n_bytes;
    return i;
  }
  bool IsNewline(size_t i) const { return text[i] == '\n' || text[i] == '\r'; }
};

// The end of an English contraction whose apostrophe is at i, or i.
size_t SkipContraction(const Scan& scan, size_t i, bool ignore_case) {
  const auto letter = [&](size_t at) -> char {
    if (at >= scan.end) return 0;
    const char c = scan.text[at];
    return ignore_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  };
  const char first = letter(i + 1), second = letter(i + 2);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return i + 2;
  if (second == 'e' && (first == 'r' || first == 'v')) return i + 3;
  if (first == 'l' && second == 'l') return i + 3;
  if (ignore_case && first == '\xC5' && second == '\xBF') return i + 3;
  return i;
}

// \s+(?!\S)|\s+ at i, where white space begins: all of it at the end of the text; else all but its
// last character, which may go with what follows, unless it is the only one.
size_t SkipSpace(const Scan& scan, size_t i, size_t run_end, size_t last) {
  return run_end == scan.end || last == i ? run_end : last;
}

size_t Gpt2PieceEnd(const Scan& scan, size_t i) {
  if (scan.text[i] == '\'') {
    const size_t end = SkipContraction(scan, i, false);
    if (end != i) return end;
  }
  const size_t word = scan.text[i] == ' ' && i + 1 < scan.end ? i + 1 : i;
  size_t n_bytes;
  const uint8_t word_class = scan.ClassAt(word, &n_bytes);
  if ((word_class & kUnicodeLetter) != 0) return scan.SkipIn(word + n_bytes, kUnicodeLetter);
  if ((word_class & kUnicodeNumber) != 0) return scan.SkipIn(word + n_bytes, kUnicodeNumber);
  if ((word_class & kUnicodeSpace) == 0) return scan.SkipOut(word + n_bytes, kWordClasses);
  size_t last = i, run_end = i;
  while (run_end < scan.end && (scan.ClassAt(run_end, &n_bytes) & kUnicodeSpace) != 0) {
    last = run_end;
    run_end += n_bytes;
  }
  return SkipSpace(scan, i, run_end, last);
}

size_t Llama3NumberEnd(const Scan& scan, size_t i, int max_numbers) {
  size_t n_bytes;
  while (max_numbers-- > 0 && i < scan.end && (scan.ClassAt(i, &n_bytes) & kUnicodeNumber) != 0) {
    i += n_bytes;
  }
  return i;
}

// The part of the pattern for white space: through its last newline if it has one.
size_t Llama3SpaceEnd(const Scan& scan, size_t i) {
  size_t n_bytes, last = i, run_end = i, after_newline = 0;
  while (run_end < scan.end && (scan.ClassAt(run_end, &n_bytes) & kUnicodeSpace) != 0) {
    last = run_end;
    run_end += n_bytes;
    if (scan.IsNewline(last)) after_newline = run_end;
  }
  return after_newline != 0 ? after_newline : SkipSpace(scan, i, run_end, last);
}

size_t Llama3PieceEnd(const Scan& scan, size_t i, int max_numbers) {
  if (scan.text[i] == '\'') {
    const size_t end = SkipContraction(scan, i, true);
    if (end != i) return end;
  }
  size_t n_bytes, next_n_bytes;
  const uint8_t first = scan.ClassAt(i, &n_bytes);
  if ((first & kUnicodeLetter) != 0) return scan.SkipIn(i + n_bytes, kUnicodeLetter);
  if ((first & kUnicodeNumber) != 0) return Llama3NumberEnd(scan, i, max_numbers);
  const size_t next = i + n_bytes;
  if (!scan.IsNewline(i) && next < scan.end &&
      (scan.ClassAt(next, &next_n_bytes) & kUnicodeLetter) != 0) {
    return scan.SkipIn(next + next_n_bytes, kUnicodeLetter);
  }
  const size_t sign = scan.text[i] == ' ' && next < scan.end ? next : i;
  if ((scan.ClassAt(sign, &n_bytes) & kWordClasses) == 0) {
    size_t end = scan.SkipOut(sign + n_bytes, kWordClasses);
    while (end < scan.end && scan.IsNewline(end)) ++end;
    return end;
  }
  return Llama3SpaceEnd(scan, i);
}

}  // namespace

std::optional<PretokenizerKind> PretokenizerNamed(absl::string_view pre) {
  struct Row {
    const char* name;
    PretokenizerKind kind;
  };
  static constexpr Row kRows[] = {
      {"gpt-2", PretokenizerKind::kGpt2},    {"phi-2", PretokenizerKind::kGpt2},
      {"mpt", PretokenizerKind::kGpt2},      {"olmo", PretokenizerKind::kGpt2},
      {"smollm", PretokenizerKind::kSmollm}, {"starcoder", PretokenizerKind::kSmollm},
      {"refact", PretokenizerKind::kSmollm}, {"llama-bpe", PretokenizerKind::kLlama3},
      {"llama3", PretokenizerKind::kLlama3}, {"llama-v3", PretokenizerKind::kLlama3},
      {"lfm2", PretokenizerKind::kLlama3},   {"qwen2", PretokenizerKind::kQwen2},
  };
  for (const Row& row : kRows) {
    if (pre == row.name) return row.kind;
  }
  return std::nullopt;
}

size_t Pretokenizer::PieceEnd() {
  switch (kind_) {
    case PretokenizerKind::kGpt2:
      return Gpt2PieceEnd({text_.data(), text_.size()}, position_);
    case PretokenizerKind::kLlama3:
      return Llama3PieceEnd({text_.data(), text_.size()}, position_, 3);
    case PretokenizerKind::kQwen2:
      return Llama3PieceEnd({text_.data(), text_.size()}, position_, 1);
    case PretokenizerKind::kSmollm:
      break;
  }
  if (position_ >= part_end_) {
    const Scan all{text_.data(), text_.size()};
    size_t n_bytes;
    if ((all.ClassAt(position_, &n_bytes) & kUnicodeDigit) != 0) return position_ + n_bytes;
    part_end_ = all.SkipOut(position_ + n_bytes, kUnicodeDigit);
  }
  return Gpt2PieceEnd({text_.data(), part_end_}, position_);
}

absl::string_view Pretokenizer::Next() {
  if (position_ >= text_.size()) return {};
  const size_t begin = position_;
  position_ = PieceEnd();
  return text_.substr(begin, position_ - begin);
}

}  // namespace coterie
