#pragma once

// UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF.

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace coterie {

// One code point and how many bytes it takes.
struct Utf8Char {
  uint32_t code_point;
  uint32_t n_bytes;
};

// The position of the first byte that is not part of a well-formed character, or text.size().
size_t FindInvalidUtf8(absl::string_view text);

// What begins at text[0], which must exist: n_bytes of a well-formed character; or, with code point
// U+FFFD, the longest start of one that the following bytes spoil (at least 1 byte), as Unicode
// recommends for replacement (chapter 3.9). `is_cut` is set if that start is all of the text.
Utf8Char ScanUtf8(absl::string_view text, bool* is_valid, bool* is_cut);

// Reads one character. Requires well-formed text at `p`.
inline Utf8Char DecodeUtf8(const char* p) {
  const auto byte = [p](int i) { return static_cast<uint32_t>(static_cast<unsigned char>(p[i])); };
  const uint32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {(lead & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if (lead < 0xF0) return {(lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  return {(lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F),
          4};
}

// Appends text with everything replaced by U+FFFD that is not well-formed, one for each maximal
// start of a character, as Python's decode(errors="replace") does. A character that is not finished
// at the end is left out, unless is_all, and its length returned: what comes next may finish it.
size_t AppendRepaired(absl::string_view text, bool is_all, std::string* out);

// Appends a code point up to U+10FFFF.
void AppendUtf8(uint32_t code_point, std::string* out);

}  // namespace coterie
