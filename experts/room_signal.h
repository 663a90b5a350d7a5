#pragma once

#include <cstdint>

#include "absl/time/time.h"

#include "core/memory/memory_budget.h"
#include "core/threads/mutex.h"

namespace coterie {

// Wakes requests that wait for memory or for a load. Thread-safe. A waiter reads count(), looks at
// the world, and waits past that count: a change in between is never missed. The lock is a leaf, so
// that a reservation may be given back under any other.
class RoomSignal : public BudgetWatcher {
 public:
  uint64_t count() const {
    MutexLock lock(mutex_);
    return count_;
  }

  void Raise() {
    {
      MutexLock lock(mutex_);
      ++count_;
    }
    raised_.NotifyAll();
  }

  // Returns when count() != seen or at `deadline` (of the system clock).
  void WaitPast(uint64_t seen, absl::Time deadline) {
    MutexLock lock(mutex_);
    while (count_ == seen && raised_.WaitUntil(mutex_, deadline)) {
    }
  }

  void OnRoomChanged() override { Raise(); }

 private:
  mutable Mutex mutex_;
  CondVar raised_;
  uint64_t count_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace coterie
