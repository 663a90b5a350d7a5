#include "experts/freed_check.h"

#include "gtest/gtest.h"

namespace coterie {
namespace {

constexpr int64_t kMb = 1'000'000;
constexpr int64_t kBaseline = 100 * kMb;

// An eviction of 500 MB of which `kept_bytes` stay, with nothing else in use.
FreedSample Eviction(int64_t kept_bytes) {
  return {.promised_bytes = 500 * kMb,
          .resident_before_bytes = kBaseline + 500 * kMb,
          .resident_after_bytes = kBaseline + kept_bytes,
          .used_after_bytes = 0};
}

TEST(FreedCheckTest, KeptPromisesCostNothing) {
  FreedCheck check(kBaseline);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(check.Note(Eviction(3 * kMb)), 0);
  EXPECT_EQ(check.n_shortfalls(), 0);
}

TEST(FreedCheckTest, OnlyARepeatedShortfallCounts) {
  FreedCheck check(kBaseline);
  EXPECT_EQ(check.Note(Eviction(200 * kMb)), 0);
  EXPECT_EQ(check.Note(Eviction(200 * kMb)), 0);
  EXPECT_EQ(check.Note(Eviction(0)), 0) << "a good one in between";
  EXPECT_EQ(check.Note(Eviction(200 * kMb)), 0);
  EXPECT_EQ(check.Note(Eviction(200 * kMb)), 0);
  EXPECT_EQ(check.Note(Eviction(200 * kMb)), 200 * kMb);
  EXPECT_EQ(check.n_shortfalls(), 5);
}

TEST(FreedCheckTest, WhatComesBackIsGivenBack) {
  FreedCheck check(kBaseline);
  for (int i = 0; i < FreedCheck::kPatience; ++i) check.Note(Eviction(200 * kMb));
  EXPECT_EQ(check.Note(Eviction(0)), 0);
}

TEST(FreedCheckTest, PagesThatTheSystemHadTakenBackAreNoShortfall) {
  FreedCheck check(kBaseline);
  FreedSample sample = Eviction(0);
  sample.resident_before_bytes = kBaseline + 50 * kMb;  // Most of the mapping was not resident.
  for (int i = 0; i < 10; ++i) EXPECT_EQ(check.Note(sample), 0);
}

TEST(FreedCheckTest, AHostProgramThatGrowsIsNoShortfall) {
  FreedCheck check(kBaseline);
  FreedSample sample = Eviction(0);
  sample.resident_before_bytes += 900 * kMb;
  sample.resident_after_bytes += 900 * kMb;
  for (int i = 0; i < 10; ++i) EXPECT_EQ(check.Note(sample), 0);
}

}  // namespace
}  // namespace coterie
