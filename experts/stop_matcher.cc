#include "experts/stop_matcher.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"

namespace coterie {
namespace {

constexpr size_t kMaxStops = 64;
constexpr size_t kMaxStopBytes = 1024;
constexpr absl::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

struct Range {
  uint8_t low;
  uint8_t high;
  bool Holds(uint8_t byte) const { return low <= byte && byte <= high; }
};

// How many bytes follow this first byte, -1 if no character begins with it.
int FollowersOf(uint8_t first) {
  if (first < 0x80) return 0;
  if (Range{0xC2, 0xDF}.Holds(first)) return 1;
  if (Range{0xE0, 0xEF}.Holds(first)) return 2;
  if (Range{0xF0, 0xF4}.Holds(first)) return 3;
  return -1;
}

// What the second byte may be: no overlong forms, surrogates or code points above U+10FFFF
// (Unicode 15, table 3-7).
Range SecondAfter(uint8_t first) {
  switch (first) {
    case 0xE0:
      return {0xA0, 0xBF};
    case 0xED:
      return {0x80, 0x9F};
    case 0xF0:
      return {0x90, 0xBF};
    case 0xF4:
      return {0x80, 0x8F};
    default:
      return {0x80, 0xBF};
  }
}

// The character, or the maximal part of one, at the beginning of `bytes`.
struct Character {
  size_t n_bytes;
  bool valid;       // Whole and well formed.
  bool incomplete;  // Well formed as far as there are bytes.
};

Character FirstCharacter(absl::string_view bytes) {
  const uint8_t first = static_cast<uint8_t>(bytes[0]);
  const int n_followers = FollowersOf(first);
  if (n_followers < 0) return {1, false, false};
  size_t n = 1;
  for (; n <= static_cast<size_t>(n_followers); ++n) {
    if (n == bytes.size()) return {n, false, true};
    const Range allowed = n == 1 ? SecondAfter(first) : Range{0x80, 0xBF};
    if (!allowed.Holds(static_cast<uint8_t>(bytes[n]))) return {n, false, false};
  }
  return {n, true, false};
}

// Moves whole characters from `bytes` to the end of `text`, replacing what is none; leaves the
// beginning of a character.
void MoveCharacters(std::string& bytes, std::string& text) {
  absl::string_view rest = bytes;
  while (!rest.empty()) {
    const Character character = FirstCharacter(rest);
    if (character.incomplete) break;
    absl::StrAppend(&text, character.valid ? rest.substr(0, character.n_bytes) : kReplacement);
    rest.remove_prefix(character.n_bytes);
  }
  bytes.erase(0, bytes.size() - rest.size());
}

bool IsUtf8(absl::string_view text) {
  while (!text.empty()) {
    const Character character = FirstCharacter(text);
    if (!character.valid) return false;
    text.remove_prefix(character.n_bytes);
  }
  return true;
}

}  // namespace

absl::StatusOr<StopMatcher> StopMatcher::Create(absl::Span<const std::string> stops) {
  if (stops.size() > kMaxStops) {
    return absl::InvalidArgumentError(
        absl::StrCat("too many stop strings: n=", stops.size(), ", allowed=", kMaxStops));
  }
  for (const std::string& stop : stops) {
    if (stop.empty()) return absl::InvalidArgumentError("a stop string is empty");
    if (stop.size() > kMaxStopBytes) {
      return absl::InvalidArgumentError(absl::StrCat(
          "a stop string is too long: bytes=", stop.size(), ", allowed=", kMaxStopBytes));
    }
    if (!IsUtf8(stop)) return absl::InvalidArgumentError("a stop string is not UTF-8");
  }
  return StopMatcher(std::vector<std::string>(stops.begin(), stops.end()));
}

std::string StopMatcher::Append(absl::string_view text) {
  if (stopped()) return "";
  bytes_.append(text.data(), text.size());
  MoveCharacters(bytes_, text_);
  size_t first_end = std::string::npos;
  size_t first_begin = 0;
  for (size_t i = 0; i < stops_.size(); ++i) {
    const size_t begin = text_.find(stops_[i]);
    if (begin == std::string::npos) continue;
    const size_t end = begin + stops_[i].size();
    if (end < first_end || (end == first_end && begin < first_begin)) {
      first_end = end;
      first_begin = begin;
      stop_ = i;
    }
  }
  const size_t n_safe = stopped() ? first_begin : text_.size() - HeldBytes();
  std::string safe = text_.substr(0, n_safe);
  text_.erase(0, n_safe);
  return safe;
}

std::string StopMatcher::Flush() {
  std::string rest;
  if (!stopped()) {
    rest = std::move(text_);
    if (!bytes_.empty()) absl::StrAppend(&rest, kReplacement);
  }
  text_.clear();
  bytes_.clear();
  stop_.reset();
  return rest;
}

// Length of the longest end of text_ that is the beginning of a stop string. A stop string is valid
// UTF-8, so this never cuts a character.
size_t StopMatcher::HeldBytes() const {
  size_t held = 0;
  for (const std::string& stop : stops_) {
    for (size_t n = std::min(stop.size() - 1, text_.size()); n > held; --n) {
      if (text_.compare(text_.size() - n, n, stop, 0, n) == 0) held = n;
    }
  }
  return held;
}

}  // namespace coterie
