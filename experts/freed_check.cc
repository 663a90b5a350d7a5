#include "experts/freed_check.h"

#include <algorithm>

namespace coterie {

int64_t FreedCheck::Note(const FreedSample& sample) {
  const int64_t freed_bytes =
      std::max<int64_t>(0, sample.resident_before_bytes - sample.resident_after_bytes);
  const int64_t unexplained_bytes =
      Unexplained(sample.resident_after_bytes, sample.used_after_bytes);
  const int64_t missing_bytes = std::min(sample.promised_bytes - freed_bytes, unexplained_bytes);
  if (missing_bytes <= std::max(kToleranceBytes, sample.promised_bytes / 10)) {
    n_in_a_row_ = 0;
    missing_bytes_ = 0;
    return 0;
  }
  ++n_shortfalls_;
  ++n_in_a_row_;
  missing_bytes_ += missing_bytes;
  return n_in_a_row_ >= kPatience ? std::min(unexplained_bytes, missing_bytes_) : 0;
}

}  // namespace coterie
