#pragma once

// Properties of code points and canonical normalisation, as the tokenizers of Hugging Face see them
// (make_unicode_tables.py says which Unicode version stands behind which property). All functions
// are pure and thread-safe.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

#include "core/formats/unicode_tables.h"

namespace coterie {

// Bits of a code point's class.
inline constexpr uint8_t kUnicodeLetter = 1 << 0;        // \p{L}
inline constexpr uint8_t kUnicodeNumber = 1 << 1;        // \p{N}
inline constexpr uint8_t kUnicodeSpace = 1 << 2;         // White_Space
inline constexpr uint8_t kUnicodeDigit = 1 << 3;         // What a "split digits" step isolates.
inline constexpr uint8_t kUnicodeNormalizes = 1 << 4;    // NFC may change it or join it leftwards.
inline constexpr uint8_t kUnicodeBertRemoved = 1 << 5;   // BERT drops it: controls, U+FFFD.
inline constexpr uint8_t kUnicodeBertStripped = 1 << 6;  // BERT strips it as an accent.
inline constexpr uint8_t kUnicodeBertPunctuation = 1 << 7;  // BERT makes it a word of its own.

// Requires code_point <= 0x10FFFF.
inline uint8_t UnicodeClass(uint32_t code_point) {
  using namespace unicode_tables;
  return kClassBlocks[kClassIndex[code_point >> 8] * 256 + (code_point & 0xFF)];
}

// Simple lower case: one code point for one.
uint32_t LowerCase(uint32_t code_point);

// A code point and where it stood in the text it came from (byte offset).
struct PlacedChar {
  uint32_t code_point;
  uint32_t offset;
};

// Appends the full canonical decomposition; the parts inherit the offset.
void AppendDecomposed(PlacedChar c, std::vector<PlacedChar>* out);

// Puts runs of combining marks into canonical order (Unicode chapter 3.11, D109).
void SortMarks(std::vector<PlacedChar>* text);

// Canonical composition of decomposed, sorted text (D117).
void Compose(std::vector<PlacedChar>* text);

// True if NFC leaves the text as it is. Exact only in one direction: false means "perhaps not".
bool IsSurelyNfc(absl::string_view text);

// True if the code point belongs to a word, where an added token may have to be one.
bool IsWordCharacter(uint32_t code_point);

// Text that was changed, of less than 2^32 bytes.
struct Normalized {
  std::string text;
  // Where stretches of `text` come from, sorted: bytes from `to` on began at `from` in the source,
  // byte for byte until the next border if `is_verbatim`, else all at `from`. The first is at 0.
  struct Border {
    uint32_t to;
    uint32_t from;
    bool is_verbatim;
  };
  std::vector<Border> borders;

  // Turns places[first, end), sorted places in `text`, into places in the source.
  void MapBack(std::vector<uint32_t>* places, size_t first) const;
};
// Requires well-formed UTF-8.
Normalized NormalizeNfc(absl::string_view text);

}  // namespace coterie
