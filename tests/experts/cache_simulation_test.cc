#include "experts/cache_simulation.h"

#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::StatusIs;
using ::testing::HasSubstr;

std::vector<SimulatedBase> Bases(int n, absl::Duration load_time = absl::Seconds(1)) {
  std::vector<SimulatedBase> bases;
  for (int i = 0; i < n; ++i) bases.push_back({absl::StrCat("b", i), 100, load_time});
  return bases;
}

// One request every `gap`, on the bases named.
std::vector<SimulatedRequest> Trace(const std::vector<int>& bases, absl::Duration gap,
                                    absl::Duration hold = absl::Milliseconds(100)) {
  std::vector<SimulatedRequest> requests;
  for (const int base : bases) {
    requests.push_back({static_cast<int64_t>(requests.size()) * gap, base, 10, hold});
  }
  return requests;
}

SimulationResult Simulated(const std::vector<SimulatedBase>& bases,
                           const std::vector<SimulatedRequest>& requests, int64_t budget_bytes,
                           SimulatedPolicy policy = SimulatedPolicy::kCoterie) {
  auto result = SimulateCache(bases, requests, budget_bytes, policy);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.value_or(SimulationResult());
}

std::vector<int> Cyclic(int n_bases, int n) {
  std::vector<int> bases;
  for (int i = 0; i < n; ++i) bases.push_back(i % n_bases);
  return bases;
}

TEST(CacheSimulationTest, AFirstRequestWaitsForItsLoadAndALaterOneDoesNot) {
  const SimulationResult result = Simulated(Bases(1), Trace({0, 0, 0}, absl::Seconds(10)), 200);
  EXPECT_EQ(result.n_requests, 3);
  EXPECT_EQ(result.n_hits, 2);
  EXPECT_EQ(result.n_loads, 1);
  EXPECT_EQ(result.loaded_bytes, 100);
  EXPECT_EQ(result.peak_bytes, 110);
  EXPECT_EQ(result.wait_p50, absl::ZeroDuration());
  EXPECT_EQ(result.mean_wait, absl::Seconds(1) / 3);
  EXPECT_EQ(result.length, absl::Seconds(20) + absl::Milliseconds(100));
}

TEST(CacheSimulationTest, RequestsDuringALoadJoinIt) {
  const SimulationResult result =
      Simulated(Bases(1), Trace({0, 0, 0}, absl::Milliseconds(100)), 200);
  EXPECT_EQ(result.n_joins, 2);
  EXPECT_EQ(result.n_loads, 1);
}

// The cliff of every peer that is plain LRU: one base more than fits, asked for in turns.
TEST(CacheSimulationTest, CyclicRequestsOneOverCapacityNeverHitUnderLruAndSometimesUnderBelady) {
  const auto trace = Trace(Cyclic(4, 400), absl::Seconds(10));
  EXPECT_EQ(Simulated(Bases(4), trace, 320, SimulatedPolicy::kLru).n_hits, 0);
  const SimulationResult belady = Simulated(Bases(4), trace, 320, SimulatedPolicy::kBelady);
  EXPECT_GT(belady.hit_rate(), 0.6) << "two of three stay, in turns";
  EXPECT_EQ(Simulated(Bases(4), trace, 420, SimulatedPolicy::kLru).n_hits, 396) << "over the cliff";
}

TEST(CacheSimulationTest, NobodyHitsMoreThanBeladyOnBasesOfOneSize) {
  std::mt19937 random(3);
  for (int round = 0; round < 20; ++round) {
    std::vector<int> bases;
    for (int i = 0; i < 300; ++i) {  // A few favourites.
      bases.push_back(static_cast<int>(std::min(random() % 6, random() % 6)));
    }
    const auto trace = Trace(bases, absl::Seconds(5));
    const int64_t budget_bytes = 120 + 100 * (round % 5);
    const int64_t best = Simulated(Bases(6), trace, budget_bytes, SimulatedPolicy::kBelady).n_hits;
    EXPECT_GE(best, Simulated(Bases(6), trace, budget_bytes, SimulatedPolicy::kLru).n_hits);
    EXPECT_GE(best, Simulated(Bases(6), trace, budget_bytes, SimulatedPolicy::kCoterie).n_hits);
  }
}

TEST(CacheSimulationTest, WhatIsDearToLoadStaysWhereLruWouldLetItGo) {
  std::vector<SimulatedBase> bases = Bases(4, absl::Milliseconds(100));
  bases[0].load_time = absl::Seconds(10);
  const auto trace = Trace(Cyclic(4, 200), absl::Seconds(15));
  EXPECT_LT(Simulated(bases, trace, 320).mean_wait,
            Simulated(bases, trace, 320, SimulatedPolicy::kLru).mean_wait / 5);
}

// Two clients, each with a base of its own and an answer to the next request at once.
TEST(CacheSimulationTest, TwoBasesInTurnsAreServedInBatchesAndNotByALoadEach) {
  std::vector<SimulatedRequest> trace;
  for (int i = 0; i < 400; ++i) {
    trace.push_back({i * absl::Milliseconds(50), i % 2, 10, absl::Milliseconds(10)});
  }
  const SimulationResult ours = Simulated(Bases(2, absl::Milliseconds(800)), trace, 150);
  const SimulationResult lru =
      Simulated(Bases(2, absl::Milliseconds(800)), trace, 150, SimulatedPolicy::kLru);
  EXPECT_LT(ours.n_loads, lru.n_loads);
  EXPECT_LT(ours.wait_p99, absl::Seconds(10)) << "and nobody waits for ever";
}

TEST(CacheSimulationTest, TheSameTraceGivesTheSameResult) {
  const auto trace = Trace(Cyclic(5, 200), absl::Milliseconds(700));
  const SimulationResult first = Simulated(Bases(5), trace, 320);
  const SimulationResult again = Simulated(Bases(5), trace, 320);
  EXPECT_EQ(first.n_hits, again.n_hits);
  EXPECT_EQ(first.mean_wait, again.mean_wait);
  EXPECT_EQ(first.length, again.length);
}

TEST(CacheSimulationTest, WhatNeverFitsIsRefusedAndCounted) {
  std::vector<SimulatedBase> bases = Bases(2);
  bases[1].bytes = 500;
  const SimulationResult result = Simulated(bases, Trace({0, 1, 0}, absl::Seconds(5)), 200);
  EXPECT_EQ(result.n_refused, 1);
  EXPECT_EQ(result.n_hits, 1);
}

TEST(CacheSimulationTest, NonsenseIsRefused) {
  const auto run = [](std::vector<SimulatedRequest> requests, int64_t budget_bytes = 100) {
    return SimulateCache(Bases(1), requests, budget_bytes, SimulatedPolicy::kLru).status();
  };
  EXPECT_THAT(run({}, 0), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("budget")));
  EXPECT_THAT(run({{absl::ZeroDuration(), 1, 0, absl::ZeroDuration()}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("base=1")));
  EXPECT_THAT(run({{absl::Seconds(2), 0, 0, {}}, {absl::Seconds(1), 0, 0, {}}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("request=1")));
  EXPECT_THAT(ParseSimulatedPolicy("fifo"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("\"fifo\"")));
}

}  // namespace
}  // namespace coterie
