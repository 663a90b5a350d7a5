#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/time/clock.h"
#include "absl/time/time.h"

#include "experts/base_source.h"
#include "experts/eviction_policy.h"
#include "experts/expendable_memory.h"

namespace coterie {

struct ExpertCacheOptions {
  std::shared_ptr<const EvictionPolicy> policy = {};  // Null: ReloadCostPolicy.
  std::function<absl::Time()> clock = &absl::Now;     // Does not block.
  int max_bypass = 8;                                 // How often a waiting request may be passed.
  absl::Duration first_backoff = absl::Milliseconds(500);
  absl::Duration max_backoff = absl::Seconds(60);
  // Part of a backoff that may be taken off it, so that what failed together is not tried again
  // together. Depends on the base and the number of failures only.
  double backoff_jitter = 0.2;
  absl::Duration max_bypass_wait = absl::Seconds(10);  // Nobody passes who has waited longer.
  HoldOptions hold = {};
  // Idle bases are let go after so long; one's own is set by SetKeepAlive. It starts when the last
  // lease ends. InfiniteDuration: they stay, but may still be evicted for others.
  absl::Duration keep_alive = absl::InfiniteDuration();
  absl::Duration stall_after = absl::Seconds(60);  // A load without progress is given up.
  // Runs the load of a base. Null: each on a thread of its own. One that keeps the load and runs it
  // later, once, makes the cache deterministic.
  std::function<void(const BaseId& base, std::function<void()> load)> run_load = {};
  // Resident bytes of the process, to hold evictions to their promise (see FreedCheck). Null: they
  // are believed.
  std::function<int64_t()> resident_bytes = {};
  // Called, with no lock held, whenever a request has to wait for memory: whoever holds some that
  // it can do without gives it back. Null: nobody does.
  std::function<void()> on_wait = {};
  // Pays for requests before any base is evicted. Outlives the cache. Null: there is none.
  ExpendableMemory* expendable = nullptr;
  // Called after bases were freed: gives freed memory back to the system. Null: nothing.
  std::function<void()> trim = {};
};

}  // namespace coterie
