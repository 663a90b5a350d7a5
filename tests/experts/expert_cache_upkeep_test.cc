// What time brings: keep-alive, holds after a load, stalled loads, changed files, thrashing.

#include <atomic>
#include <future>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "experts/lease_request.h"
#include "tests/experts/cache_fixture.h"

namespace coterie {
namespace {

using ::coterie::testing::Eventually;
using ::coterie::testing::IsOk;
using ::coterie::testing::StatusIs;
using ::testing::_;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::SizeIs;

using ExpertCacheUpkeepTest = ::coterie::testing::CacheFixture;

TEST_F(ExpertCacheUpkeepTest, AnIdleBaseLeavesWhenItsKeepAliveHasPassed) {
  cache_->SetKeepAlive("a", absl::Minutes(5));
  Warm("a");
  Warm("b");
  clock_.Advance(absl::Minutes(5) - absl::Seconds(1));
  cache_->Tick();
  EXPECT_TRUE(IsReady("a"));
  clock_.Advance(absl::Seconds(1));
  cache_->Tick();
  EXPECT_FALSE(IsReady("a"));
  EXPECT_TRUE(IsReady("b")) << "others stay as long as nobody needs the room";
  const auto evicted = Events(CacheEvent::Kind::kEvicted);
  ASSERT_THAT(evicted, SizeIs(1));
  EXPECT_EQ(evicted[0].cause, EvictionCause::kKeepAlive);
  EXPECT_THAT(evicted[0].why, HasSubstr("idle for 5m, kept for 5m"));
}

TEST_F(ExpertCacheUpkeepTest, TheKeepAliveTimerStandsStillWhileTheBaseIsLeased) {
  Restart({.keep_alive = absl::Minutes(5)});
  COTERIE_ASSERT_OK_AND_ASSIGN(Lease lease, Acquire({"a"}));
  clock_.Advance(absl::Hours(1));
  cache_->Tick();
  EXPECT_TRUE(IsReady("a"));
  lease.Release();
  cache_->Tick();
  EXPECT_TRUE(IsReady("a")) << "it begins when the lease ends";
  clock_.Advance(absl::Minutes(5));
  cache_->Tick();
  EXPECT_FALSE(IsReady("a"));
}

// ollama and Docker users are surprised by this one: keep_alive=-1 is not a pin.
TEST_F(ExpertCacheUpkeepTest, AnEndlessKeepAliveMayStillBeEvictedUnlessPinned) {
  cache_->SetKeepAlive("a", absl::InfiniteDuration());
  Warm("a");
  clock_.Advance(absl::Hours(1000));
  cache_->Tick();
  EXPECT_TRUE(IsReady("a"));
  COTERIE_ASSERT_OK(Acquire({"b", 100}));
  EXPECT_FALSE(IsReady("a"));
}

TEST_F(ExpertCacheUpkeepTest, AKeepAliveOfZeroLetsGoAtTheNextTickAndAPinForbidsIt) {
  Restart({.keep_alive = absl::ZeroDuration()});
  COTERIE_ASSERT_OK(cache_->Pin("a"));
  Warm("a");
  Warm("b");
  cache_->Tick();
  EXPECT_TRUE(IsReady("a"));
  EXPECT_FALSE(IsReady("b"));
}

// llama-swap#946: the timer fires while a request is on its way; the request wins.
TEST_F(ExpertCacheUpkeepTest, AKeepAliveThatEndsWhileARequestWaitsForTheBaseSparesIt) {
  Restart({.keep_alive = absl::Seconds(1)});
  Warm("a");
  COTERIE_ASSERT_OK_AND_ASSIGN(Reservation others, budget_.Reserve(Purpose::kTraining, 150));
  auto request = AcquireAsync({"a", 50});
  ASSERT_TRUE(AwaitWaiters(1));
  clock_.Advance(absl::Seconds(10));
  cache_->Tick();
  EXPECT_TRUE(IsReady("a")) << "somebody wants it";
  others.Release();
  EXPECT_THAT(request.get(), IsOk());
  EXPECT_EQ(source_.n_loads("a"), 1);
}

TEST_F(ExpertCacheUpkeepTest, AnUnusedPrefetchCountsAsIdleSinceItsLoad) {
  Restart({.keep_alive = absl::Seconds(10)});
  COTERIE_ASSERT_OK(cache_->Prefetch("a"));
  ASSERT_TRUE(Eventually([&] { return IsReady("a"); }));
  clock_.Advance(absl::Seconds(9));
  cache_->Tick();
  EXPECT_TRUE(IsReady("a"));
  clock_.Advance(absl::Seconds(1));
  cache_->Tick();
  EXPECT_FALSE(IsReady("a"));
  EXPECT_EQ(cache_->Stats().n_prefetch_wasted, 1);
  EXPECT_EQ(cache_->Stats().prefetch_wasted_bytes, 100);
}

TEST_F(ExpertCacheUpkeepTest, APrefetchThatARequestMeetsIsAHitOnce) {
  COTERIE_ASSERT_OK(cache_->Prefetch("a"));
  ASSERT_TRUE(Eventually([&] { return IsReady("a"); }));
  Warm("a");
  Warm("a");
  EXPECT_EQ(cache_->Stats().n_prefetch_hits, 1);
  COTERIE_ASSERT_OK(cache_->Evict("a"));
  EXPECT_EQ(cache_->Stats().n_prefetch_wasted, 0);
}

// Two clients that take turns, each with a base of its own and room for one of them.
TEST_F(ExpertCacheUpkeepTest, ABaseWhoseNextRequestIsExpectedAtOnceIsHeldForAWhileAfterItsLoad) {
  budget_.SetLimit(150);
  source_.OnLoad([&](const BaseId&) { clock_.Advance(absl::Milliseconds(500)); });
  Warm("a");
  for (int i = 0; i < 3; ++i) {
    clock_.Advance(absl::Milliseconds(10));
    Warm("a");  // Its client comes back every 10 ms.
  }
  source_.Hold("b");
  LeaseRequest other = cache_->Begin({"b"}, absl::InfiniteFuture());
  EXPECT_FALSE(other.Poll()) << "a's next request is due";
  EXPECT_LE(other.look_again(), clock_.Now() + absl::Milliseconds(25)) << "the usual gap and some";
  clock_.Advance(absl::Milliseconds(10));
  EXPECT_THAT(AcquireNow({"a"}), IsOk()) << "and here it is, without a load";
  EXPECT_EQ(source_.n_loads("a"), 1);
  clock_.Advance(absl::Milliseconds(25));
  EXPECT_FALSE(other.Poll()) << "b's load begins, as a's client did not come back";
  EXPECT_FALSE(IsReady("a"));
  source_.Open("b");
  EXPECT_TRUE(Eventually([&] { return other.Poll().has_value(); }));
}

TEST_F(ExpertCacheUpkeepTest, AHoldEndsWithTheStayThatALoadIsWorth) {
  Restart({.max_bypass = 1000, .hold = {.load_times = 2, .longest = absl::Seconds(2)}});
  budget_.SetLimit(150);
  source_.OnLoad([&](const BaseId&) { clock_.Advance(absl::Milliseconds(500)); });
  Warm("a");
  const absl::Time loaded_at = clock_.Now();
  Warm("a");
  source_.Hold("b");
  LeaseRequest other = cache_->Begin({"b"}, absl::InfiniteFuture());
  for (int i = 0; i < 99; ++i) {
    clock_.Advance(absl::Milliseconds(10));
    EXPECT_FALSE(other.Poll());
    EXPECT_THAT(AcquireNow({"a"}), IsOk());
  }
  clock_.Advance(absl::Milliseconds(10));
  EXPECT_EQ(clock_.Now(), loaded_at + absl::Seconds(1));
  EXPECT_FALSE(other.Poll());
  EXPECT_FALSE(IsReady("a")) << "two reload times are over";
  source_.Open("b");
  EXPECT_TRUE(Eventually([&] { return other.Poll().has_value(); }));
}

TEST_F(ExpertCacheUpkeepTest, OneClientThatAlternatesIsNotDelayedByHolds) {
  budget_.SetLimit(150);
  source_.OnLoad([&](const BaseId&) { clock_.Advance(absl::Milliseconds(500)); });
  for (int i = 0; i < 10; ++i) {
    const BaseId base = i % 2 == 0 ? "a" : "b";
    source_.Hold(base);
    LeaseRequest request = cache_->Begin({base}, absl::InfiniteFuture());
    ASSERT_FALSE(request.Poll());
    EXPECT_EQ(Of(i % 2 == 0 ? "b" : "a").state, BaseState::kAbsent) << "evicted without delay";
    source_.Open(base);
    ASSERT_TRUE(Eventually([&] { return request.Poll().has_value(); }));
  }
}

TEST_F(ExpertCacheUpkeepTest, ALoadWithoutProgressIsGivenUpAndStaysChargedWhileItLives) {
  Restart({.stall_after = absl::Seconds(30)});
  // A source that does not look at its stop token until it is let go.
  std::promise<void> let_go;
  std::shared_future<void> may_go = let_go.get_future().share();
  source_.OnLoad([may_go](const BaseId&) { may_go.wait(); });
  auto first = AcquireAsync({"a", 10});
  auto second = AcquireAsync({"a", 10});
  ASSERT_TRUE(AwaitHolders("a", 2));
  ASSERT_TRUE(AwaitLoading("a"));
  clock_.Advance(absl::Seconds(29));
  cache_->Tick();
  EXPECT_EQ(cache_->Stats().n_stalled_loads, 0);
  clock_.Advance(absl::Seconds(1));
  cache_->Tick();
  for (auto* request : {&first, &second}) {
    EXPECT_THAT(request->get(), StatusIs(absl::StatusCode::kUnavailable,
                                         AllOf(HasSubstr("no byte arrived"), HasSubstr("base=a"))));
  }
  EXPECT_EQ(used_bytes(), 100) << "its thread may still be writing";
  EXPECT_EQ(cache_->Stats().n_stalled_loads, 1);
  source_.OnLoad(nullptr);
  let_go.set_value();
  EXPECT_TRUE(Eventually([&] { return used_bytes() == 0; }));
  EXPECT_THAT(Acquire({"a"}), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("n_failures=1")));
}

TEST_F(ExpertCacheUpkeepTest, AChangedFileIsTriedAtOnce) {
  source_.FailNext("a", absl::DataLossError("torn"));
  EXPECT_THAT(Acquire({"a"}), StatusIs(absl::StatusCode::kDataLoss, "torn"));
  EXPECT_THAT(Acquire({"a"}), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("next_attempt_in")));
  source_.Change("a");
  EXPECT_THAT(Acquire({"a"}), IsOk());
}

