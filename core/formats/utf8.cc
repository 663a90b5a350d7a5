#include "core/formats/utf8.h"

#include <cstring>

namespace coterie {
namespace {

// The second byte of a character is bounded by its first: that is what excludes overlong forms,
// surrogates and code points that do not exist.
struct Lead {
  uint32_t n_bytes;  // 0: no character begins so.
  unsigned char second_min, second_max;
};

Lead LeadOf(unsigned char byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Utf8Char ScanUtf8(absl::string_view text, bool* is_valid, bool* is_cut) {
  const Lead lead = LeadOf(static_cast<unsigned char>(text[0]));
  *is_valid = false;
  *is_cut = false;
  if (lead.n_bytes == 0) return {0xFFFD, 1};
  for (uint32_t i = 1; i < lead.n_bytes; ++i) {
    if (i == text.size()) {
      *is_cut = true;
      return {0xFFFD, i};
    }
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool fits =
        i == 1 ? byte >= lead.second_min && byte <= lead.second_max : byte >= 0x80 && byte <= 0xBF;
    if (!fits) return {0xFFFD, i};
  }
  *is_valid = true;
  return DecodeUtf8(text.data());
}

size_t FindInvalidUtf8(absl::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    uint64_t eight;
    if (i + sizeof(eight) <= text.size()) {
      std::memcpy(&eight, text.data() + i, sizeof(eight));
      if ((eight & 0x8080808080808080) == 0) {
        i += sizeof(eight);
        continue;
      }
    }
    if (static_cast<unsigned char>(text[i]) < 0x80) {
      ++i;
      continue;
    }
    bool is_valid, is_cut;
    const Utf8Char c = ScanUtf8(text.substr(i), &is_valid, &is_cut);
    if (!is_valid) return i;
    i += c.n_bytes;
  }
  return text.size();
}

size_t AppendRepaired(absl::string_view text, bool is_all, std::string* out) {
  while (!text.empty()) {
    const size_t n_valid = FindInvalidUtf8(text);
    out->append(text.data(), n_valid);
    text.remove_prefix(n_valid);
    if (text.empty()) break;
    bool is_valid, is_cut;
    const Utf8Char c = ScanUtf8(text, &is_valid, &is_cut);
    if (is_cut && !is_all) return text.size();
    AppendUtf8(c.code_point, out);
    text.remove_prefix(c.n_bytes);
  }
  return 0;
}

void AppendUtf8(uint32_t code_point, std::string* out) {
  const auto put = [out](uint32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    put(code_point);
    return;
  }
  if (code_point < 0x800) {
    put(0xC0 | code_point >> 6);
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12);
    put(0x80 | (code_point >> 6 & 0x3F));
  } else {
    put(0xF0 | code_point >> 18);
    put(0x80 | (code_point >> 12 & 0x3F));
    put(0x80 | (code_point >> 6 & 0x3F));
  }
  put(0x80 | (code_point & 0x3F));
}

}  // namespace coterie
