// What an ExpertCache evicts, refuses and makes wait.

#include <algorithm>
#include <atomic>
#include <future>
#include <stop_token>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "experts/expert_cache.h"
#include "tests/experts/cache_fixture.h"

namespace coterie {
namespace {

using ::coterie::testing::Eventually;
using ::coterie::testing::FakeModel;
using ::coterie::testing::IsOk;
using ::coterie::testing::StatusIs;
using ::testing::_;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

using ExpertCacheEvictionTest = ::coterie::testing::CacheFixture;

bool IsRunning(const std::future<absl::StatusOr<Lease>>& request) {
  return request.wait_for(std::chrono::milliseconds(2)) == std::future_status::timeout;
}

TEST_F(ExpertCacheEvictionTest, MakesRoomWithAnIdleBaseAndSaysWhy) {
  Warm("a");
  Warm("b");
  clock_.Advance(absl::Seconds(41));
  Warm("b");
  COTERIE_ASSERT_OK_AND_ASSIGN(const Lease lease, Acquire({"c", 20}));
  EXPECT_FALSE(IsReady("a"));
  EXPECT_TRUE(IsReady("b"));
  ASSERT_THAT(lease.origin().evictions, SizeIs(1));
  EXPECT_EQ(lease.origin().evictions[0].base, "a");
  const auto evicted = Events(CacheEvent::Kind::kEvicted);
  ASSERT_THAT(evicted, SizeIs(1));
  EXPECT_EQ(evicted[0].for_base, "c");
  EXPECT_EQ(evicted[0].bytes, 100);
  EXPECT_EQ(evicted[0].need_bytes, 70) << "120 less the 50 that were free";
  EXPECT_EQ(evicted[0].cause, EvictionCause::kRequest);
  EXPECT_THAT(evicted[0].why, AllOf(HasSubstr("H="), HasSubstr("idle 41.0 s")));
  EXPECT_EQ(cache_->Stats().n_evictions, 1);
  EXPECT_EQ(cache_->Stats().evicted_bytes, 100);
}

TEST_F(ExpertCacheEvictionTest, WhatIsCheapToHaveAgainGoesFirst) {
  source_.OnLoad([&](const BaseId& base) {
    clock_.Advance(base == "a" ? absl::Milliseconds(900) : absl::Milliseconds(100));
  });
  Warm("a");
  Warm("b");
  Warm("c");
  EXPECT_TRUE(IsReady("a")) << "older, and dearer to load";
  EXPECT_FALSE(IsReady("b"));
}

TEST_F(ExpertCacheEvictionTest, ThePolicyIsChosenByTheCaller) {
  Restart({.policy = std::make_shared<LruPolicy>()});
  source_.OnLoad([&](const BaseId& base) {
    clock_.Advance(base == "a" ? absl::Milliseconds(900) : absl::Milliseconds(100));
  });
  Warm("a");
  Warm("b");
  Warm("c");
  EXPECT_FALSE(IsReady("a"));
}

TEST_F(ExpertCacheEvictionTest, APolicyThatNamesBusyBasesIsNotObeyed) {
  class Reckless : public EvictionPolicy {
    std::vector<BaseId> PickVictims(absl::Span<const EntryView> entries, int64_t) const override {
      std::vector<BaseId> all = {"nobody"};
      for (const EntryView& entry : entries) all.insert(all.end(), 2, entry.id);
      return all;
    }
    std::string Reason(const EntryView&, absl::Time) const override { return "because"; }
  };
  Restart({.policy = std::make_shared<Reckless>()});
  COTERIE_ASSERT_OK_AND_ASSIGN(const Lease busy, Acquire({"a"}));
  Warm("b");
  COTERIE_ASSERT_OK_AND_ASSIGN(const Lease lease, Acquire({"c"}));
  EXPECT_TRUE(static_cast<const FakeModel&>(busy.model()).alive());
  EXPECT_EQ(source_.n_freed("b"), 1);
}

TEST_F(ExpertCacheEvictionTest, BytesCountAsFreeOnlyAfterTheDestructorRan) {
  Warm("a");
  Warm("b");
  std::atomic<int64_t> used_in_destructor{-1};
  std::atomic<int> n_loads_before_free{-1};
  source_.OnFreed([&](const BaseId&) {
    used_in_destructor = used_bytes();
    n_loads_before_free = source_.n_loads("c");
  });
  COTERIE_ASSERT_OK_AND_ASSIGN(const Lease lease, Acquire({"c"}));
  EXPECT_GE(used_in_destructor, 200);
  EXPECT_EQ(n_loads_before_free, 0) << "first free, then load";
  EXPECT_LE(budget_.Snapshot().peak_bytes, 250);
  source_.OnFreed(nullptr);
}

TEST_F(ExpertCacheEvictionTest, BytesFreedForARequestGoToNobodyElse) {
  Warm("a");
  Warm("b");
  int64_t stolen_bytes = 0;
  source_.OnFreed([&](const BaseId&) {
    stolen_bytes += budget_.ReserveUpTo(Purpose::kTraining, 1000).bytes();
  });
  EXPECT_THAT(Acquire({"c", 150}), IsOk()) << "needs the 50 free bytes and both bases";
  EXPECT_EQ(stolen_bytes, 0);
  source_.OnFreed(nullptr);
}

TEST_F(ExpertCacheEvictionTest, ABaseIsNotEvictedBetweenItsLoadAndItsFirstUse) {
  // The window of six peers: loaded, not used yet, wanted by its waiter, and somebody needs memory.
  budget_.SetLimit(100);
  source_.Hold("a");
  auto first = AcquireAsync({"a"});
  ASSERT_TRUE(AwaitLoading("a"));
  auto other = AcquireAsync({"b"});
  ASSERT_TRUE(AwaitWaiters(1));
  source_.Open("a");
  COTERIE_ASSERT_OK_AND_ASSIGN(Lease lease, first.get());
  EXPECT_TRUE(IsRunning(other));
  EXPECT_TRUE(static_cast<const FakeModel&>(lease.model()).alive());
  lease.Release();
  EXPECT_THAT(other.get(), IsOk());
  EXPECT_EQ(source_.n_loads("a"), 1);
}

TEST_F(ExpertCacheEvictionTest, TwoWaitersDoNotShareOneEviction) {
  budget_.SetLimit(200);
  COTERIE_ASSERT_OK_AND_ASSIGN(Lease a, Acquire({"a"}));
  COTERIE_ASSERT_OK_AND_ASSIGN(Lease b, Acquire({"b"}));
  auto c = AcquireAsync({"c"});
  ASSERT_TRUE(AwaitWaiters(1));
  auto d = AcquireAsync({"d"});
  ASSERT_TRUE(AwaitWaiters(2));
  a.Release();
  COTERIE_ASSERT_OK_AND_ASSIGN(const Lease lease_c, c.get());
  EXPECT_TRUE(IsRunning(d)) << "the room that c made is c's";
  b.Release();
  EXPECT_THAT(d.get(), IsOk());
  EXPECT_EQ(cache_->Stats().n_evictions, 2);
}

TEST_F(ExpertCacheEvictionTest, AnEvictingBaseIsNotResurrectedByWhoAsksMeanwhile) {
  budget_.SetLimit(200);
  Warm("a");
  Warm("b");
  std::promise<void> leave;
  std::shared_future<void> may_leave = leave.get_future().share();
  source_.OnFreed([may_leave](const BaseId& base) {
    if (base == "a") may_leave.wait();
  });
  auto c = AcquireAsync({"c"});
  ASSERT_TRUE(Eventually([&] { return Of("a").state == BaseState::kEvicting; }));
  EXPECT_THAT(AcquireNow({"a"}), StatusIs(absl::StatusCode::kUnavailable, _));
  auto again = AcquireAsync({"a"});
  ASSERT_TRUE(AwaitWaiters(2));
  leave.set_value();
  EXPECT_THAT(c.get(), IsOk());
  COTERIE_ASSERT_OK_AND_ASSIGN(const Lease lease, again.get());
  EXPECT_EQ(lease.origin().how, LeaseOrigin::How::kLoaded);
  EXPECT_EQ(source_.n_loads("a"), 2);
  EXPECT_FALSE(source_.loaded_twice());
  source_.OnFreed(nullptr);
}

TEST_F(ExpertCacheEvictionTest, ABusyBaseIsWaitedForAndNeverEvicted) {
  budget_.SetLimit(100);
  COTERIE_ASSERT_OK_AND_ASSIGN(Lease busy, Acquire({"a"}));
  auto other = AcquireAsync({"b"});
  ASSERT_TRUE(AwaitWaiters(1));
  EXPECT_TRUE(IsRunning(other));
  EXPECT_TRUE(static_cast<const FakeModel&>(busy.model()).alive());
  EXPECT_THAT(AcquireNow({"b"}), StatusIs(absl::StatusCode::kUnavailable, _));
  busy.Release();
  EXPECT_THAT(other.get(), IsOk());
}

TEST_F(ExpertCacheEvictionTest, WhatCanNeverFitIsRefusedAtOnceAndEvictsNothing) {
  Warm("a");
  Warm("b");
  source_.Add("huge", 300);
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(Acquire({"huge"}),
                StatusIs(absl::StatusCode::kResourceExhausted,
                         AllOf(HasSubstr("need_bytes=300"), HasSubstr("limit_bytes=250"),
                               HasSubstr("pinned_bytes=0"))));
    EXPECT_THAT(Acquire({"a", 200}),
                StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("kv_bytes=200")));
  }
  EXPECT_TRUE(IsReady("a"));
  EXPECT_TRUE(IsReady("b"));
  EXPECT_EQ(source_.n_loads("huge"), 0);
  EXPECT_EQ(cache_->Stats().n_never_fits, 6);
}

