#include "core/memory/memory_budget.h"

#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::IsOk;
using ::coterie::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

int64_t BytesOf(const MemoryBudget& budget, Purpose purpose) {
  return budget.Snapshot().bytes_by_purpose[static_cast<size_t>(purpose)];
}

TEST(ReservationTest, GivesBackOnDestruction) {
  MemoryBudget budget(100);
  {
    COTERIE_ASSERT_OK_AND_ASSIGN(const Reservation held, budget.Reserve(Purpose::kRouter, 60));
    EXPECT_EQ(BytesOf(budget, Purpose::kRouter), 60);
  }
  EXPECT_EQ(budget.Snapshot().used_bytes, 0);
  EXPECT_EQ(budget.Snapshot().peak_bytes, 60);
}

TEST(ReservationTest, MovingChargesOnceAndAssigningReleasesTheOld) {
  MemoryBudget budget(100);
  COTERIE_ASSERT_OK_AND_ASSIGN(Reservation first, budget.Reserve(Purpose::kKvCache, 30));
  COTERIE_ASSERT_OK_AND_ASSIGN(Reservation second, budget.Reserve(Purpose::kScratch, 20));
  first = std::move(second);
  EXPECT_EQ(budget.Snapshot().used_bytes, 20);
  EXPECT_EQ(first.purpose(), Purpose::kScratch);
  EXPECT_EQ(second.bytes(), 0);
  Reservation third(std::move(first));
  EXPECT_EQ(budget.Snapshot().used_bytes, 20);
  third.Release();
  third.Release();
  EXPECT_EQ(budget.Snapshot().used_bytes, 0);
}

TEST(ReservationTest, SplittingKeepsTheSumAndShrinkingGivesBackTheRest) {
  MemoryBudget budget(100);
  COTERIE_ASSERT_OK_AND_ASSIGN(Reservation whole, budget.Reserve(Purpose::kKvCache, 80));
  Reservation part = whole.Split(30);
  EXPECT_EQ(whole.bytes(), 50);
  EXPECT_EQ(part.bytes(), 30);
  EXPECT_EQ(budget.Snapshot().used_bytes, 80);
  whole.ShrinkTo(10);
  EXPECT_EQ(budget.Snapshot().used_bytes, 40);
  part.Release();
  EXPECT_EQ(BytesOf(budget, Purpose::kKvCache), 10);
}

TEST(MemoryBudgetTest, NeverFitsDiffersFromNotNowAndBothSayTheNumbers) {
  MemoryBudget budget(100);
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reservation held, budget.Reserve(Purpose::kRouter, 60));
  EXPECT_THAT(budget.Reserve(Purpose::kKvCache, 101),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("kv_cache=101"), HasSubstr("limit_bytes=100"))));
  EXPECT_THAT(budget.Reserve(Purpose::kKvCache, 41),
              StatusIs(absl::StatusCode::kUnavailable,
                       AllOf(HasSubstr("kv_cache=41"), HasSubstr("used_bytes=60"))));
  EXPECT_THAT(budget.Reserve(Purpose::kKvCache, -1),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("-1")));
  EXPECT_THAT(budget.Reserve(Purpose::kKvCache, 40), IsOk());
}

TEST(MemoryBudgetTest, ReserveAllChargesEveryPurposeOrNone) {
  MemoryBudget budget(100);
  {
    COTERIE_ASSERT_OK_AND_ASSIGN(
        const std::vector<Reservation> all,
        budget.ReserveAll({{Purpose::kExpertWeights, 50}, {Purpose::kKvCache, 50}}));
    ASSERT_THAT(all, SizeIs(2));
    EXPECT_EQ(all[1].purpose(), Purpose::kKvCache);
  }
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reservation held, budget.Reserve(Purpose::kRouter, 1));
  EXPECT_THAT(
      budget.ReserveAll({{Purpose::kExpertWeights, 50}, {Purpose::kKvCache, 50}}),
      StatusIs(absl::StatusCode::kUnavailable, HasSubstr("expert_weights=50, kv_cache=50")));
  EXPECT_EQ(budget.Snapshot().used_bytes, 1);
}

