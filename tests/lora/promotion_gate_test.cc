#include "lora/promotion_gate.h"

#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace coterie {
namespace {

using ::testing::HasSubstr;
using Likelihoods = std::vector<Trainer::Likelihood>;

Likelihoods Constant(size_t n, double nll_per_token) {
  return Likelihoods(n, {10 * nll_per_token, 10});
}

// Cases that differ by `gain` and noise of spread 0.3.
Likelihoods Better(const Likelihoods& than, double gain, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> noise(0, 0.3);
  Likelihoods out = than;
  for (Trainer::Likelihood& one : out) one.nll -= 10 * (gain + noise(random));
  return out;
}

TEST(PromotionGateTest, PromotesAClearGain) {
  const Likelihoods before = Constant(20, 2), general = Constant(4, 3);
  const GateReport report = JudgeCandidate(before, Better(before, 0.5, 1), general, general, {});
  EXPECT_TRUE(report.promote);
  EXPECT_NEAR(report.gain.mean, 0.5, 0.2);
  EXPECT_GT(report.gain.low, 0);
  EXPECT_THAT(report.verdict, HasSubstr("promoted"));
}

TEST(PromotionGateTest, NoiseIsPromotedSeldomAndRealGainsMostly) {
  const Likelihoods before = Constant(20, 2), general = Constant(4, 3);
  int n_noise = 0, n_real = 0;
  for (uint32_t seed = 0; seed < 200; ++seed) {
    n_noise += JudgeCandidate(before, Better(before, 0, seed), general, general, {}).promote;
    n_real += JudgeCandidate(before, Better(before, 0.4, seed), general, general, {}).promote;
  }
  EXPECT_LE(n_noise, 4);  // 0.5 % expected.
  EXPECT_GE(n_real, 180);
}

TEST(PromotionGateTest, ACertainGainThatIsTinyIsNoReasonForANewVersion) {
  const Likelihoods before = Constant(20, 2), general = Constant(4, 3);
  const GateReport tiny = JudgeCandidate(before, Constant(20, 1.99), general, general, {});
  EXPECT_FALSE(tiny.promote);
  EXPECT_THAT(tiny.verdict, HasSubstr("worth a change"));
  EXPECT_TRUE(JudgeCandidate(before, Constant(20, 1.97), general, general, {}).promote);
}

TEST(PromotionGateTest, ForgettingAndFewCasesStandAgainstIt) {
  const Likelihoods before = Constant(20, 2), after = Better(before, 0.5, 1);
  const Likelihoods general = Constant(4, 3);
  const GateReport forgetful = JudgeCandidate(before, after, general, Constant(4, 3.06), {});
  EXPECT_FALSE(forgetful.promote);
  EXPECT_THAT(forgetful.verdict, HasSubstr("general text"));
  const Likelihoods few = Constant(3, 2);
  const GateReport too_few = JudgeCandidate(few, Better(few, 0.5, 1), general, general, {});
  EXPECT_FALSE(too_few.promote);
  EXPECT_THAT(too_few.verdict, HasSubstr("too few"));
}

TEST(PromotionGateTest, ALossIsCalledOneNotNoise) {
  const Likelihoods before = Constant(20, 2), general = Constant(4, 3);
  const GateReport worse = JudgeCandidate(before, Better(before, -0.5, 1), general, general, {});
  EXPECT_FALSE(worse.promote);
  EXPECT_THAT(worse.verdict, HasSubstr("is a loss"));
}

TEST(PromotionGateTest, WhatIsNoNumberIsNotPromoted) {
  const Likelihoods before = Constant(20, 2), general = Constant(4, 3);
  Likelihoods broken = Better(before, 0.5, 1);
  broken[3].nll = NAN;
  EXPECT_FALSE(JudgeCandidate(before, broken, general, general, {}).promote);
  EXPECT_FALSE(
      JudgeCandidate(before, Better(before, 0.5, 1), general, Constant(4, NAN), {}).promote);
}

}  // namespace
}  // namespace coterie
