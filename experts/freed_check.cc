#include "experts/freed_check.h"

#include <algorithm>

namespace coterie {

int64_t FreedCheck::Note(const FreedSample& sample) {
  const int64_t freed_bytes =
      std::max<int64_t>(0, sample.resident_before_bytes - sample.resident_after_bytes);
  const int64_t unexplained_bytes =
      Unexplained(sample.resident_after_bytes, sample.used_after_bytes);
  const int64_t missing_bytes = std::min(sample.promised_bytes - freed_bytes, unexplained_bytes);
  if (missing_bytes <= kToleranceBytes) {
    n_in_a_row_ = 0;
    return 0;
  }
  ++n_shortfalls_;
  ++n_in_a_row_;
  // All that the ledger does not explain: earlier shortfalls are part of it.
  return n_in_a_row_ >= kPatience ? unexplained_bytes : 0;
}

}  // namespace coterie