TEST(MemoryBudgetTest, ASumThatOverflowsNeverFits) {
  MemoryBudget budget(std::numeric_limits<int64_t>::max());
  const int64_t most = std::numeric_limits<int64_t>::max();
  EXPECT_THAT(budget.ReserveAll({{Purpose::kKvCache, most}, {Purpose::kScratch, 1}}),
              StatusIs(absl::StatusCode::kResourceExhausted, ::testing::_));
  EXPECT_THAT(budget.ReserveAll({{Purpose::kKvCache, 5}, {Purpose::kScratch, -5}}),
              StatusIs(absl::StatusCode::kInvalidArgument, ::testing::_));
  EXPECT_EQ(budget.Snapshot().used_bytes, 0);
}

TEST(MemoryBudgetTest, ExchangeTurnsHeldBytesIntoOthersWithoutAGap) {
  MemoryBudget budget(100);
  std::vector<Reservation> given;
  COTERIE_ASSERT_OK_AND_ASSIGN(given.emplace_back(), budget.Reserve(Purpose::kExpertWeights, 70));
  COTERIE_ASSERT_OK_AND_ASSIGN(given.emplace_back(), budget.Reserve(Purpose::kTokenizer, 30));
  COTERIE_ASSERT_OK_AND_ASSIGN(
      const std::vector<Reservation> taken,
      budget.Exchange(given, {{Purpose::kExpertWeights, 60}, {Purpose::kKvCache, 35}}));
  EXPECT_THAT(given, IsEmpty());
  EXPECT_EQ(budget.Snapshot().used_bytes, 95);
  EXPECT_EQ(BytesOf(budget, Purpose::kTokenizer), 0);
  EXPECT_EQ(BytesOf(budget, Purpose::kKvCache), 35);
  EXPECT_EQ(budget.Snapshot().peak_bytes, 100);
}

TEST(MemoryBudgetTest, AFailedExchangeLeavesWhatWasGiven) {
  MemoryBudget budget(100);
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reservation other, budget.Reserve(Purpose::kRouter, 50));
  std::vector<Reservation> given;
  COTERIE_ASSERT_OK_AND_ASSIGN(given.emplace_back(), budget.Reserve(Purpose::kKvCache, 40));
  EXPECT_THAT(budget.Exchange(given, {{Purpose::kExpertWeights, 51}}),
              StatusIs(absl::StatusCode::kUnavailable, ::testing::_));
  ASSERT_THAT(given, SizeIs(1));
  EXPECT_EQ(given[0].bytes(), 40);
  EXPECT_EQ(budget.Snapshot().used_bytes, 90);
}

TEST(MemoryBudgetTest, ALowerLimitRefusesAndDrainsButFreesNothing) {
  MemoryBudget budget(100);
  COTERIE_ASSERT_OK_AND_ASSIGN(Reservation held, budget.Reserve(Purpose::kKvCache, 80));
  budget.SetLimit(50);
  EXPECT_EQ(budget.Snapshot().used_bytes, 80);
  EXPECT_THAT(budget.Reserve(Purpose::kScratch, 1),
              StatusIs(absl::StatusCode::kUnavailable, ::testing::_));
  EXPECT_EQ(budget.ReserveUpTo(Purpose::kScratch, 10).bytes(), 0);
  held.ShrinkTo(40);
  EXPECT_THAT(budget.Reserve(Purpose::kScratch, 10), IsOk());
}

TEST(MemoryBudgetTest, ReserveUpToTakesWhatIsFree) {
  MemoryBudget budget(100);
  const Reservation first = budget.ReserveUpTo(Purpose::kScratch, 70);
  const Reservation second = budget.ReserveUpTo(Purpose::kScratch, 70);
  const Reservation third = budget.ReserveUpTo(Purpose::kScratch, 70);
  EXPECT_EQ(first.bytes(), 70);
  EXPECT_EQ(second.bytes(), 30);
  EXPECT_EQ(third.bytes(), 0);
}

