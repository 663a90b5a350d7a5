#include "router/corrections.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace coterie {
namespace {

constexpr double kReach = 0.1;

Corrections None() { return Corrections(kReach, nullptr); }

PromptVector Unit(std::vector<float> values) {
  double square = 0.0;
  for (const float v : values) square += v * v;
  for (float& v : values) v = static_cast<float>(v / std::sqrt(square));
  return {{}, std::move(values)};
}

int First(std::vector<double> logits, const std::vector<double>& delta) {
  for (size_t i = 0; i < logits.size(); ++i) logits[i] += delta[i];
  return static_cast<int>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

TEST(CorrectionsTest, WithoutCorrectionsNothingChanges) {
  EXPECT_THAT(Corrections().Delta(Unit({1, 0}), 2), ::testing::ElementsAre(0.0, 0.0));
}

TEST(CorrectionsTest, ACorrectionActsAtOnceOnItsPromptAndItsNeighbours) {
  const std::vector<double> logits = {8.0, 0.0, 1.0};
  const Corrections corrections = None().With({{Unit({1, 0, 0}), logits, 1}}, 3);
  EXPECT_EQ(First(logits, corrections.Delta(Unit({1, 0, 0}), 3)), 1);
  EXPECT_EQ(First(logits, corrections.Delta(Unit({1, 0.1f, 0}), 3)), 1);
}

TEST(CorrectionsTest, PromptsFarAwayKeepTheirDomain) {
  const std::vector<double> logits = {8.0, 0.0, 1.0};
  const Corrections corrections = None().With({{Unit({1, 0, 0}), logits, 1}}, 3);
  const std::vector<double> delta = corrections.Delta(Unit({0, 1, 0}), 3);
  for (const double value : delta) EXPECT_LT(std::abs(value), 0.01);
}

TEST(CorrectionsTest, ACorrectionOfWhatWasRightHoldsItsGround) {
  const std::vector<double> logits = {2.5, 0.0};
  const PromptVector kept = Unit({1, 0.3f}), changed = Unit({1, 0});
  const Corrections without = None().With({{changed, logits, 1}}, 2);
  EXPECT_EQ(First(logits, without.Delta(kept, 2)), 1) << "the two are neighbours";
  const Corrections with = None().With({{kept, logits, 0}}, 2).With({{changed, logits, 1}}, 2);
  EXPECT_EQ(First(logits, with.Delta(kept, 2)), 0);
  EXPECT_EQ(First(logits, with.Delta(changed, 2)), 1);
}

TEST(CorrectionsTest, CorrectingAPromptAgainReplacesTheFirstCorrection) {
  const std::vector<double> logits = {5.0, 0.0, 0.0};
  const Corrections corrections =
      None().With({{Unit({1, 0}), logits, 1}}, 3).With({{Unit({1, 0}), logits, 2}}, 3);
  EXPECT_EQ(corrections.size(), 1);
  EXPECT_EQ(First(logits, corrections.Delta(Unit({1, 0}), 3)), 2);
}

TEST(CorrectionsTest, AnchorsHoldTheirGroundUnlessTheyAreCorrectedThemselves) {
  const std::vector<double> logits = {2.5, 0.0};
  const PromptVector anchor = Unit({1, 0.3f}), changed = Unit({1, 0});
  const auto anchors = std::make_shared<const PromptList>(PromptList{{anchor, logits, 0}});
  const Corrections corrections = Corrections(kReach, anchors).With({{changed, logits, 1}}, 2);
  EXPECT_EQ(First(logits, corrections.Delta(changed, 2)), 1);
  EXPECT_EQ(First(logits, corrections.Delta(anchor, 2)), 0);
  const Corrections both = corrections.With({{anchor, logits, 1}}, 2);
  EXPECT_EQ(First(logits, both.Delta(anchor, 2)), 1);
  EXPECT_EQ(both.size(), 2);
}

TEST(CorrectionsTest, ADomainThatTheModelWasNotFittedToIsLearnt) {
  const std::vector<double> logits = {2.5, 0.0};
  const Corrections corrections = None().With({{Unit({1, 0}), logits, 2}}, 3);
  EXPECT_EQ(First(Extended(logits, 3), corrections.Delta(Unit({1, 0}), 3)), 2);
  EXPECT_EQ(First(Extended(logits, 3), corrections.Delta(Unit({0, 1}), 3)), 0);
}

TEST(CorrectionsTest, ManyRandomCorrectionsAllHold) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<CorrectedPrompt> prompts;
  for (int i = 0; i < 120; ++i) {
    std::vector<float> values(32);
    for (float& value : values) value = normal(random);
    std::vector<double> logits(5);
    for (double& logit : logits) logit = 4.0 * normal(random);
    prompts.push_back({Unit(values), logits, i % 5});
  }
  const Corrections corrections = Corrections(0.5, nullptr).With(prompts, 5);
  for (const CorrectedPrompt& prompt : prompts) {
    EXPECT_EQ(First(prompt.logits, corrections.Delta(prompt.vector, 5)), prompt.label);
  }
}

}  // namespace
}  // namespace coterie
