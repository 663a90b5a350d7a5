#include "runtime/pressure_guard.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "core/base/byte_size.h"

namespace coterie {

PressureGuard::Advice PressureGuard::Note(const MemoryRoom& room, int64_t mapped_bytes,
                                          absl::Time now) {
  const double total = static_cast<double>(room.total_bytes);
  const auto at_least = [&](double share, int64_t bytes) {
    return std::max(static_cast<int64_t>(share * total), bytes);
  };
  const int64_t left_bytes = room.available_bytes - std::min(mapped_bytes, room.file_bytes);
  const double stalls = room.stalled_share.value_or(0);
  const bool is_low = left_bytes < at_least(options_.short_share, options_.short_bytes) ||
                      stalls > options_.short_stalls;
  const bool is_high = left_bytes > at_least(options_.plenty_share, options_.plenty_bytes) &&
                       stalls < options_.plenty_stalls;
  if (is_low) short_since_ = std::min(short_since_, now);
  if (is_high) short_since_ = absl::InfiniteFuture();
  why_ = absl::StrCat("memory is short: ", FormatBytes(std::max<int64_t>(0, left_bytes)), " of ",
                      FormatBytes(room.total_bytes), " left, stalled ",
                      absl::StrFormat("%.0f %%", 100 * stalls));
  if (!is_short()) return Advice::kPlenty;
  const bool ours_matter = static_cast<double>(mapped_bytes) >= options_.least_share * total;
  // In the dead band nothing more is given up.
  if (!is_low || !ours_matter || now - short_since_ < options_.sustained || now < next_eviction_) {
    return Advice::kHold;
  }
  next_eviction_ = now + options_.cool_down;
  return Advice::kEvict;
}

}  // namespace coterie