// Frees a reservation that it owns, and lets another try to take the bytes meanwhile.
class OneReservation : public Reclaimer {
 public:
  OneReservation(MemoryBudget& budget, Reservation owned)
      : budget_(budget), owned_(std::move(owned)) {}

  std::vector<Reservation> Reclaim(int64_t bytes_needed) override {
    thief_got_bytes_ += budget_.ReserveUpTo(Purpose::kTraining, 1000).bytes();
    std::vector<Reservation> freed;
    if (bytes_needed <= owned_.bytes()) freed.push_back(std::move(owned_));
    return freed;
  }

  int64_t thief_got_bytes() const { return thief_got_bytes_; }

 private:
  MemoryBudget& budget_;
  Reservation owned_;
  int64_t thief_got_bytes_ = 0;
};

TEST(MemoryBudgetTest, ReclaimedBytesGoToTheCallerAndNobodyElse) {
  MemoryBudget budget(100);
  COTERIE_ASSERT_OK_AND_ASSIGN(Reservation owned, budget.Reserve(Purpose::kExpertWeights, 60));
  OneReservation reclaimer(budget, std::move(owned));
  COTERIE_ASSERT_OK_AND_ASSIGN(
      const std::vector<Reservation> all,
      budget.ReserveAll({{Purpose::kKvCache, 50}, {Purpose::kScratch, 40}}, reclaimer));
  EXPECT_EQ(reclaimer.thief_got_bytes(), 0);
  EXPECT_EQ(budget.Snapshot().used_bytes, 90);
}

TEST(MemoryBudgetTest, AReclaimerThatCannotFreeEnoughLosesNothing) {
  MemoryBudget budget(100);
  COTERIE_ASSERT_OK_AND_ASSIGN(Reservation owned, budget.Reserve(Purpose::kExpertWeights, 30));
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reservation busy, budget.Reserve(Purpose::kKvCache, 60));
  OneReservation reclaimer(budget, std::move(owned));
  EXPECT_THAT(budget.ReserveAll({{Purpose::kScratch, 50}}, reclaimer),
              StatusIs(absl::StatusCode::kUnavailable, ::testing::_));
  EXPECT_EQ(BytesOf(budget, Purpose::kExpertWeights), 30);
  EXPECT_EQ(budget.Snapshot().used_bytes, 90);
}

class CountingWatcher : public BudgetWatcher {
 public:
  void OnRoomChanged() override { ++n_calls; }
  int n_calls = 0;
};

TEST(MemoryBudgetTest, WatchersHearOfRoomUntilTheyDie) {
  MemoryBudget budget(100);
  auto watcher = std::make_shared<CountingWatcher>();
  budget.Watch(watcher);
  COTERIE_ASSERT_OK_AND_ASSIGN(Reservation held, budget.Reserve(Purpose::kKvCache, 50));
  EXPECT_EQ(watcher->n_calls, 0) << "taking makes no room";
  held.ShrinkTo(20);
  EXPECT_EQ(watcher->n_calls, 1);
  budget.SetLimit(200);
  EXPECT_EQ(watcher->n_calls, 2);
  watcher.reset();
  held.Release();  // Reaches nobody, harms nobody.
}

TEST(MemoryBudgetTest, ManyThreadsNeverExceedTheLimit) {
  MemoryBudget budget(1000);
  std::atomic<bool> exceeded{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&budget, &exceeded, t] {
      for (int i = 0; i < 2000; ++i) {
        auto all = budget.ReserveAll(
            {{Purpose::kKvCache, 100 + (i * 7 + t) % 300}, {Purpose::kScratch, (i * 13) % 200}});
        const BudgetSnapshot now = budget.Snapshot();
        if (now.used_bytes > now.limit_bytes) exceeded = true;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(exceeded);
  EXPECT_EQ(budget.Snapshot().used_bytes, 0);
  EXPECT_LE(budget.Snapshot().peak_bytes, 1000);
}

}  // namespace
}  // namespace coterie
