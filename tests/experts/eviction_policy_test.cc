#include "experts/eviction_policy.h"

#include <algorithm>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace coterie {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

const absl::Time kStart = absl::FromUnixSeconds(1'800'000'000);

EntryView Idle(BaseId id, int64_t bytes, double uses, int reload_ms, int last_use_s = 0) {
  EntryView view;
  view.id = std::move(id);
  view.bytes = bytes;
  view.last_use = kStart + absl::Seconds(last_use_s);
  view.n_uses = static_cast<int64_t>(uses);
  view.recent_uses = uses;
  view.reload_time = absl::Milliseconds(reload_ms);
  view.idle = true;
  return view;
}

TEST(RecentUsesTest, HalvePerHalfLifeAndNeverGrow) {
  const EntryView view = Idle("a", 1, 8, 100);
  EXPECT_DOUBLE_EQ(RecentUsesAt(view, view.last_use), 8);
  EXPECT_DOUBLE_EQ(RecentUsesAt(view, view.last_use + kUseHalfLife), 4);
  EXPECT_DOUBLE_EQ(RecentUsesAt(view, view.last_use + 3 * kUseHalfLife), 1);
  EXPECT_DOUBLE_EQ(RecentUsesAt(view, view.last_use - kUseHalfLife), 8) << "a clock set back";
  EXPECT_DOUBLE_EQ(RecentUsesAt(EntryView(), kStart), 0) << "never used";
}

TEST(ReloadCostPolicyTest, GivesUpWhatIsCheapestToHaveAgain) {
  const ReloadCostPolicy policy;
  EXPECT_THAT(policy.PickVictims({Idle("dear", 100, 1, 900), Idle("cheap", 100, 1, 200)}, 80),
              ElementsAre("cheap"));
  EXPECT_THAT(policy.PickVictims({Idle("often", 100, 9, 200), Idle("once", 100, 1, 900)}, 80),
              ElementsAre("once"));
}

TEST(ReloadCostPolicyTest, OneVictimThatCoversBeatsSeveralThatCostMore) {
  const ReloadCostPolicy policy;
  const std::vector<EntryView> entries = {Idle("a", 50, 1, 300), Idle("b", 50, 1, 300),
                                          Idle("large", 100, 1, 500)};
  EXPECT_THAT(policy.PickVictims(entries, 100), ElementsAre("large"));
  EXPECT_THAT(policy.PickVictims(entries, 50), ElementsAre("a"));
}

TEST(ReloadCostPolicyTest, SeveralCheapVictimsBeatOneDearOne) {
  const ReloadCostPolicy policy;
  EXPECT_THAT(policy.PickVictims(
                  {Idle("a", 50, 1, 100), Idle("b", 50, 1, 100), Idle("large", 100, 1, 500)}, 100),
              UnorderedElementsAre("a", "b"));
}

TEST(ReloadCostPolicyTest, ManyUsesLongAgoWeighLessThanOneNow) {
  const ReloadCostPolicy policy;
  const int hour_s = 3600;
  EXPECT_THAT(policy.PickVictims(
                  {Idle("yesterday", 100, 50, 400, 0), Idle("now", 100, 1, 400, 24 * hour_s)}, 100),
              ElementsAre("yesterday"));
}

TEST(ReloadCostPolicyTest, APrefetchedBaseThatNobodyUsedGoesFirst) {
  const ReloadCostPolicy policy;
  EntryView unused = Idle("unused", 100, 0, 5000);
  unused.last_use = absl::InfinitePast();
  EXPECT_THAT(policy.PickVictims({Idle("used", 100, 1, 1), unused}, 100), ElementsAre("unused"));
}

TEST(ReloadCostPolicyTest, OnlyNeverUsedBasesStillMakeRoom) {
  const ReloadCostPolicy policy;
  EntryView a = Idle("a", 100, 0, 10);
  EntryView b = Idle("b", 100, 0, 10);
  a.last_use = b.last_use = absl::InfinitePast();
  EXPECT_THAT(policy.PickVictims({b, a}, 100), ElementsAre("a"));
  EXPECT_THAT(policy.PickVictims({b, a}, 101), UnorderedElementsAre("a", "b"));
}

TEST(ReloadCostPolicyTest, EqualLossesGoToTheLeastRecentlyUsedThenTheId) {
  const ReloadCostPolicy policy;
  EntryView old = Idle("z", 100, 0, 10, 1);
  EntryView young = Idle("a", 100, 0, 10, 2);
  EXPECT_THAT(policy.PickVictims({young, old}, 100), ElementsAre("z"));
  EXPECT_THAT(policy.PickVictims({Idle("n", 100, 1, 10), Idle("m", 100, 1, 10)}, 100),
              ElementsAre("m"));
}

TEST(ReloadCostPolicyTest, SaysWhyInNumbers) {
  const ReloadCostPolicy policy;
  EntryView view = Idle("a", 98'000'000, 2, 820);
  EXPECT_THAT(policy.Reason(view, kStart + absl::Seconds(41)),
              AllOf(HasSubstr("idle 41.0 s"), HasSubstr("820 ms"), HasSubstr("98.0 MB")));
  view.last_use = absl::InfinitePast();
  EXPECT_THAT(policy.Reason(view, kStart), HasSubstr("never used"));
}

TEST(LruPolicyTest, GivesUpTheLeastRecentlyUsedUntilEnoughIsFree) {
  const LruPolicy policy;
  const std::vector<EntryView> entries = {Idle("new", 100, 1, 1, 9), Idle("old", 30, 9, 900, 1),
                                          Idle("mid", 100, 9, 900, 5)};
  EXPECT_THAT(policy.PickVictims(entries, 30), ElementsAre("old"));
  EXPECT_THAT(policy.PickVictims(entries, 31), ElementsAre("old", "mid"));
}

// What every policy promises.
class AnyPolicyTest : public ::testing::TestWithParam<const EvictionPolicy*> {};

TEST_P(AnyPolicyTest, NeverNamesABusyOrPinnedBase) {
  EntryView busy = Idle("busy", 1000, 0, 0);
  busy.idle = false;
  EntryView pinned = Idle("pinned", 1000, 0, 0);
  pinned.pinned = true;
  EXPECT_THAT(GetParam()->PickVictims({busy, pinned, Idle("free", 10, 9, 999)}, 10),
              ElementsAre("free"));
  EXPECT_THAT(GetParam()->PickVictims({busy, pinned, Idle("free", 10, 9, 999)}, 11), IsEmpty());
}

TEST_P(AnyPolicyTest, TouchesNothingForNothing) {
  EXPECT_THAT(GetParam()->PickVictims({Idle("a", 10, 1, 1)}, 0), IsEmpty());
  EXPECT_THAT(GetParam()->PickVictims({Idle("a", 10, 1, 1)}, -5), IsEmpty());
  EXPECT_THAT(GetParam()->PickVictims({}, 5), IsEmpty());
}

TEST_P(AnyPolicyTest, ItsChoiceFreesEnoughWithoutRepetitionWhateverTheOrder) {
  std::mt19937 random(7);
  for (int round = 0; round < 60; ++round) {
    const int n_entries = 1 + round % 20;  // On both sides of the border between exact and greedy.
    std::vector<EntryView> entries;
    int64_t total_bytes = 0;
    for (int i = 0; i < n_entries; ++i) {
      entries.push_back(Idle(absl::StrCat("e", i), 1 + static_cast<int64_t>(random() % 100),
                             random() % 5, static_cast<int>(random() % 900),
                             static_cast<int>(random() % 2000)));
      total_bytes += entries.back().bytes;
    }
    const int64_t bytes = 1 + static_cast<int64_t>(random() % static_cast<uint64_t>(total_bytes));
    std::vector<BaseId> victims = GetParam()->PickVictims(entries, bytes);
    int64_t freed_bytes = 0;
    for (const EntryView& entry : entries) {
      freed_bytes += entry.bytes * std::count(victims.begin(), victims.end(), entry.id);
    }
    EXPECT_GE(freed_bytes, bytes);
    std::shuffle(entries.begin(), entries.end(), random);
    std::vector<BaseId> again = GetParam()->PickVictims(entries, bytes);
    EXPECT_EQ(victims, again);
    std::sort(victims.begin(), victims.end());
    EXPECT_EQ(std::unique(victims.begin(), victims.end()), victims.end());
  }
}

const ReloadCostPolicy kReloadCost;
const LruPolicy kLru;
INSTANTIATE_TEST_SUITE_P(Policies, AnyPolicyTest, ::testing::Values(&kReloadCost, &kLru));

TEST(ReloadCostPolicyTest, ManyEntriesAreChosenWithoutSuperfluousVictims) {
  const ReloadCostPolicy policy;
  std::vector<EntryView> entries;
  for (int i = 0; i < 30; ++i) entries.push_back(Idle(absl::StrCat("small", i), 10, 1, 5));
  entries.push_back(Idle("large", 1000, 1, 900));
  EXPECT_THAT(policy.PickVictims(entries, 900), ElementsAre("large"));
}

}  // namespace
}  // namespace coterie
