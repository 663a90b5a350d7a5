#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/time/time.h"

#include "core/memory/memory_budget.h"
#include "experts/base_source.h"
#include "experts/cache_events.h"

namespace coterie {

class ExpertCache;

// How a request came by its base.
struct LeaseOrigin {
  enum class How : uint8_t {
    kHit,     // It was ready.
    kJoined,  // Another request's load or a prefetch was under way.
    kLoaded,  // This request began the load.
  };

  How how = How::kHit;
  absl::Duration wait_time;         // From Acquire to the lease.
  absl::Duration load_time;         // Of the load joined or begun; zero for a hit.
  int64_t loaded_bytes = 0;         // Read for this request: zero unless kLoaded.
  std::vector<Eviction> evictions;  // What made room for this request.
};

// The use of one base, with the KV and scratch bytes of one request. While it lives the base stays
// loaded. The destructor gives everything back together. A value: move-only, thread-compatible, and
// it may die on another thread than it was acquired on. The cache outlives its leases.
class Lease {
 public:
  Lease() = default;  // Empty: model() and base() must not be called.
  Lease(Lease&& other) noexcept;
  Lease& operator=(Lease&& other) noexcept;
  ~Lease();

  explicit operator bool() const { return cache_ != nullptr; }
  const BaseId& base() const { return base_; }
  const BaseModel& model() const { return *model_; }
  const LeaseOrigin& origin() const { return origin_; }

  // May be shrunk or split; what is split off must be gone before the lease is.
  Reservation& kv() { return kv_; }
  Reservation& scratch() { return scratch_; }

  // Gives everything back now. Buffers that kv() and scratch() paid for are freed before.
  void Release();

 private:
  friend class ExpertCache;

  ExpertCache* cache_ = nullptr;
  BaseId base_;
  const BaseModel* model_ = nullptr;
  Reservation kv_;
  Reservation scratch_;
  LeaseOrigin origin_;
  absl::Time start_;
};

}  // namespace coterie