TEST_F(ExpertCacheUpkeepTest, BackoffsOfDifferentBasesEndAtDifferentTimesWithinTheirCeiling) {
  MemoryBudget budget(1000);
  std::vector<absl::Duration> backoffs;
  ExpertCache cache(budget, source_, {.max_backoff = absl::Seconds(1), .backoff_jitter = 0.5});
  cache.SetEventSink([&](const CacheEvent& event) {
    if (event.kind == CacheEvent::Kind::kLoadFailed) backoffs.push_back(event.retry_in);
  });
  for (const char* base : {"a", "b", "c"}) {
    source_.FailNext(base, absl::DataLossError("torn"));
    EXPECT_THAT(cache.Acquire({base}, absl::InfiniteFuture()),
                StatusIs(absl::StatusCode::kDataLoss, _));
  }
  ASSERT_THAT(backoffs, SizeIs(3));
  for (const absl::Duration backoff : backoffs) {
    EXPECT_LE(backoff, absl::Milliseconds(500));
    EXPECT_GE(backoff, absl::Milliseconds(250));
  }
  EXPECT_FALSE(backoffs[0] == backoffs[1] && backoffs[1] == backoffs[2]);
}

TEST_F(ExpertCacheUpkeepTest, ALoweredLimitIsReachedAsLeasesEnd) {
  COTERIE_ASSERT_OK_AND_ASSIGN(Lease busy, Acquire({"a"}));
  budget_.SetLimit(50);
  cache_->Tick();
  EXPECT_EQ(used_bytes(), 100);
  busy.Release();
  cache_->Tick();
  EXPECT_EQ(used_bytes(), 0);
  EXPECT_EQ(cache_->Stats().n_evictions_by_cause[static_cast<size_t>(EvictionCause::kLimit)], 1);
}

