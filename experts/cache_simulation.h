#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

#include "experts/base_source.h"

namespace coterie {

struct SimulatedBase {
  BaseId id;
  int64_t bytes = 0;
  absl::Duration load_time;
};

struct SimulatedRequest {
  absl::Duration arrival;  // Since the start of the trace; does not fall from one to the next.
  int base = 0;            // Index of a SimulatedBase.
  int64_t kv_bytes = 0;    // KV and scratch.
  absl::Duration hold;     // How long the answer takes once it has its memory.
};

// Which bases leave.
enum class SimulatedPolicy : uint8_t {
  kCoterie,  // As in the program: cheapest to have again, with holds after a load.
  kLru,      // Least recently used, no holds.
  kBelady,   // Farthest next use: knows the future. The most hits where all bases are of one size
             // (Belady 1966); near it otherwise.
};
absl::StatusOr<SimulatedPolicy> ParseSimulatedPolicy(absl::string_view name);  // "coterie", ...

struct SimulationResult {
  int64_t n_requests = 0;
  int64_t n_hits = 0;   // The base was there.
  int64_t n_joins = 0;  // It was being loaded.
  int64_t n_loads = 0;
  int64_t n_refused = 0;  // Could never fit.
  int64_t loaded_bytes = 0;
  int64_t peak_bytes = 0;
  absl::Duration mean_wait, wait_p50, wait_p99;  // For memory and load, of those not refused.
  absl::Duration length;                         // Until the last answer.

  double hit_rate() const {
    return n_requests == 0 ? 0 : static_cast<double>(n_hits) / static_cast<double>(n_requests);
  }
};

// Runs the requests through an ExpertCache of `budget_bytes` on a virtual clock: the decisions are
// those of the program, without models, memory or waiting. Deterministic. Loads of different bases
// overlap without slowing each other.
//   kInvalidArgument   an index, a size, a time or their order is wrong.
absl::StatusOr<SimulationResult> SimulateCache(absl::Span<const SimulatedBase> bases,
                                               absl::Span<const SimulatedRequest> requests,
                                               int64_t budget_bytes, SimulatedPolicy policy);

}  // namespace coterie