TEST_F(ExpertCacheEvictionTest, PinnedBasesAndTheRouterLowerWhatCanEverFit) {
  COTERIE_ASSERT_OK(cache_->Pin("a"));
  Warm("a");
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reservation router, budget_.Reserve(Purpose::kRouter, 30));
  EXPECT_THAT(Acquire({"b", 21}),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("pinned_bytes=100"), HasSubstr("router_bytes=30"))));
  EXPECT_THAT(Acquire({"b", 20}), IsOk());
  EXPECT_TRUE(IsReady("a"));
}

TEST_F(ExpertCacheEvictionTest, PinsAreCountedAndOutlastNothingButTheirUnpin) {
  COTERIE_ASSERT_OK(cache_->Pin("a"));
  COTERIE_ASSERT_OK(cache_->Pin("a"));
  EXPECT_EQ(source_.n_loads("a"), 0) << "a pin loads nothing";
  Warm("a");
  COTERIE_ASSERT_OK(cache_->Unpin("a"));
  EXPECT_THAT(cache_->Evict("a"), StatusIs(absl::StatusCode::kFailedPrecondition, _));
  COTERIE_ASSERT_OK(cache_->Unpin("a"));
  EXPECT_THAT(cache_->Unpin("a"), StatusIs(absl::StatusCode::kFailedPrecondition, _));
  COTERIE_EXPECT_OK(cache_->Evict("a"));
}

