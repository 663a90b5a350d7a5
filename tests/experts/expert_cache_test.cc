// Requests, loads and leases. What is evicted: expert_cache_eviction_test.cc.

#include "experts/expert_cache.h"

#include <future>
#include <stop_token>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

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

using ExpertCacheTest = ::coterie::testing::CacheFixture;

const FakeModel& ModelOf(const Lease& lease) {
  return static_cast<const FakeModel&>(lease.model());
}

TEST_F(ExpertCacheTest, ALoadReturnsALeaseThatHoldsWeightsKvAndScratch) {
  COTERIE_ASSERT_OK_AND_ASSIGN(Lease lease, Acquire({"a", 30, 20}));
  EXPECT_EQ(lease.base(), "a");
  EXPECT_EQ(ModelOf(lease).base(), "a");
  EXPECT_EQ(lease.origin().how, LeaseOrigin::How::kLoaded);
  EXPECT_EQ(lease.origin().loaded_bytes, 100);
  EXPECT_EQ(lease.kv().bytes(), 30);
  EXPECT_EQ(lease.scratch().purpose(), Purpose::kScratch);
  const BudgetSnapshot ledger = budget_.Snapshot();
  EXPECT_EQ(ledger.used_bytes, 150);
  EXPECT_EQ(ledger.bytes_by_purpose[static_cast<size_t>(Purpose::kExpertWeights)], 90);
  EXPECT_EQ(ledger.bytes_by_purpose[static_cast<size_t>(Purpose::kTokenizer)], 10);
}

TEST_F(ExpertCacheTest, AReturnedLeaseLeavesTheBaseForAHit) {
  Warm("a");
  EXPECT_EQ(used_bytes(), 100);
  COTERIE_ASSERT_OK_AND_ASSIGN(const Lease lease, Acquire({"a", 5}));
  EXPECT_EQ(lease.origin().how, LeaseOrigin::How::kHit);
  EXPECT_EQ(lease.origin().loaded_bytes, 0);
  EXPECT_EQ(source_.n_loads("a"), 1);
  EXPECT_EQ(cache_->Stats().n_hits, 1);
  EXPECT_EQ(source_.n_measures(), 1) << "a hit does not look at the file";
}

TEST_F(ExpertCacheTest, AMovedLeaseGivesBackOnce) {
  COTERIE_ASSERT_OK_AND_ASSIGN(Lease first, Acquire({"a", 7}));
  Lease second(std::move(first));
  EXPECT_FALSE(first);
  COTERIE_ASSERT_OK_AND_ASSIGN(Lease third, Acquire({"a", 11}));
  EXPECT_EQ(used_bytes(), 118);
  second = std::move(third);
  EXPECT_EQ(used_bytes(), 111);
  second.Release();
  second.Release();
  EXPECT_EQ(used_bytes(), 100);
  EXPECT_EQ(Of("a").n_leases, 0);
}

TEST_F(ExpertCacheTest, AnUnknownBaseIsNotFoundAndNotRemembered) {
  EXPECT_THAT(Acquire({"nobody"}), StatusIs(absl::StatusCode::kNotFound, HasSubstr("nobody")));
  EXPECT_THAT(cache_->Snapshot().bases, IsEmpty());
}

TEST_F(ExpertCacheTest, NegativeNeedsAreTheCallersMistake) {
  EXPECT_THAT(Acquire({"a", -1}), StatusIs(absl::StatusCode::kInvalidArgument, _));
  EXPECT_THAT(Acquire({"a", 0, -1}), StatusIs(absl::StatusCode::kInvalidArgument, _));
}

TEST_F(ExpertCacheTest, ConcurrentRequestsShareOneLoad) {
  source_.Hold("a");
  std::vector<std::future<absl::StatusOr<Lease>>> requests;
  for (int i = 0; i < 5; ++i) requests.push_back(AcquireAsync({"a", 10}));
  ASSERT_TRUE(AwaitHolders("a", 5));
  source_.Open("a");
  int n_loaded = 0;
  std::vector<Lease> leases;
  for (auto& request : requests) {
    COTERIE_ASSERT_OK_AND_ASSIGN(leases.emplace_back(), request.get());
    n_loaded += leases.back().origin().how == LeaseOrigin::How::kLoaded;
  }
  EXPECT_EQ(n_loaded, 1);
  EXPECT_EQ(source_.n_loads("a"), 1);
  EXPECT_EQ(cache_->Stats().n_joins, 4);
  EXPECT_EQ(used_bytes(), 150);
}

