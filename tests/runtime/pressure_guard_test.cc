#include "runtime/pressure_guard.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace coterie {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

using Advice = PressureGuard::Advice;

constexpr int64_t kMb = 1'000'000;
constexpr int64_t kMapped = 500 * kMb;

// Looks every second at a machine of 10 GB: short below 200 MB, plenty above 500 MB.
class PressureGuardTest : public ::testing::Test {
 protected:
  // `left_bytes` beyond the experts' own pages, which the system counts as available.
  Advice After(absl::Duration time, int64_t left_bytes, double stalls = 0) {
    now_ += time;
    return guard_.Note({.total_bytes = 10'000 * kMb,
                        .available_bytes = left_bytes + kMapped,
                        .file_bytes = 2'000 * kMb,
                        .stalled_share = stalls},
                       kMapped, now_);
  }

  absl::Time now_ = absl::FromUnixSeconds(1'800'000'000);
  PressureGuard guard_;
};

TEST_F(PressureGuardTest, ShortMemoryHasToLastBeforeAnExpertGoes) {
  EXPECT_EQ(After(absl::Seconds(1), 900 * kMb), Advice::kPlenty);
  EXPECT_EQ(After(absl::Seconds(1), 100 * kMb), Advice::kHold);
  EXPECT_EQ(After(absl::Seconds(1), 100 * kMb), Advice::kHold);
  EXPECT_EQ(After(absl::Seconds(1), 900 * kMb), Advice::kPlenty) << "a spike";
  EXPECT_EQ(After(absl::Seconds(1), 100 * kMb), Advice::kHold);
  EXPECT_EQ(After(absl::Seconds(3), 100 * kMb), Advice::kEvict);
  EXPECT_THAT(guard_.why(), AllOf(HasSubstr("100 MB of 10.0 GB left"), HasSubstr("stalled 0 %")));
}

TEST_F(PressureGuardTest, EvictionsAreSpacedByACoolDown) {
  After(absl::Seconds(1), 100 * kMb);
  EXPECT_EQ(After(absl::Seconds(3), 100 * kMb), Advice::kEvict);
  for (int i = 1; i < 10; ++i) EXPECT_EQ(After(absl::Seconds(1), 100 * kMb), Advice::kHold);
  EXPECT_EQ(After(absl::Seconds(1), 100 * kMb), Advice::kEvict);
}

TEST_F(PressureGuardTest, BetweenTheWatermarksNothingMoreGoesAndNothingBegins) {
  After(absl::Seconds(1), 100 * kMb);
  for (int i = 0; i < 30; ++i) EXPECT_EQ(After(absl::Seconds(1), 300 * kMb), Advice::kHold);
  EXPECT_EQ(After(absl::Seconds(1), 501 * kMb), Advice::kPlenty);
  EXPECT_EQ(After(absl::Seconds(1), 300 * kMb), Advice::kPlenty) << "from above it is plenty";
}

TEST_F(PressureGuardTest, StallsCountEvenWhereMemoryLooksFree) {
  EXPECT_EQ(After(absl::Seconds(1), 900 * kMb, 0.2), Advice::kHold);
  EXPECT_EQ(After(absl::Seconds(3), 900 * kMb, 0.2), Advice::kEvict);
  EXPECT_EQ(After(absl::Seconds(1), 900 * kMb, 0.05), Advice::kHold);
  EXPECT_EQ(After(absl::Seconds(1), 900 * kMb, 0.01), Advice::kPlenty);
}

TEST_F(PressureGuardTest, WithoutStallInformationTheBytesDecide) {
  MemoryRoom room{.total_bytes = 10'000 * kMb,
                  .available_bytes = kMapped + 100 * kMb,
                  .file_bytes = kMapped,
                  .stalled_share = std::nullopt};
  EXPECT_EQ(guard_.Note(room, kMapped, now_), Advice::kHold);
  EXPECT_EQ(guard_.Note(room, kMapped, now_ + absl::Seconds(3)), Advice::kEvict);
}

TEST_F(PressureGuardTest, WhoHasLittleGivesNothingUp) {
  const MemoryRoom room{.total_bytes = 10'000 * kMb,
                        .available_bytes = 100 * kMb,
                        .file_bytes = 2'000 * kMb,
                        .stalled_share = 0.5};
  guard_.Note(room, 100 * kMb, now_);
  EXPECT_EQ(guard_.Note(room, 100 * kMb, now_ + absl::Minutes(1)), Advice::kHold);
}

}  // namespace
}  // namespace coterie
