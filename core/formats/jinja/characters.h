#pragma once

// Characters of UTF-8 text as Python counts them.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace coterie::jinja {

// A character and the bytes it takes. A byte that is not part of valid UTF-8 is one character with
// the code 0xDC00 + byte, which no valid text holds.
struct Character {
  uint32_t code = 0;
  size_t n_bytes = 0;
};

// The character that begins at `offset`. Requires offset < text.size().
Character CharacterAt(absl::string_view text, size_t offset);
// The character that ends right before `end`. Requires 0 < end <= text.size().
Character CharacterBefore(absl::string_view text, size_t end);

int64_t CountCharacters(absl::string_view text);
// Offset of each character, then text.size().
std::vector<size_t> CharacterOffsets(absl::string_view text);

void AppendUtf8(uint32_t code, std::string* out);

// What Python's str.isspace says.
bool IsSpace(uint32_t code);
// A line boundary of Python's str.splitlines ("\r\n" is one boundary).
bool IsLineBreak(uint32_t code);
// Whether repr() shows the character as itself. Exact below U+0600; above, controls, separators,
// surrogates, private-use and non-characters are escaped and all else is shown.
bool IsPrintable(uint32_t code);

// Simple case mapping of the Latin, Greek, Cyrillic and Armenian blocks; other characters map to
// themselves. "ß" and the like, whose upper case is longer, are handled by ToUpper(text).
uint32_t ToLower(uint32_t code);
uint32_t ToUpper(uint32_t code);
bool IsLower(uint32_t code);
bool IsUpper(uint32_t code);
std::string ToLower(absl::string_view text);
std::string ToUpper(absl::string_view text);

}  // namespace coterie::jinja
