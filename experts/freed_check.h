#pragma once

#include <cstdint>

namespace coterie {

// What was resident around one eviction, in bytes.
struct FreedSample {
  int64_t promised_bytes = 0;  // The evicted charges.
  int64_t resident_before_bytes = 0;
  int64_t resident_after_bytes = 0;
  int64_t used_after_bytes = 0;  // What the ledger says is in use without them.
};

// Holds evictions to their promise. Memory fell short if less became free than was promised and
// more is resident than the ledger explains; either alone has innocent causes (pages that the
// system had taken back already; a host program that grew). One shortfall may be an accident of
// other threads. From the kPatience-th in a row on, what is missing counts as not free until a
// later sample shows it back. Thread-compatible.
class FreedCheck {
 public:
  static constexpr int kPatience = 3;
  // Below this, and below a tenth of the promise, a difference is noise: stacks, allocators, and
  // charges that are upper estimates.
  static constexpr int64_t kToleranceBytes = 16'000'000;

  // `baseline_bytes`: resident while nothing was charged.
  explicit FreedCheck(int64_t baseline_bytes = 0) : baseline_bytes_(baseline_bytes) {}

  // Returns the bytes to count as not free from now on.
  int64_t Note(const FreedSample& sample);

  // Resident bytes that neither the ledger nor the baseline explains.
  int64_t Unexplained(int64_t resident_bytes, int64_t used_bytes) const {
    return resident_bytes - baseline_bytes_ - used_bytes;
  }

  int64_t n_shortfalls() const { return n_shortfalls_; }  // All so far.

 private:
  int64_t baseline_bytes_;
  int64_t n_in_a_row_ = 0;
  int64_t missing_bytes_ = 0;  // Of those in a row.
  int64_t n_shortfalls_ = 0;
};

}  // namespace coterie