TEST_F(ExpertCacheTest, LoadsOfDifferentBasesDoNotQueueBehindEachOther) {
  source_.Hold("a");
  auto slow = AcquireAsync({"a"});
  ASSERT_TRUE(AwaitLoading("a"));
  EXPECT_THAT(Acquire({"b"}), IsOk());
  source_.Open("a");
  EXPECT_THAT(slow.get(), IsOk());
}

TEST_F(ExpertCacheTest, ACancelledWaiterRemovesOnlyItself) {
  source_.Hold("a");
  std::stop_source stop;
  auto first = AcquireAsync({"a", 10}, stop.get_token());
  ASSERT_TRUE(AwaitHolders("a", 1));
  auto second = AcquireAsync({"a", 10});
  ASSERT_TRUE(AwaitHolders("a", 2));
  stop.request_stop();
  EXPECT_THAT(first.get(), StatusIs(absl::StatusCode::kCancelled, _));
  EXPECT_EQ(used_bytes(), 110) << "its KV went back, the load goes on";
  source_.Open("a");
  EXPECT_THAT(second.get(), IsOk());
  EXPECT_EQ(source_.n_loads("a"), 1);
}

TEST_F(ExpertCacheTest, ALoadThatNobodyWantsAnyMoreIsStoppedEarly) {
  source_.Hold("a");
  std::stop_source stop;
  auto request = AcquireAsync({"a", 10}, stop.get_token());
  ASSERT_TRUE(AwaitLoading("a"));
  stop.request_stop();
  EXPECT_THAT(request.get(), StatusIs(absl::StatusCode::kCancelled, _));
  EXPECT_TRUE(Eventually([&] { return used_bytes() == 0; }));
  EXPECT_TRUE(Eventually([&] { return cache_->Stats().n_cancelled_loads == 1; }));
  EXPECT_EQ(cache_->Stats().n_failed_loads, 0) << "to be stopped is no failure";
  source_.Open("a");
  EXPECT_THAT(Acquire({"a"}), IsOk()) << "and no reason to back off";
}

TEST_F(ExpertCacheTest, ARequestThatIsCancelledBeforehandTouchesNothing) {
  std::stop_source stop;
  stop.request_stop();
  EXPECT_THAT(Acquire({"a"}, absl::InfiniteDuration(), stop.get_token()),
              StatusIs(absl::StatusCode::kCancelled, _));
  EXPECT_EQ(used_bytes(), 0);
}

TEST_F(ExpertCacheTest, ARequestThatLosesPatienceLeavesTheLoadForTheNext) {
  Restart({});
  source_.Hold("a");
  auto request = std::async(std::launch::async, [&] {
    return Acquire({"a", 10}, absl::Seconds(5));
  });
  ASSERT_TRUE(AwaitHolders("a", 1));
  clock_.Advance(absl::Seconds(6));
  budget_.SetLimit(250);  // Wakes whoever waits: the fake clock cannot.
  EXPECT_THAT(request.get(), StatusIs(absl::StatusCode::kDeadlineExceeded,
                                      AllOf(HasSubstr("base=a"), HasSubstr("used_bytes="))));
  source_.Open("a");
  EXPECT_THAT(Acquire({"a"}), IsOk());
  EXPECT_EQ(source_.n_loads("a"), 1);
}

TEST_F(ExpertCacheTest, WaitingEndsAtTheDeadlineOfARealClock) {
  MemoryBudget budget(250);
  ExpertCache cache(budget, source_);
  COTERIE_ASSERT_OK_AND_ASSIGN(const Lease lease,
                               cache.Acquire({"a", 100}, absl::InfiniteFuture()));
  const absl::Time deadline = absl::Now() + absl::Milliseconds(20);
  EXPECT_THAT(cache.Acquire({"b"}, deadline),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("leased_bytes=100")));
  EXPECT_GE(absl::Now(), deadline);
}

TEST_F(ExpertCacheTest, WithoutPatienceItIsAHitOrUnavailable) {
  EXPECT_THAT(AcquireNow({"a"}), StatusIs(absl::StatusCode::kUnavailable, _));
  EXPECT_EQ(source_.n_loads("a"), 0);
  Warm("a");
  EXPECT_THAT(AcquireNow({"a"}), IsOk());
}

