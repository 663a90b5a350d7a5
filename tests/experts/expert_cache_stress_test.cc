// Many threads, few bytes: whatever happens, the laws hold. Meant for ThreadSanitizer too.

#include <atomic>
#include <random>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"

#include "core/memory/memory_budget.h"
#include "experts/expert_cache.h"
#include "tests/experts/fake_base_source.h"

namespace coterie {
namespace {

using ::coterie::testing::FakeBaseSource;
using ::coterie::testing::FakeModel;

constexpr int kBases = 6;
constexpr int kThreads = 6;
// Fewer leases say nothing: a loaded machine runs on until there are so many.
constexpr int kLeastLeases = 20;
constexpr int64_t kLimitBytes = 300;
constexpr absl::Duration kRunTime = absl::Milliseconds(700);

struct Tally {
  std::atomic<int64_t> n_requests{0};
  std::atomic<int64_t> n_leases{0};
  std::atomic<int64_t> n_dead_models{0};
  std::atomic<int64_t> n_odd_errors{0};
  std::atomic<int64_t> n_over_limit{0};
};

bool IsExpected(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kDataLoss:
      return true;
    default:
      return false;
  }
}

void MakeOneRequest(ExpertCache& cache, std::mt19937& random, Tally& tally) {
  const Need need{absl::StrCat("base", random() % kBases), static_cast<int64_t>(random() % 80),
                  static_cast<int64_t>(random() % 20)};
  std::stop_source stop;
  std::jthread canceller;
  if (random() % 8 == 0) {
    canceller = std::jthread([stop]() mutable { stop.request_stop(); });
  }
  const absl::Time deadline =
      random() % 4 == 0 ? absl::InfiniteFuture()
                        : absl::Now() + absl::Microseconds(static_cast<int64_t>(random() % 4000));
  ++tally.n_requests;
  auto lease = cache.Acquire(need, deadline, stop.get_token());
  if (!lease.ok()) {
    tally.n_odd_errors += !IsExpected(lease.status());
    return;
  }
  ++tally.n_leases;
  const auto& model = static_cast<const FakeModel&>(lease->model());
  for (uint32_t i = random() % 4; i > 0; --i) {
    if (!model.alive() || model.base() != need.base) ++tally.n_dead_models;
    std::this_thread::yield();
  }
}

void DoSomethingElse(ExpertCache& cache, FakeBaseSource& source, std::mt19937& random) {
  const BaseId base = absl::StrCat("base", random() % kBases);
  switch (random() % 5) {
    case 0:
      (void)cache.Prefetch(base);
      break;
    case 1:
      (void)cache.Evict(base);
      break;
    case 2:
      (void)cache.Reclaim(static_cast<int64_t>(random() % 150));
      break;
    case 3:
      if (cache.Pin(base).ok()) (void)cache.Unpin(base);
      break;
    default:
      source.FailNext(base, absl::DataLossError("scripted"));
  }
}

class ExpertCacheStressTest : public ::testing::TestWithParam<int> {};

TEST_P(ExpertCacheStressTest, EveryRequestEndsWithinTheLawsOfTheCache) {
  MemoryBudget budget(kLimitBytes);
  FakeBaseSource source;
  for (int i = 0; i < kBases; ++i) source.Add(absl::StrCat("base", i), 60 + 20 * i, 5);
  Tally tally;
  {
    ExpertCache cache(budget, source,
                      {.max_bypass = GetParam(),
                       .first_backoff = absl::Microseconds(100),
                       .max_backoff = absl::Milliseconds(1)});
    cache.SetEventSink([&](const CacheEvent&) { (void)cache.Snapshot(); });
    std::vector<std::jthread> threads;
    const absl::Time end = absl::Now() + kRunTime;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        std::mt19937 random(static_cast<uint32_t>(1000 * GetParam() + t));
        while (absl::Now() < end || tally.n_leases <= kLeastLeases) {
          MakeOneRequest(cache, random, tally);
          if (random() % 4 == 0) DoSomethingElse(cache, source, random);
          const BudgetSnapshot ledger = budget.Snapshot();
          tally.n_over_limit += ledger.used_bytes > ledger.limit_bytes;
        }
      });
    }
    threads.clear();
    for (const BaseResidency& base : cache.Snapshot().bases) {
      EXPECT_EQ(base.n_leases, 0) << base.base;
      EXPECT_EQ(base.n_pins, 0) << base.base;
    }
    EXPECT_GT(cache.Stats().n_evictions, 0);
    EXPECT_LE(cache.Stats().peak_bytes, kLimitBytes);
  }
  EXPECT_EQ(tally.n_dead_models, 0);
  EXPECT_EQ(tally.n_odd_errors, 0);
  EXPECT_EQ(tally.n_over_limit, 0);
  EXPECT_FALSE(source.loaded_twice());
  EXPECT_EQ(budget.Snapshot().used_bytes, 0);
  EXPECT_GT(tally.n_leases, kLeastLeases);
  RecordProperty("n_requests", static_cast<int>(tally.n_requests));
  RecordProperty("n_leases", static_cast<int>(tally.n_leases));
}

INSTANTIATE_TEST_SUITE_P(MaxBypass, ExpertCacheStressTest, ::testing::Values(0, 1, 8));

TEST(ExpertCacheLimitStressTest, ALimitThatMovesAllTheTimeLosesNoWakeUpAndNoByte) {
  MemoryBudget budget(kLimitBytes);
  FakeBaseSource source;
  for (int i = 0; i < kBases; ++i) source.Add(absl::StrCat("base", i), 60 + 20 * i, 5);
  Tally tally;
  {
    ExpertCache cache(budget, source, {.first_backoff = absl::ZeroDuration()});
    const absl::Time end = absl::Now() + kRunTime;
    std::vector<std::jthread> threads;
    threads.emplace_back([&] {
      std::mt19937 random(5);
      while (absl::Now() < end) {
        budget.SetLimit(static_cast<int64_t>(random() % (kLimitBytes + 1)));
        if (random() % 3 == 0) cache.EvictOvershoot();
        std::this_thread::yield();
      }
      budget.SetLimit(kLimitBytes);  // Nobody waits for ever now.
    });
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&, t] {
        std::mt19937 random(static_cast<uint32_t>(77 + t));
        while (absl::Now() < end || tally.n_leases == 0) MakeOneRequest(cache, random, tally);
      });
    }
    threads.clear();
  }
  EXPECT_EQ(tally.n_dead_models, 0);
  EXPECT_EQ(tally.n_odd_errors, 0);
  EXPECT_FALSE(source.loaded_twice());
  EXPECT_EQ(budget.Snapshot().used_bytes, 0);
  EXPECT_GT(tally.n_leases, 0);
}

}  // namespace
}  // namespace coterie
