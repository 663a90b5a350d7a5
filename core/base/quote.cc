#include "core/base/quote.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace coterie {

std::string Quote(absl::string_view text) {
  constexpr size_t kShownBytes = 80;
  return absl::StrCat("'", absl::CHexEscape(text.substr(0, kShownBytes)),
                      text.size() > kShownBytes ? "..." : "", "'");
}

absl::string_view ShortMessage(absl::string_view message) {
  constexpr size_t kMaxBytes = 2000;
  if (message.size() <= kMaxBytes) return message;
  size_t end = kMaxBytes;
  while (end > 0 && (message[end] & 0xC0) == 0x80) --end;
  return message.substr(0, end);
}

}  // namespace coterie