TEST_F(ExpertCacheTest, AFailedLoadReleasesEverythingAndTouchesNoOther) {
  Warm("b");
  source_.FailNext("a", absl::DataLossError("torn file"));
  EXPECT_THAT(Acquire({"a", 20, 20}), StatusIs(absl::StatusCode::kDataLoss, "torn file"));
  EXPECT_EQ(used_bytes(), 100);
  EXPECT_TRUE(IsReady("b"));
  const auto failed = Events(CacheEvent::Kind::kLoadFailed);
  ASSERT_THAT(failed, SizeIs(1));
  EXPECT_EQ(failed[0].status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(failed[0].retry_in, absl::Milliseconds(500));
}

TEST_F(ExpertCacheTest, TheBurstThatWaitsForAFailedLoadFailsOnceWithTheSameError) {
  source_.Hold("a");
  source_.FailNext("a", absl::InternalError("disk on fire"));
  std::vector<std::future<absl::StatusOr<Lease>>> burst;
  for (int i = 0; i < 4; ++i) burst.push_back(AcquireAsync({"a", 10}));
  ASSERT_TRUE(AwaitHolders("a", 4));
  source_.Open("a");
  for (auto& request : burst) {
    EXPECT_THAT(request.get(), StatusIs(absl::StatusCode::kInternal, "disk on fire"));
  }
  EXPECT_EQ(source_.n_loads("a"), 1);
  EXPECT_EQ(used_bytes(), 0);
}

TEST_F(ExpertCacheTest, FailuresBackOffExponentiallyUntilASuccess) {
  source_.FailNext("a", absl::DataLossError("torn"), 3);
  EXPECT_THAT(Acquire({"a"}), StatusIs(absl::StatusCode::kDataLoss, "torn"));
  EXPECT_THAT(Acquire({"a"}),
              StatusIs(absl::StatusCode::kDataLoss,
                       AllOf(HasSubstr("torn"), HasSubstr("next_attempt_in=500ms"))));
  EXPECT_EQ(source_.n_loads("a"), 1) << "no new attempt within the backoff";
  clock_.Advance(absl::Milliseconds(500));
  EXPECT_THAT(Acquire({"a"}), StatusIs(absl::StatusCode::kDataLoss, "torn"));
  EXPECT_EQ(source_.n_loads("a"), 2);
  clock_.Advance(absl::Milliseconds(999));
  EXPECT_THAT(Acquire({"a"}), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("n_failures=2")));
  clock_.Advance(absl::Milliseconds(1));
  EXPECT_THAT(Acquire({"a"}), StatusIs(absl::StatusCode::kDataLoss, "torn"));
  clock_.Advance(absl::Seconds(2));
  Warm("a");
  COTERIE_ASSERT_OK(cache_->Evict("a"));
  source_.FailNext("a", absl::DataLossError("torn again"));
  EXPECT_THAT(Acquire({"a"}), StatusIs(absl::StatusCode::kDataLoss, "torn again"));
  EXPECT_EQ(Events(CacheEvent::Kind::kLoadFailed).back().retry_in, absl::Milliseconds(500));
}

TEST_F(ExpertCacheTest, TheBackoffHasACeiling) {
  Restart({.max_backoff = absl::Seconds(2)});
  source_.FailNext("a", absl::DataLossError("torn"), 6);
  for (int i = 0; i < 6; ++i) {
    EXPECT_THAT(Acquire({"a"}), StatusIs(absl::StatusCode::kDataLoss, "torn"));
    clock_.Advance(absl::Seconds(2));
  }
  EXPECT_EQ(Events(CacheEvent::Kind::kLoadFailed).back().retry_in, absl::Seconds(2));
}

TEST_F(ExpertCacheTest, ALoadWithoutAModelIsAnErrorAndNotACrash) {
  class NullSource : public BaseSource {
    absl::StatusOr<BaseFootprint> Measure(const BaseId&) override { return BaseFootprint{10, 0}; }
    absl::StatusOr<std::shared_ptr<const BaseModel>> Load(const BaseId&, LoadObserver&,
                                                          std::stop_token) override {
      return std::shared_ptr<const BaseModel>();
    }
  } source;
  ExpertCache cache(budget_, source);
  EXPECT_THAT(cache.Acquire({"x"}, absl::InfiniteFuture()),
              StatusIs(absl::StatusCode::kInternal, _));
  EXPECT_EQ(used_bytes(), 0);
}

