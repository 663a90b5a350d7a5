// Bugs that shipped in other model servers, each as the claim that it does not happen here. The
// thread where it was reported stands above; what expert_cache_test.cc, _eviction_test.cc and
// _upkeep_test.cc hold already is listed in docs/cache.md.

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
using ::testing::SizeIs;

using ExpertCachePeerBugsTest = ::coterie::testing::CacheFixture;

// llama.cpp#25528: a model that was still loading was chosen as victim.
TEST_F(ExpertCachePeerBugsTest, ABaseThatIsBeingLoadedForSomebodyIsNoVictim) {
  budget_.SetLimit(150);
  source_.Hold("a");
  auto first = AcquireAsync({"a"});
  ASSERT_TRUE(AwaitLoading("a"));
  auto other = AcquireAsync({"b"});
  ASSERT_TRUE(AwaitWaiters(1));
  EXPECT_EQ(cache_->EvictOne("pressure"), 0);
  EXPECT_THAT(cache_->Evict("a"), StatusIs(absl::StatusCode::kUnavailable, _));
  source_.Open("a");
  COTERIE_ASSERT_OK_AND_ASSIGN(Lease lease, first.get());
  EXPECT_TRUE(static_cast<const FakeModel&>(lease.model()).alive());
  lease.Release();
  EXPECT_THAT(other.get(), IsOk());
}

// llama.cpp, fixed by #29217: a request cancelled once its model was loaded kept the slot until
// another timeout.
TEST_F(ExpertCachePeerBugsTest, ARequestCancelledAtTheEndOfItsLoadHoldsNothing) {
  budget_.SetLimit(150);
  source_.Hold("a");
  std::stop_source stop;
  auto cancelled = AcquireAsync({"a", 40}, stop.get_token());
  auto patient = AcquireAsync({"a"});
  ASSERT_TRUE(AwaitHolders("a", 2));
  stop.request_stop();
  EXPECT_THAT(cancelled.get(), StatusIs(absl::StatusCode::kCancelled, _));
  source_.Open("a");
  EXPECT_THAT(patient.get(), IsOk());
  EXPECT_EQ(Of("a").n_leases, 0);
  EXPECT_EQ(used_bytes(), 100);
  EXPECT_THAT(Acquire({"b"}), IsOk()) << "a may go at once";
}

// ollama#17309, #17314: events of one unload were taken for those of another.
TEST_F(ExpertCachePeerBugsTest, ALoadThatEndsLateDoesNotEndTheNextLoadOfItsBase) {
  std::promise<void> let_go;
  std::shared_future<void> may_go = let_go.get_future().share();
  source_.OnLoad([may_go](const BaseId&) { may_go.wait(); });  // Deaf to its stop token.
  std::stop_source stop;
  auto first = AcquireAsync({"a"}, stop.get_token());
  ASSERT_TRUE(AwaitLoading("a"));
  stop.request_stop();
  EXPECT_THAT(first.get(), StatusIs(absl::StatusCode::kCancelled, _));
  auto second = AcquireAsync({"a"});
  ASSERT_TRUE(AwaitWaiters(1)) << "the first load is on its way out: nobody joins it";
  source_.OnLoad(nullptr);
  let_go.set_value();
  COTERIE_ASSERT_OK_AND_ASSIGN(const Lease lease, second.get());
  EXPECT_EQ(lease.origin().how, LeaseOrigin::How::kLoaded);
  EXPECT_EQ(source_.n_loads("a"), 2);
  EXPECT_FALSE(source_.loaded_twice());
}

TEST_F(ExpertCachePeerBugsTest, EventsNameTheirBaseAndTheirPlaceInTheOrder) {
  for (const char* base : {"a", "b", "c", "a", "c", "b"}) Warm(base);
  uint64_t last = 0;
  const auto evicted = Events(CacheEvent::Kind::kEvicted);
  EXPECT_GE(evicted.size(), 2u);
  for (const CacheEvent& event : evicted) {
    EXPECT_GT(event.sequence, last);
    EXPECT_NE(event.base, event.for_base);
    last = event.sequence;
  }
}

// LocalAI#7503: one failed load broke all later ones. ollama#15126: all wait behind one load.
TEST_F(ExpertCachePeerBugsTest, WhoWaitsBehindAFailingLoadGetsItsRoom) {
  budget_.SetLimit(150);
  source_.Hold("a");
  source_.FailNext("a", absl::DataLossError("torn"));
  auto failing = AcquireAsync({"a"});
  ASSERT_TRUE(AwaitLoading("a"));
  auto other = AcquireAsync({"b"});
  ASSERT_TRUE(AwaitWaiters(1));
  source_.Open("a");
  EXPECT_THAT(failing.get(), StatusIs(absl::StatusCode::kDataLoss, _));
  EXPECT_THAT(other.get(), IsOk());
}

// mlx-lm drops the loaded model before it knows whether the next one can be loaded.
TEST_F(ExpertCachePeerBugsTest, WhatCannotEvenBeMeasuredOrIsBackingOffEvictsNothing) {
  Warm("a");
  Warm("b");
  EXPECT_THAT(Acquire({"nobody"}), StatusIs(absl::StatusCode::kNotFound, _));
  source_.FailNext("c", absl::DataLossError("torn"));
  EXPECT_THAT(Acquire({"c"}), StatusIs(absl::StatusCode::kDataLoss, _));
  Warm("a");
  Warm("b");
  const int64_t n_evictions = cache_->Stats().n_evictions;
  for (int i = 0; i < 5; ++i) {
    EXPECT_THAT(Acquire({"c"}), StatusIs(absl::StatusCode::kDataLoss, _));
  }
  EXPECT_TRUE(IsReady("a"));
  EXPECT_TRUE(IsReady("b"));
  EXPECT_EQ(cache_->Stats().n_evictions, n_evictions);
}

// modelmesh#455, and the "evict everything, retry once" of lemonade.
TEST_F(ExpertCachePeerBugsTest, OneLoadEvictsNoMoreThanItNeeds) {
  budget_.SetLimit(400);
  for (const char* base : {"a", "b", "c", "d"}) Warm(base);
  source_.Add("e", 90, 10);
  Warm("e");
  EXPECT_THAT(Events(CacheEvent::Kind::kEvicted), SizeIs(1));
}

// llama.cpp#23096, mlx-serve#398: a look at the metrics woke and loaded models.
TEST_F(ExpertCachePeerBugsTest, LookingLoadsNothing) {
  COTERIE_ASSERT_OK(cache_->Pin("a"));
  (void)cache_->Snapshot();
  (void)cache_->Stats();
  cache_->Tick();
  EXPECT_EQ(source_.n_loads("a"), 0);
  EXPECT_EQ(used_bytes(), 0);
}

// ollama#8903, #8029, #6148: another context length reloaded the model.
TEST_F(ExpertCachePeerBugsTest, AnotherContextLengthIsServedFromTheSameWeights) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const Lease shorter, Acquire({"a", 10}));
  COTERIE_ASSERT_OK_AND_ASSIGN(const Lease longer, Acquire({"a", 120}));
  EXPECT_EQ(longer.origin().how, LeaseOrigin::How::kHit);
  EXPECT_EQ(&longer.model(), &shorter.model());
  EXPECT_EQ(source_.n_loads("a"), 1);
}

}  // namespace
}  // namespace coterie
