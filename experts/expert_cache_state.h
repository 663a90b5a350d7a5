#pragma once

// The private parts of ExpertCache, shared by its source files only.

#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <list>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "experts/expert_cache.h"

namespace coterie {

inline int64_t SaturatingSum(std::initializer_list<int64_t> parts) {
  int64_t sum = 0;
  for (int64_t part : parts) {
    if (__builtin_add_overflow(sum, part, &sum)) return std::numeric_limits<int64_t>::max();
  }
  return sum;
}

// A status for another thread. Sharing one would be sound, but where Abseil is not instrumented
// ThreadSanitizer does not see its reference count.
inline absl::Status CopyForOthers(const absl::Status& status) {
  return absl::Status(status.code(), status.message());
}

// One base. Everything is guarded by the cache's mutex_.
struct ExpertCache::Entry {
  EntryView View() const {
    return {.id = id,
            .bytes = footprint.total_bytes(),
            .last_use = last_use,
            .n_uses = n_uses,
            .recent_uses = recent_uses,
            .reload_time = reload_time,
            .loaded_at = loaded_at,
            .reuse_gap = reuse_gap,
            .idle = false,
            .pinned = n_pins > 0};
  }

  BaseId id;
  BaseFootprint footprint;
  BaseState state = BaseState::kAbsent;
  std::shared_ptr<const BaseModel> model;  // While kReady.
  std::shared_ptr<LoadJob> job;            // While kLoading.
  Reservation weights;                     // While kLoading and kReady.
  Reservation tokenizer;
  int64_t n_leases = 0;  // Leases, and requests that wait for the load.
  int64_t n_pins = 0;
  int64_t n_uses = 0;
  double recent_uses = 0;
  absl::Time last_use = absl::InfinitePast();
  absl::Duration reload_time;
  absl::Time loaded_at = absl::InfinitePast();
  absl::Duration reuse_gap = absl::InfiniteDuration();
  bool unused_prefetch = false;  // Loaded or being loaded by a prefetch that no request met yet.
  int64_t n_failures = 0;
  absl::Time retry_at = absl::InfinitePast();
  absl::Status failure;
};

// One load. Shared by its thread and the requests that wait for it.
struct ExpertCache::LoadJob {
  Entry* entry = nullptr;
  BaseId base;
  int64_t bytes = 0;
  std::stop_source stop;
  std::atomic<int64_t> done_bytes{0};
  std::atomic<bool> ended{false};  // Its thread is about to return.

  // Guarded by the cache's mutex_.
  bool prefetch = false;
  bool abandoned = false;  // Being stopped: nobody joins any more.
  absl::Time last_progress;
  bool done = false;
  bool never_began = false;  // Done without an attempt: who waits starts over.
  absl::Status status;
  absl::Status stalled;  // Not ok: who waits gets this, though the load has not ended.
  absl::Duration took;
};

// A base held for one request, and the bytes charged for it.
struct ExpertCache::Claim {
  Entry* entry = nullptr;
  std::shared_ptr<LoadJob> job;  // Null for a base that was ready.
  LeaseOrigin::How how = LeaseOrigin::How::kHit;
  Reservation kv;
  Reservation scratch;
  std::vector<Eviction> evictions;

  bool begins_load() const { return how == LeaseOrigin::How::kLoaded; }
  // Takes what the request charged, in the order of ExpertCache::ChargeLocked.
  void Attach(std::vector<Reservation> charged);
  // Takes the hold on the base back. After a failed load there is none any more.
  void DropHold();
};

// One request while it waits.
struct ExpertCache::Ticket {
  Need need;
  absl::Time deadline;
  std::stop_token stop;
  absl::Time arrival;

  bool try_once() const { return deadline <= arrival; }

  std::optional<BaseFootprint> footprint = {};  // Measured for this request.
  std::optional<Claim> claim = {};              // While it waits for the load.
  absl::Time look_again = deadline;
  // Guarded by the cache's mutex_.
  uint64_t number = 0;  // Order of arrival, from 1.
  int n_bypassed = 0;
  bool queued = false;
};

// A base that is leaving: taken out of its entry, not yet freed.
struct ExpertCache::Victim {
  Entry* entry = nullptr;
  std::shared_ptr<const BaseModel> model;
  std::vector<Reservation> charges;
  CacheEvent event;
  absl::Duration age;  // Since its load.
};

// What a look at the world led to.
struct ExpertCache::Attempt {
  enum class Next : uint8_t { kWait, kAgain, kMeasure, kClaimed, kFailed };

  Next next = Next::kWait;
  absl::Status status = {};                  // kFailed.
  Claim claim = {};                          // kClaimed.
  std::vector<Victim> victims = {};          // To free before the claim is charged.
  int64_t expendable_bytes = 0;              // To free beside them.
  std::vector<Reservation> given = {};       // What pays for the claim, victims aside.
  std::vector<Charge> charges = {};          // What the claim costs.
  std::vector<std::stop_source> stops = {};  // Loads to stop once the mutex is released.
};

}  // namespace coterie
