#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "experts/base_source.h"
#include "experts/churn_monitor.h"

namespace coterie {

// Why a base left memory.
enum class EvictionCause : uint8_t {
  kRequest,    // A request needed the room.
  kKeepAlive,  // Idle for longer than its keep-alive.
  kPressure,   // The system is short of memory.
  kLimit,      // The limit was lowered.
  kReclaim,    // Another user of the budget needed the room.
  kAsked,      // By name.
};
inline constexpr int kEvictionCauseCount = 6;
absl::string_view EvictionCauseName(EvictionCause cause);  // "request", "keep_alive", ...

// One thing that happened in an ExpertCache.
struct CacheEvent {
  enum class Kind : uint8_t { kLoading, kLoaded, kEvicted, kLoadFailed };

  Kind kind = Kind::kLoading;
  uint64_t sequence = 0;  // Rises in the order of what happened; delivery may overtake.
  BaseId base;
  int64_t bytes = 0;                              // Of the base.
  int64_t done_bytes = 0;                         // kLoading: read so far.
  absl::Duration took;                            // kLoaded: the measured load time.
  EvictionCause cause = EvictionCause::kRequest;  // kEvicted.
  std::string why;          // kEvicted: why this base and for what, in words and numbers.
  BaseId for_base;          // kEvicted: whose request it made room for; empty if for none.
  int64_t need_bytes = 0;   // kEvicted: what was to become free.
  absl::Status status;      // kLoadFailed.
  absl::Duration retry_in;  // kLoadFailed: how long further requests are refused.
};

// Hears of a load or an eviction before the request that it served gets its lease or its error.
// Called with no lock held, from loading and requesting threads at the same time. Must not call the
// cache's Acquire, and returns soon: the request waits for it. It lives as long as the cache.
using CacheEventSink = std::function<void(const CacheEvent&)>;

// A base that was evicted, as told to the request it made room for.
struct Eviction {
  BaseId base;
  int64_t bytes = 0;
  std::string why;
};

// Counts since the cache began.
struct CacheStats {
  int64_t n_hits = 0;   // Leases on a base that was ready.
  int64_t n_joins = 0;  // Requests that joined a load under way.
  int64_t n_loads = 0;  // Loads that succeeded, prefetches included.
  int64_t n_failed_loads = 0;
  int64_t n_cancelled_loads = 0;  // Nobody wanted them any more.
  int64_t n_stalled_loads = 0;    // Given up because no byte arrived for too long.
  int64_t n_reloads = 0;          // Loads of what was evicted less than a minute before.
  int64_t n_prefetches = 0;       // Loads begun by Prefetch.
  int64_t n_prefetch_hits = 0;    // Of those: a request came.
  int64_t n_prefetch_wasted = 0;  // Of those: evicted, stopped or failed before one came.
  int64_t prefetch_wasted_bytes = 0;
  int64_t n_evictions = 0;
  std::array<int64_t, kEvictionCauseCount> n_evictions_by_cause{};
  absl::Duration age_at_eviction;  // Sum over all evictions of the time since the load.
  int64_t n_freed_shortfalls = 0;  // Evictions that freed less than their bytes.
  int64_t unreturned_bytes = 0;    // Now: evicted, but still resident. Not available.
  int64_t n_waits = 0;             // Requests that waited for memory.
  int64_t n_timeouts = 0;
  int64_t n_cancels = 0;
  int64_t n_never_fits = 0;
  int64_t loaded_bytes = 0;
  int64_t evicted_bytes = 0;
  int64_t peak_bytes = 0;    // Of the whole budget.
  absl::Duration wait_time;  // Of all requests, for memory and for loads.
  absl::Duration load_time;  // Of all loads that succeeded.
  int64_t n_leases = 0;      // Now.
  absl::Duration oldest_lease;
  int64_t n_waiting = 0;  // Now: for memory.
  absl::Duration oldest_wait;
  ChurnReport churn;  // Now.
};

enum class BaseState : uint8_t { kAbsent, kLoading, kReady, kEvicting };

// One base that the cache has dealt with.
struct BaseResidency {
  BaseId base;
  BaseState state = BaseState::kAbsent;
  int64_t bytes = 0;       // Charged while the state is not kAbsent.
  int64_t done_bytes = 0;  // kLoading: read so far.
  int64_t n_leases = 0;    // Requests that wait for the load included.
  int64_t n_pins = 0;
  int64_t n_uses = 0;
  absl::Time last_use = absl::InfinitePast();
  absl::Duration reload_time;  // Zero: never loaded.
  int64_t n_failures = 0;      // Failed loads since the last success.
  absl::Duration keep_alive = absl::InfiniteDuration();
};

// What is loaded at one moment, in order of id.
struct CacheSnapshot {
  std::vector<BaseResidency> bases;

  // Null: the cache has never dealt with it.
  const BaseResidency* Find(const BaseId& base) const;
};

}  // namespace coterie
