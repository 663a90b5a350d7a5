// What goes before a base does.

#include <atomic>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/experts/cache_fixture.h"

namespace coterie {
namespace {

using ::coterie::testing::StatusIs;
using ::testing::_;

// Bytes that can be had one by one.
class FakeExpendable : public ExpendableMemory {
 public:
  explicit FakeExpendable(MemoryBudget& budget) : budget_(budget) {}

  void Take(int64_t bytes) {
    auto charged = budget_.Reserve(Purpose::kPrefixCache, bytes);
    ASSERT_THAT(charged, testing::IsOk());
    MutexLock lock(mutex_);
    held_ = *std::move(charged);
  }
  // Of the next Reclaim, which somebody else was faster than.
  void LoseNext() { loses_ = true; }

  std::vector<Reservation> Reclaim(int64_t bytes_needed) override {
    std::vector<Reservation> freed;
    MutexLock lock(mutex_);
    if (held_.bytes() < bytes_needed) return freed;
    Reservation part = held_.Split(bytes_needed);
    if (loses_.exchange(false)) return freed;
    freed.push_back(std::move(part));
    return freed;
  }
  int64_t expendable_bytes() const override {
    MutexLock lock(mutex_);
    return held_.bytes();
  }

 private:
  MemoryBudget& budget_;
  mutable Mutex mutex_;
  Reservation held_ ABSL_GUARDED_BY(mutex_);
  std::atomic<bool> loses_{false};
};

// Bases of 100 bytes within 250.
class ExpertCacheExpendableTest : public testing::CacheFixture {
 protected:
  ExpertCacheExpendableTest() { Restart({.expendable = &expendable_}); }
  ~ExpertCacheExpendableTest() override { cache_.reset(); }

  FakeExpendable expendable_{budget_};
};

TEST_F(ExpertCacheExpendableTest, PaysForALoadBeforeAnIdleBaseIsEvicted) {
  Warm("a");
  expendable_.Take(130);
  COTERIE_ASSERT_OK_AND_ASSIGN(const Lease lease, Acquire({"b", 20}));
  EXPECT_TRUE(IsReady("a"));
  EXPECT_EQ(expendable_.expendable_bytes(), 30) << "20 were free, 100 were missing";
  EXPECT_EQ(lease.origin().evictions.size(), 0u);
}

TEST_F(ExpertCacheExpendableTest, PaysForKvOfAResidentBase) {
  Warm("a");
  Warm("b");
  expendable_.Take(50);
  COTERIE_ASSERT_OK_AND_ASSIGN(const Lease lease, AcquireNow({"a", 30, 10}));
  EXPECT_TRUE(IsReady("b"));
  EXPECT_EQ(expendable_.expendable_bytes(), 10);
}

// A switch between two experts spares what the one that comes back will want.
TEST_F(ExpertCacheExpendableTest, StaysWhereABaseHasToGoThatIsEnoughByItself) {
  Warm("a");
  Warm("b");
  expendable_.Take(50);
  Warm("c");
  EXPECT_EQ(cache_->Stats().n_evictions, 1);
  EXPECT_EQ(expendable_.expendable_bytes(), 50);
}

TEST_F(ExpertCacheExpendableTest, SavesASecondBaseFromEviction) {
  Warm("a");
  Warm("b");
  expendable_.Take(50);
  COTERIE_ASSERT_OK_AND_ASSIGN(const Lease lease, Acquire({"c", 20}));
  EXPECT_EQ(cache_->Stats().n_evictions, 1);
  EXPECT_EQ(expendable_.expendable_bytes(), 30) << "120 less the 100 of one base";
}

TEST_F(ExpertCacheExpendableTest, WhatItCannotPayForIsRefusedWithoutTouchingIt) {
  expendable_.Take(50);
  COTERIE_ASSERT_OK_AND_ASSIGN(const Lease busy, Acquire({"a", 90}));
  EXPECT_EQ(expendable_.expendable_bytes(), 50);
  EXPECT_THAT(AcquireNow({"a", 70}), StatusIs(absl::StatusCode::kUnavailable, _));
  EXPECT_THAT(AcquireNow({"a", 170}), StatusIs(absl::StatusCode::kResourceExhausted, _));
  EXPECT_EQ(expendable_.expendable_bytes(), 50);
  COTERIE_ASSERT_OK_AND_ASSIGN(const Lease fits, AcquireNow({"a", 60}));
  EXPECT_EQ(expendable_.expendable_bytes(), 0);
}

TEST_F(ExpertCacheExpendableTest, WhoComesTooLateForItLooksAgain) {
  Warm("a");
  expendable_.Take(130);
  expendable_.LoseNext();
  Warm("b");
  EXPECT_TRUE(IsReady("a"));
  EXPECT_TRUE(IsReady("b"));
}

TEST_F(ExpertCacheExpendableTest, ReclaimTakesOfItBeforeABaseAndNoMoreThanIsMissing) {
  Warm("a");
  expendable_.Take(120);
  const Charge few{Purpose::kTraining, 100}, many{Purpose::kTraining, 100};
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto first, budget_.ReserveAll({&few, 1}, *cache_));
  EXPECT_TRUE(IsReady("a"));
  EXPECT_EQ(expendable_.expendable_bytes(), 50);
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto second, budget_.ReserveAll({&many, 1}, *cache_));
  EXPECT_FALSE(IsReady("a"));
  EXPECT_EQ(expendable_.expendable_bytes(), 50);
  EXPECT_THAT(budget_.ReserveAll({&many, 1}, *cache_), StatusIs(absl::StatusCode::kUnavailable, _));
  EXPECT_EQ(expendable_.expendable_bytes(), 50);
}

TEST_F(ExpertCacheExpendableTest, ALoweredLimitTakesItBeforeABase) {
  Warm("a");
  expendable_.Take(120);
  budget_.SetLimit(150);
  cache_->EvictOvershoot();
  EXPECT_TRUE(IsReady("a"));
  EXPECT_EQ(expendable_.expendable_bytes(), 50);
  budget_.SetLimit(60);
  cache_->EvictOvershoot();
  EXPECT_FALSE(IsReady("a"));
}

TEST_F(ExpertCacheExpendableTest, APrefetchTakesFreeMemoryOnly) {
  Warm("a");
  expendable_.Take(60);
  EXPECT_THAT(cache_->Prefetch("b"), StatusIs(absl::StatusCode::kUnavailable, _));
  EXPECT_EQ(expendable_.expendable_bytes(), 60);
}

}  // namespace
}  // namespace coterie