TEST_F(ExpertCacheEvictionTest, PinsBeyondTheBudgetAreRefusedWhenPinned) {
  COTERIE_ASSERT_OK(cache_->Pin("a"));
  COTERIE_ASSERT_OK(cache_->Pin("b"));
  EXPECT_THAT(cache_->Pin("c"),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("pinned_bytes=200")));
}

TEST_F(ExpertCacheEvictionTest, UnpinningWakesWhoWaitsForTheRoom) {
  COTERIE_ASSERT_OK(cache_->Pin("a"));
  Warm("a");
  COTERIE_ASSERT_OK_AND_ASSIGN(Lease busy, Acquire({"b"}));
  auto c = AcquireAsync({"c"});
  ASSERT_TRUE(AwaitWaiters(1));
  COTERIE_ASSERT_OK(cache_->Unpin("a"));
  EXPECT_THAT(c.get(), IsOk());
}

// Found by the random walks: such a request slept until its deadline.
TEST_F(ExpertCacheEvictionTest, APinThatLeavesNoRoomForWhoWaitsIsToldAtOnce) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const Lease busy, Acquire({"a"}));
  auto large = AcquireAsync({"b", 100});
  ASSERT_TRUE(AwaitWaiters(1));
  COTERIE_ASSERT_OK(cache_->Pin("a"));
  EXPECT_THAT(large.get(),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("pinned_bytes=100")));
}

