#include "core/formats/jinja/characters.h"

#include <algorithm>

namespace coterie::jinja {
namespace {

bool IsContinuation(absl::string_view text, size_t offset) {
  return offset < text.size() && (static_cast<uint8_t>(text[offset]) & 0xC0) == 0x80;
}

uint32_t Low6(absl::string_view text, size_t offset) {
  return static_cast<uint8_t>(text[offset]) & 0x3F;
}

bool InRange(uint32_t code, uint32_t first, uint32_t last) { return code >= first && code <= last; }

// Blocks where upper and lower case alternate, upper first on even (or odd) codes.
bool AlternatesFromEven(uint32_t code) {
  return InRange(code, 0x100, 0x137) || InRange(code, 0x14A, 0x177) ||
         InRange(code, 0x1DE, 0x1EF) || InRange(code, 0x1F8, 0x21F) ||
         InRange(code, 0x222, 0x233) || InRange(code, 0x3D8, 0x3EF) ||
         InRange(code, 0x460, 0x481) || InRange(code, 0x48A, 0x4BF) ||
         InRange(code, 0x4D0, 0x52F) || InRange(code, 0x1E00, 0x1E95) ||
         InRange(code, 0x1EA0, 0x1EFF);
}

bool AlternatesFromOdd(uint32_t code) {
  return InRange(code, 0x139, 0x148) || InRange(code, 0x179, 0x17E) ||
         InRange(code, 0x1CD, 0x1DC) || InRange(code, 0x4C1, 0x4CE);
}

// Not letter pairs although inside the blocks above.
bool IsCaseException(uint32_t code) { return code == 0x130 || code == 0x131 || code == 0x138; }

}  // namespace

Character CharacterAt(absl::string_view text, size_t offset) {
  const uint8_t lead = static_cast<uint8_t>(text[offset]);
  if (lead < 0x80) return {lead, 1};
  const Character invalid = {0xDC00u + lead, 1};
  if (lead < 0xC2 || lead > 0xF4 || !IsContinuation(text, offset + 1)) return invalid;
  if (lead < 0xE0) return {(lead & 0x1Fu) << 6 | Low6(text, offset + 1), 2};
  if (!IsContinuation(text, offset + 2)) return invalid;
  if (lead < 0xF0) {
    const uint32_t code =
        (lead & 0x0Fu) << 12 | Low6(text, offset + 1) << 6 | Low6(text, offset + 2);
    if (code < 0x800 || InRange(code, 0xD800, 0xDFFF)) return invalid;
    return {code, 3};
  }
  if (!IsContinuation(text, offset + 3)) return invalid;
  const uint32_t code = (lead & 0x07u) << 18 | Low6(text, offset + 1) << 12 |
                        Low6(text, offset + 2) << 6 | Low6(text, offset + 3);
  if (code < 0x10000 || code > 0x10FFFF) return invalid;
  return {code, 4};
}

Character CharacterBefore(absl::string_view text, size_t end) {
  // A lone continuation byte is a character of one byte too, so longer ones are tried first.
  for (size_t n = 2; n <= std::min<size_t>(4, end) && IsContinuation(text, end - n + 1); ++n) {
    const Character character = CharacterAt(text.substr(0, end), end - n);
    if (character.n_bytes == n) return character;
  }
  return CharacterAt(text, end - 1);
}

int64_t CountCharacters(absl::string_view text) {
  int64_t count = 0;
  for (size_t i = 0; i < text.size(); i += CharacterAt(text, i).n_bytes) ++count;
  return count;
}

std::vector<size_t> CharacterOffsets(absl::string_view text) {
  std::vector<size_t> offsets;
  offsets.reserve(text.size() + 1);
  for (size_t i = 0; i < text.size(); i += CharacterAt(text, i).n_bytes) offsets.push_back(i);
  offsets.push_back(text.size());
  return offsets;
}

void AppendUtf8(uint32_t code, std::string* out) {
  if (code < 0x80) {
    out->push_back(static_cast<char>(code));
  } else if (code < 0x800) {
    out->push_back(static_cast<char>(0xC0 | code >> 6));
    out->push_back(static_cast<char>(0x80 | (code & 0x3F)));
  } else if (InRange(code, 0xDC80, 0xDCFF)) {
    out->push_back(static_cast<char>(code - 0xDC00));  // A byte that was not UTF-8.
  } else if (code < 0x10000) {
    out->push_back(static_cast<char>(0xE0 | code >> 12));
    out->push_back(static_cast<char>(0x80 | (code >> 6 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (code & 0x3F)));
  } else {
    out->push_back(static_cast<char>(0xF0 | code >> 18));
    out->push_back(static_cast<char>(0x80 | (code >> 12 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (code >> 6 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (code & 0x3F)));
  }
}

bool IsSpace(uint32_t code) {
  return InRange(code, 0x09, 0x0D) || InRange(code, 0x1C, 0x20) || code == 0x85 || code == 0xA0 ||
         code == 0x1680 || InRange(code, 0x2000, 0x200A) || code == 0x2028 || code == 0x2029 ||
         code == 0x202F || code == 0x205F || code == 0x3000;
}

bool IsLineBreak(uint32_t code) {
  return InRange(code, 0x0A, 0x0D) || InRange(code, 0x1C, 0x1E) || code == 0x85 || code == 0x2028 ||
         code == 0x2029;
}

bool IsPrintable(uint32_t code) {
  if (code < 0x7F) return code >= 0x20;
  if (code < 0x600) {
    return !(InRange(code, 0x7F, 0xA0) || code == 0xAD || InRange(code, 0x378, 0x379) ||
             InRange(code, 0x380, 0x383) || code == 0x38B || code == 0x38D || code == 0x3A2 ||
             code == 0x530 || InRange(code, 0x557, 0x558) || InRange(code, 0x58B, 0x58C) ||
             code == 0x590 || InRange(code, 0x5C8, 0x5CF) || InRange(code, 0x5EB, 0x5EE) ||
             InRange(code, 0x5F5, 0x5FF));
  }
  const bool control_or_separator =
      InRange(code, 0x600, 0x605) || code == 0x61C || code == 0x6DD || code == 0x70F ||
      code == 0x1680 || code == 0x180E || InRange(code, 0x2000, 0x200F) ||
      InRange(code, 0x2028, 0x202F) || InRange(code, 0x205F, 0x206F) || code == 0x3000 ||
      code == 0xFEFF || InRange(code, 0xFFF0, 0xFFFB) || InRange(code, 0xE0000, 0xE007F);
  const bool without_character = InRange(code, 0xD800, 0xF8FF) || (code & 0xFFFE) == 0xFFFE ||
                                 InRange(code, 0xFDD0, 0xFDEF) || code >= 0xF0000;
  return !control_or_separator && !without_character;
}

uint32_t ToLower(uint32_t code) {
  if (code < 0x80) return InRange(code, 'A', 'Z') ? code + 32 : code;
  if (InRange(code, 0xC0, 0xDE) && code != 0xD7) return code + 32;
  if (IsCaseException(code)) return code;
  if (code == 0x178) return 0xFF;
  if (AlternatesFromEven(code)) return code | 1;
  if (AlternatesFromOdd(code)) return code + (code & 1);
  if (code == 0x386) return 0x3AC;
  if (InRange(code, 0x388, 0x38A)) return code + 37;
  if (code == 0x38C) return 0x3CC;
  if (code == 0x38E || code == 0x38F) return code + 63;
  if (InRange(code, 0x391, 0x3AB) && code != 0x3A2) return code + 32;
  if (InRange(code, 0x400, 0x40F)) return code + 80;
  if (InRange(code, 0x410, 0x42F)) return code + 32;
  if (code == 0x4C0) return 0x4CF;
  if (InRange(code, 0x531, 0x556)) return code + 48;
  return code;
}

uint32_t ToUpper(uint32_t code) {
  if (code < 0x80) return InRange(code, 'a', 'z') ? code - 32 : code;
  if (code == 0xB5) return 0x39C;
  if (InRange(code, 0xE0, 0xFE) && code != 0xF7) return code - 32;
  if (code == 0xFF) return 0x178;
  if (code == 0x131) return 'I';
  if (code == 0x17F) return 'S';
  if (IsCaseException(code) || code == 0x149) return code;
  if (AlternatesFromEven(code)) return code & ~1u;
  if (AlternatesFromOdd(code)) return code - (code & 1 ? 0 : 1);
  if (code == 0x3AC) return 0x386;
  if (InRange(code, 0x3AD, 0x3AF)) return code - 37;
  if (code == 0x3C2) return 0x3A3;
  if (code == 0x3CC) return 0x38C;
  if (code == 0x3CD || code == 0x3CE) return code - 63;
  if (InRange(code, 0x3B1, 0x3CB)) return code - 32;
  if (InRange(code, 0x430, 0x44F)) return code - 32;
  if (InRange(code, 0x450, 0x45F)) return code - 80;
  if (code == 0x4CF) return 0x4C0;
  if (InRange(code, 0x561, 0x586)) return code - 48;
  return code;
}

bool IsLower(uint32_t code) { return ToUpper(code) != code || code == 0xDF; }
bool IsUpper(uint32_t code) { return ToLower(code) != code || code == 0x130; }

std::string ToLower(absl::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const Character character = CharacterAt(text, i);
    i += character.n_bytes;
    if (character.code == 0x130) {
      out += "i\u0307";
    } else {
      AppendUtf8(ToLower(character.code), &out);
    }
  }
  return out;
}

std::string ToUpper(absl::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const Character character = CharacterAt(text, i);
    i += character.n_bytes;
    if (character.code == 0xDF) {
      out += "SS";
    } else {
      AppendUtf8(ToUpper(character.code), &out);
    }
  }
  return out;
}

}  // namespace coterie::jinja