TEST_F(ExpertCacheUpkeepTest, PressureEvictsOneIdleBaseAtATime) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const Lease busy, Acquire({"a"}));
  Warm("b");
  EXPECT_EQ(cache_->EvictOne("memory is short"), 100);
  EXPECT_FALSE(IsReady("b"));
  EXPECT_EQ(cache_->EvictOne("memory is short"), 0) << "what is leased stays";
  EXPECT_THAT(Events(CacheEvent::Kind::kEvicted).at(0).why, HasSubstr("memory is short"));
}

TEST_F(ExpertCacheUpkeepTest, WhatEvictionsRepeatedlyDoNotFreeIsNotHandedOutUntilItIsBack) {
  constexpr int64_t kMb = 1'000'000;
  for (const char* base : {"p", "q", "r", "s"}) source_.Add(base, 100 * kMb);
  std::atomic<int64_t> resident_bytes{0};
  source_.OnLoad([&](const BaseId&) { resident_bytes += 100 * kMb; });
  source_.OnFreed([&](const BaseId&) { resident_bytes -= 60 * kMb; });  // 40 stay behind.
  MemoryBudget budget(250 * kMb);
  {
    ExpertCache cache(budget, source_,
                      {.policy = std::make_shared<LruPolicy>(),
                       .resident_bytes = [&] { return resident_bytes.load(); }});
    const auto warm = [&](const BaseId& base) {
      return cache.Acquire({base}, absl::InfiniteFuture()).status();
    };
    for (const char* base : {"p", "q", "r", "s"}) COTERIE_ASSERT_OK(warm(base));
    EXPECT_EQ(cache.Stats().n_freed_shortfalls, 2);
    EXPECT_EQ(cache.Stats().unreturned_bytes, 0) << "twice may be an accident";
    (void)warm("p");
    EXPECT_GE(cache.Stats().n_freed_shortfalls, 3);
    EXPECT_GE(cache.Stats().unreturned_bytes, 100 * kMb);
    const BudgetSnapshot ledger = budget.Snapshot();
    EXPECT_GT(ledger.bytes_by_purpose[static_cast<size_t>(Purpose::kUnreturned)], 0);
    EXPECT_LE(ledger.used_bytes, ledger.limit_bytes);
    resident_bytes = budget.Snapshot().used_bytes - cache.Stats().unreturned_bytes;
    cache.Tick();
    EXPECT_EQ(cache.Stats().unreturned_bytes, 0);
    EXPECT_THAT(warm("q"), IsOk());
  }
  source_.OnFreed(nullptr);
  EXPECT_EQ(budget.Snapshot().used_bytes, 0);
}

