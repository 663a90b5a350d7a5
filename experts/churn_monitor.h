#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"

#include "experts/base_source.h"

namespace coterie {

// Bases that push each other out of memory: what was loaded again soon after it had been evicted.
struct ChurnReport {
  bool thrashing = false;
  int64_t n_reloads = 0;      // Within ChurnMonitor::kWindow.
  double reload_share = 0;    // Part of that window spent on them, [0, 1].
  std::vector<BaseId> bases;  // Which, in order of id.
  int64_t bases_bytes = 0;    // What they occupy together.
  std::string advice;         // What to do about it; empty unless thrashing.
};

// Sees in evictions and loads whether the working set exceeds memory. Pure but for its memory;
// thread-compatible; times are the caller's and do not fall.
class ChurnMonitor {
 public:
  static constexpr absl::Duration kWindow = absl::Seconds(60);
  // Thrashing begins with so many reloads that take up so much of the window, and ends below half
  // of either, so that the state does not flicker.
  static constexpr int64_t kReloads = 4;
  static constexpr double kShare = 0.2;

  void NoteEvicted(const BaseId& base, absl::Time now);
  // Returns whether it was a reload: the base was evicted less than kWindow ago.
  bool NoteLoaded(const BaseId& base, int64_t bytes, absl::Duration took, absl::Time now);

  // `limit_bytes`: of the budget, for the advice.
  ChurnReport Report(absl::Time now, int64_t limit_bytes);

 private:
  struct Reload {
    absl::Time at;
    BaseId base;
    int64_t bytes;
    absl::Duration took;
  };

  std::map<BaseId, absl::Time> evicted_;
  std::deque<Reload> reloads_;
  bool thrashing_ = false;
};

}  // namespace coterie