TEST_F(ExpertCacheTest, EventsTellOfLoadingInBytesAndOfTheTimeItTook) {
  source_.OnLoad([&](const BaseId&) { clock_.Advance(absl::Milliseconds(820)); });
  Warm("a");
  const auto loading = Events(CacheEvent::Kind::kLoading);
  ASSERT_THAT(loading, SizeIs(3));
  EXPECT_EQ(loading[0].done_bytes, 0);
  EXPECT_EQ(loading[1].done_bytes, 25);
  EXPECT_EQ(loading[2].done_bytes, 100);
  EXPECT_EQ(loading[2].bytes, 100);
  const auto loaded = Events(CacheEvent::Kind::kLoaded);
  ASSERT_THAT(loaded, SizeIs(1));
  EXPECT_EQ(loaded[0].took, absl::Milliseconds(820));
  EXPECT_GT(loaded[0].sequence, loading[2].sequence);
  EXPECT_EQ(Of("a").reload_time, absl::Milliseconds(820));
}

TEST_F(ExpertCacheTest, ASinkMayAskTheCacheWhatItHolds) {
  cache_->SetEventSink([&](const CacheEvent&) {
    (void)cache_->Snapshot();
    (void)cache_->Stats();
  });
  Warm("a");  // A callback under the cache's lock would hang here.
}

TEST_F(ExpertCacheTest, TheReloadTimeIsAMovingAverage) {
  absl::Duration load_time = absl::Milliseconds(1000);
  source_.OnLoad([&](const BaseId&) { clock_.Advance(load_time); });
  Warm("a");
  COTERIE_ASSERT_OK(cache_->Evict("a"));
  load_time = absl::Milliseconds(500);
  Warm("a");
  EXPECT_NEAR(absl::ToDoubleMilliseconds(Of("a").reload_time), 850, 1);
}

TEST_F(ExpertCacheTest, LookingDoesNotCountAsUse) {
  Warm("a");
  const absl::Time last_use = Of("a").last_use;
  clock_.Advance(absl::Minutes(1));
  (void)cache_->Snapshot();
  (void)cache_->Stats();
  EXPECT_EQ(Of("a").last_use, last_use);
  EXPECT_EQ(Of("a").n_uses, 1);
}

TEST_F(ExpertCacheTest, APrefetchIsJoinedAndNotRestarted) {
  source_.Hold("a");
  COTERIE_ASSERT_OK(cache_->Prefetch("a"));
  COTERIE_ASSERT_OK(cache_->Prefetch("a"));
  ASSERT_TRUE(AwaitLoading("a"));
  auto request = AcquireAsync({"a", 10});
  ASSERT_TRUE(AwaitHolders("a", 1));
  source_.Open("a");
  COTERIE_ASSERT_OK_AND_ASSIGN(const Lease lease, request.get());
  EXPECT_EQ(lease.origin().how, LeaseOrigin::How::kJoined);
  EXPECT_EQ(source_.n_loads("a"), 1);
  EXPECT_EQ(cache_->Stats().n_prefetches, 1);
}

TEST_F(ExpertCacheTest, APrefetchEvictsNothing) {
  Warm("a");
  Warm("b");
  EXPECT_THAT(cache_->Prefetch("c"), StatusIs(absl::StatusCode::kUnavailable, _));
  EXPECT_TRUE(IsReady("a"));
  EXPECT_TRUE(IsReady("b"));
  EXPECT_THAT(cache_->Prefetch("nobody"), StatusIs(absl::StatusCode::kNotFound, _));
}

TEST_F(ExpertCacheTest, ARequestThatLacksMemoryStopsAPrefetch) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const Lease lease, Acquire({"a"}));
  source_.Hold("b");
  COTERIE_ASSERT_OK(cache_->Prefetch("b"));
  ASSERT_TRUE(AwaitLoading("b"));
  EXPECT_THAT(Acquire({"c"}), IsOk());
  EXPECT_EQ(cache_->Stats().n_cancelled_loads, 1);
}

TEST_F(ExpertCacheTest, DestructionStopsLoadsAndFreesEverything) {
  Warm("a");
  source_.Hold("b");
  COTERIE_ASSERT_OK(cache_->Prefetch("b"));
  ASSERT_TRUE(AwaitLoading("b"));
  cache_.reset();
  EXPECT_EQ(source_.n_freed("a"), 1);
  EXPECT_EQ(used_bytes(), 0);
}

}  // namespace
}  // namespace coterie