TEST_F(ExpertCacheUpkeepTest, ThrashingIsReportedWithAdvice) {
  budget_.SetLimit(150);
  source_.OnLoad([&](const BaseId&) { clock_.Advance(absl::Seconds(3)); });
  for (int i = 0; i < 10; ++i) Warm(i % 2 == 0 ? "a" : "b");
  const CacheStats stats = cache_->Stats();
  EXPECT_EQ(stats.n_reloads, 8);
  EXPECT_TRUE(stats.churn.thrashing);
  EXPECT_THAT(stats.churn.advice, HasSubstr("a, b push each other out"));
}

TEST_F(ExpertCacheUpkeepTest, StatsTellOfLeasesAndWaitsWithTheirAges) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const Lease a, Acquire({"a"}));
  clock_.Advance(absl::Seconds(5));
  COTERIE_ASSERT_OK_AND_ASSIGN(const Lease b, Acquire({"b"}));
  LeaseRequest waiting = cache_->Begin({"c"}, absl::InfiniteFuture());
  EXPECT_FALSE(waiting.Poll());
  clock_.Advance(absl::Seconds(2));
  const CacheStats stats = cache_->Stats();
  EXPECT_EQ(stats.n_leases, 2);
  EXPECT_EQ(stats.oldest_lease, absl::Seconds(7));
  EXPECT_EQ(stats.n_waiting, 1);
  EXPECT_EQ(stats.oldest_wait, absl::Seconds(2));
}

}  // namespace
}  // namespace coterie
