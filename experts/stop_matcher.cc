#include "experts/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/formats/utf8.h"

namespace coterie {
namespace {

constexpr size_t kMaxStops = 64;
constexpr size_t kMaxStopBytes = 1024;

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
    if (FindInvalidUtf8(stop) != stop.size())
      return absl::InvalidArgumentError("a stop string is not UTF-8");
  }
  return StopMatcher(std::vector<std::string>(stops.begin(), stops.end()));
}

std::string StopMatcher::Append(absl::string_view text) {
  if (stopped()) return "";
  bytes_.append(text.data(), text.size());
  const size_t n_unfinished = AppendRepaired(bytes_, /*is_all=*/false, &text_);
  bytes_.erase(0, bytes_.size() - n_unfinished);
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
    AppendRepaired(bytes_, /*is_all=*/true, &rest);
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