TEST_F(ExpertCacheEvictionTest, EvictFreesIdleBasesOnly) {
  EXPECT_THAT(cache_->Evict("a"), StatusIs(absl::StatusCode::kNotFound, _));
  COTERIE_ASSERT_OK_AND_ASSIGN(Lease lease, Acquire({"a"}));
  EXPECT_THAT(cache_->Evict("a"),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("n_leases=1")));
  lease.Release();
  COTERIE_EXPECT_OK(cache_->Evict("a"));
  EXPECT_EQ(used_bytes(), 0);
  EXPECT_EQ(source_.n_freed("a"), 1);
}

TEST_F(ExpertCacheEvictionTest, ARaisedLimitWakesWhoWaits) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const Lease a, Acquire({"a"}));
  COTERIE_ASSERT_OK_AND_ASSIGN(const Lease b, Acquire({"b"}));
  auto c = AcquireAsync({"c"});
  ASSERT_TRUE(AwaitWaiters(1));
  budget_.SetLimit(300);
  EXPECT_THAT(c.get(), IsOk());
}

TEST_F(ExpertCacheEvictionTest, ALoweredLimitTurnsAWaitIntoARefusal) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const Lease a, Acquire({"a", 100}));
  auto b = AcquireAsync({"b", 100});
  ASSERT_TRUE(AwaitWaiters(1));
  budget_.SetLimit(150);
  EXPECT_THAT(b.get(), StatusIs(absl::StatusCode::kResourceExhausted, _));
  EXPECT_EQ(used_bytes(), 200) << "the lease goes on";
}

TEST_F(ExpertCacheEvictionTest, ALoweredLimitIsDrainedBeforeOthersGetRoom) {
  Warm("a");
  Warm("b");
  budget_.SetLimit(120);
  EXPECT_THAT(Acquire({"a", 20}), IsOk());
  EXPECT_EQ(source_.n_loads("a"), 1);
  EXPECT_EQ(used_bytes(), 100);
}

TEST_F(ExpertCacheEvictionTest, EvictOvershootGoesBackWithinTheLimit) {
  COTERIE_ASSERT_OK_AND_ASSIGN(Lease busy, Acquire({"a"}));
  Warm("b");
  budget_.SetLimit(150);
  cache_->EvictOvershoot();
  EXPECT_EQ(used_bytes(), 100);
  budget_.SetLimit(50);
  cache_->EvictOvershoot();
  EXPECT_EQ(used_bytes(), 100) << "what is leased stays";
  busy.Release();
  cache_->EvictOvershoot();
  EXPECT_EQ(used_bytes(), 0);
}

TEST_F(ExpertCacheEvictionTest, TheLimitMayFallWhileVictimsAreBeingFreed) {
  Warm("a");
  Warm("b");
  source_.OnFreed([&](const BaseId&) { budget_.SetLimit(90); });
  EXPECT_THAT(Acquire({"c", 100}), StatusIs(absl::StatusCode::kResourceExhausted, _));
  EXPECT_EQ(used_bytes(), 0);
  EXPECT_EQ(Of("c").state, BaseState::kAbsent);
  source_.OnFreed(nullptr);
}

TEST_F(ExpertCacheEvictionTest, ReclaimHandsOverWhatItFreedAndAllOrNothing) {
  Warm("a");
  COTERIE_ASSERT_OK_AND_ASSIGN(const Lease busy, Acquire({"b"}));
  EXPECT_THAT(cache_->Reclaim(101), IsEmpty());
  EXPECT_TRUE(IsReady("a"));
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto training,
                               budget_.ReserveAll({{Purpose::kTraining, 130}}, *cache_));
  EXPECT_FALSE(IsReady("a"));
  EXPECT_EQ(used_bytes(), 230);
}

