#pragma once

#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "experts/expert_cache.h"
#include "experts/lease.h"

namespace coterie {

// A request to an ExpertCache that does not block: for event loops, simulations and tests on a
// clock of their own. Move-only, thread-compatible; the cache outlives it. Destruction before the
// result cancels it.
class LeaseRequest {
 public:
  LeaseRequest(LeaseRequest&&) noexcept;
  LeaseRequest& operator=(LeaseRequest&&) noexcept;
  ~LeaseRequest();

  // The lease or the error, as of ExpertCache::Acquire; none while it waits. After a result it is
  // not called again.
  std::optional<absl::StatusOr<Lease>> Poll();

  // When a Poll may bring something new although nothing happened to the cache.
  absl::Time look_again() const;

 private:
  friend class ExpertCache;
  LeaseRequest(ExpertCache& cache, std::unique_ptr<ExpertCache::Ticket> ticket);

  ExpertCache* cache_;
  std::unique_ptr<ExpertCache::Ticket> ticket_;  // Null after the result.
};

}  // namespace coterie
