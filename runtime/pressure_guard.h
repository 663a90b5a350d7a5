#pragma once

#include <cstdint>
#include <string>

#include "absl/time/time.h"

#include "runtime/free_memory.h"

namespace coterie {

struct PressureOptions {
  // Memory is short below the first or with more stalls than the first; it is plentiful again above
  // the second and with fewer stalls than the second. In between nothing changes.
  double short_share = 0.02, plenty_share = 0.05;           // Of all memory.
  int64_t short_bytes = 32 << 20, plenty_bytes = 96 << 20;  // The larger of bytes and share counts.
  double short_stalls = 0.10, plenty_stalls = 0.02;
  absl::Duration sustained = absl::Seconds(3);   // It has to be short for so long.
  absl::Duration cool_down = absl::Seconds(10);  // Between two evictions.
  // Below this part of all memory, giving up what is ours would help nobody.
  double least_share = 0.02;
};

// Decides when the experts give way to the rest of the system. Pure but for its memory;
// thread-compatible.
class PressureGuard {
 public:
  enum class Advice : uint8_t {
    kPlenty,
    kHold,   // Begin nothing that is not asked for.
    kEvict,  // Give up one idle base.
  };

  explicit PressureGuard(PressureOptions options = {}) : options_(options) {}

  // `mapped_bytes`: of model files that are mapped. Their pages count as available to the system,
  // but dropping them would only make it read them again.
  Advice Note(const MemoryRoom& room, int64_t mapped_bytes, absl::Time now);

  // The last reading in words and numbers, as the reason of an eviction.
  const std::string& why() const { return why_; }
  bool is_short() const { return short_since_ != absl::InfiniteFuture(); }

 private:
  PressureOptions options_;
  absl::Time short_since_ = absl::InfiniteFuture();
  absl::Time next_eviction_ = absl::InfinitePast();
  std::string why_;
};

}  // namespace coterie
