#pragma once

#include <algorithm>
#include <future>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

#include "core/memory/memory_budget.h"
#include "core/threads/mutex.h"
#include "experts/expert_cache.h"
#include "tests/experts/fake_base_source.h"
#include "tests/status_matchers.h"

namespace coterie::testing {

// A clock that stands still until it is moved. Thread-safe.
class FakeClock {
 public:
  absl::Time Now() const {
    MutexLock lock(mutex_);
    return now_;
  }
  void Advance(absl::Duration duration) {
    MutexLock lock(mutex_);
    now_ += duration;
  }

 private:
  mutable Mutex mutex_;
  absl::Time now_ ABSL_GUARDED_BY(mutex_) = absl::FromUnixSeconds(1'800'000'000);
};

// A cache over fake bases a, b, c, d of 100 bytes each (10 of them tokenizer), within 250 bytes.
class CacheFixture : public ::testing::Test {
 protected:
  explicit CacheFixture(int64_t limit_bytes = 250) : budget_(limit_bytes) {
    for (const char* base : {"a", "b", "c", "d"}) source_.Add(base, 90, 10);
    Restart({});
  }

  void Restart(ExpertCache::Options options) {
    cache_.reset();
    options.clock = [this] { return clock_.Now(); };
    options.backoff_jitter = 0;
    cache_ = std::make_unique<ExpertCache>(budget_, source_, std::move(options));
    cache_->SetEventSink([this](const CacheEvent& event) {
      MutexLock lock(events_mutex_);
      events_.push_back(event);
    });
  }

  absl::StatusOr<Lease> Acquire(const Need& need,
                                absl::Duration patience = absl::InfiniteDuration(),
                                std::stop_token stop = {}) {
    return cache_->Acquire(need, clock_.Now() + patience, stop);
  }
  absl::StatusOr<Lease> AcquireNow(const Need& need) { return Acquire(need, absl::ZeroDuration()); }
  std::future<absl::StatusOr<Lease>> AcquireAsync(Need need, std::stop_token stop = {}) {
    return std::async(std::launch::async, [this, need = std::move(need), stop] {
      return Acquire(need, absl::InfiniteDuration(), stop);
    });
  }
  // Loads a base and gives its lease back.
  void Warm(const BaseId& base) { COTERIE_ASSERT_OK(Acquire({base})); }

  BaseResidency Of(const BaseId& base) const {
    for (BaseResidency& each : cache_->Snapshot().bases) {
      if (each.base == base) return each;
    }
    return {};
  }
  bool IsReady(const BaseId& base) const { return Of(base).state == BaseState::kReady; }
  bool AwaitWaiters(int64_t n) {
    return Eventually([&] { return cache_->Stats().n_waits >= n; });
  }
  bool AwaitHolders(const BaseId& base, int64_t n) {
    return Eventually([&] { return Of(base).n_leases == n; });
  }
  bool AwaitLoading(const BaseId& base) {
    return Eventually([&] { return source_.n_loading(base) == 1; });
  }
  int64_t used_bytes() const { return budget_.Snapshot().used_bytes; }

  std::vector<CacheEvent> Events(CacheEvent::Kind kind) const {
    MutexLock lock(events_mutex_);
    std::vector<CacheEvent> chosen;
    for (const CacheEvent& event : events_) {
      if (event.kind == kind) chosen.push_back(event);
    }
    return chosen;
  }

  MemoryBudget budget_;
  FakeBaseSource source_;
  FakeClock clock_;
  mutable Mutex events_mutex_;
  std::vector<CacheEvent> events_ ABSL_GUARDED_BY(events_mutex_);
  std::unique_ptr<ExpertCache> cache_;
};

}  // namespace coterie::testing
