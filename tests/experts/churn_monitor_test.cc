#include "experts/churn_monitor.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace coterie {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const absl::Time kStart = absl::FromUnixSeconds(1'800'000'000);

// Two bases that take turns, each evicted when the other comes: `n` loads, one every `every`.
absl::Time PingPong(ChurnMonitor& monitor, int n, absl::Duration every, absl::Duration took) {
  absl::Time now = kStart;
  for (int i = 0; i < n; ++i) {
    monitor.NoteEvicted(i % 2 == 0 ? "b" : "a", now);
    now += every;
    monitor.NoteLoaded(i % 2 == 0 ? "a" : "b", 500'000'000, took, now);
  }
  return now;
}

TEST(ChurnMonitorTest, TwoBasesThatPushEachOtherOutThrashAndTheAdviceNamesTheNumbers) {
  ChurnMonitor monitor;
  const absl::Time now = PingPong(monitor, 9, absl::Seconds(4), absl::Seconds(2));
  const ChurnReport report = monitor.Report(now, 600'000'000);
  EXPECT_TRUE(report.thrashing);
  EXPECT_EQ(report.n_reloads, 8) << "the first load was none";
  EXPECT_NEAR(report.reload_share, 16.0 / 60, 1e-9);
  EXPECT_THAT(report.bases, ElementsAre("a", "b"));
  EXPECT_THAT(report.advice, AllOf(HasSubstr("a, b"), HasSubstr("1000 MB"), HasSubstr("600 MB")));
}

TEST(ChurnMonitorTest, CheapReloadsAndRareOnesAreNoThrashing) {
  ChurnMonitor cheap;
  EXPECT_FALSE(
      cheap.Report(PingPong(cheap, 20, absl::Seconds(2), absl::Milliseconds(100)), 1).thrashing);
  ChurnMonitor rare;
  EXPECT_FALSE(rare.Report(PingPong(rare, 20, absl::Seconds(30), absl::Seconds(10)), 1).thrashing);
}

TEST(ChurnMonitorTest, AFirstLoadAndALateReturnAreNoReloads) {
  ChurnMonitor monitor;
  EXPECT_FALSE(monitor.NoteLoaded("a", 1, absl::Seconds(1), kStart));
  monitor.NoteEvicted("a", kStart);
  EXPECT_FALSE(monitor.NoteLoaded("a", 1, absl::Seconds(1), kStart + absl::Seconds(61)));
  monitor.NoteEvicted("a", kStart + absl::Seconds(70));
  EXPECT_TRUE(monitor.NoteLoaded("a", 1, absl::Seconds(1), kStart + absl::Seconds(71)));
  EXPECT_FALSE(monitor.NoteLoaded("a", 1, absl::Seconds(1), kStart + absl::Seconds(72)))
      << "an eviction counts once";
}

TEST(ChurnMonitorTest, TheStateDoesNotFlickerAndEndsWithTheTraffic) {
  ChurnMonitor monitor;
  const absl::Time now = PingPong(monitor, 9, absl::Seconds(4), absl::Seconds(2));
  ASSERT_TRUE(monitor.Report(now, 1).thrashing);
  EXPECT_TRUE(monitor.Report(now + absl::Seconds(36), 1).thrashing) << "above half the threshold";
  const ChurnReport later = monitor.Report(now + absl::Seconds(62), 1);
  EXPECT_FALSE(later.thrashing);
  EXPECT_THAT(later.advice, IsEmpty());
}

}  // namespace
}  // namespace coterie