TEST_F(ExpertCacheEvictionTest, BytesGivenBackByOthersWakeWhoWaits) {
  COTERIE_ASSERT_OK_AND_ASSIGN(Reservation training, budget_.Reserve(Purpose::kTraining, 200));
  auto a = AcquireAsync({"a"});
  ASSERT_TRUE(AwaitWaiters(1));
  training.ShrinkTo(150);
  EXPECT_THAT(a.get(), IsOk());
}

TEST_F(ExpertCacheEvictionTest, ALargeRequestIsPassedAtMostMaxBypassTimes) {
  Restart({.max_bypass = 2});
  COTERIE_ASSERT_OK_AND_ASSIGN(Lease a, Acquire({"a"}));
  auto large = AcquireAsync({"b", 60});
  ASSERT_TRUE(AwaitWaiters(1));
  EXPECT_THAT(AcquireNow({"a", 10}), IsOk());
  EXPECT_THAT(AcquireNow({"a", 10}), IsOk());
  EXPECT_THAT(AcquireNow({"a", 10}), StatusIs(absl::StatusCode::kUnavailable, _))
      << "the large request has been passed often enough";
  a.Release();
  COTERIE_ASSERT_OK_AND_ASSIGN(const Lease lease, large.get());
  EXPECT_EQ(lease.base(), "b");
}

TEST_F(ExpertCacheEvictionTest, WhoWaitsIsServedInOrderOfArrival) {
  Restart({.max_bypass = 0});
  budget_.SetLimit(100);
  COTERIE_ASSERT_OK_AND_ASSIGN(Lease a, Acquire({"a"}));
  auto b = AcquireAsync({"b"});
  ASSERT_TRUE(AwaitWaiters(1));
  auto c = AcquireAsync({"c"});
  ASSERT_TRUE(AwaitWaiters(2));
  a.Release();
  COTERIE_ASSERT_OK_AND_ASSIGN(Lease lease_b, b.get());
  EXPECT_TRUE(IsRunning(c));
  lease_b.Release();
  EXPECT_THAT(c.get(), IsOk());
}

TEST_F(ExpertCacheEvictionTest, AWaiterThatGivesUpClearsTheWayForThoseBehind) {
  Restart({.max_bypass = 0});
  COTERIE_ASSERT_OK_AND_ASSIGN(Lease a, Acquire({"a"}));
  std::stop_source stop;
  auto large = AcquireAsync({"b", 60}, stop.get_token());
  ASSERT_TRUE(AwaitWaiters(1));
  auto small = AcquireAsync({"a", 10});
  ASSERT_TRUE(AwaitWaiters(2));
  EXPECT_TRUE(IsRunning(small));
  stop.request_stop();
  EXPECT_THAT(large.get(), StatusIs(absl::StatusCode::kCancelled, _));
  EXPECT_THAT(small.get(), IsOk());
}

TEST_F(ExpertCacheEvictionTest, TwoHalfServedRequestsNeverWaitForEachOther) {
  // Each needs a base and KV; together they do not fit. Weights first and KV later would deadlock.
  const auto use_briefly = [&](const BaseId& base) { return Acquire({base, 80}).status(); };
  for (int round = 0; round < 20; ++round) {
    auto a = std::async(std::launch::async, use_briefly, "a");
    auto b = std::async(std::launch::async, use_briefly, "b");
    EXPECT_THAT(a.get(), IsOk());
    EXPECT_THAT(b.get(), IsOk());
  }
}

TEST_F(ExpertCacheEvictionTest, EveryBudgetBelowTheNeedIsRefusedCleanly) {
  cache_.reset();
  int64_t limit_bytes = 0;
  for (bool served = false; !served; ++limit_bytes) {
    MemoryBudget budget(limit_bytes);
    ExpertCache cache(budget, source_);
    const auto lease = cache.Acquire({"a", 30, 15}, absl::InfiniteFuture());
    served = lease.ok();
    if (served) continue;
    ASSERT_THAT(lease, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("need_bytes=145")));
    ASSERT_EQ(budget.Snapshot().used_bytes, 0);
    ASSERT_EQ(budget.Snapshot().peak_bytes, 0);
  }
  EXPECT_EQ(limit_bytes, 146) << "one past the first limit that was enough";
}

}  // namespace
}  // namespace coterie
