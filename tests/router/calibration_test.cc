#include "router/calibration.h"

#include <cmath>
#include <numeric>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace coterie {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;

TEST(CalibrationTest, ProbabilitiesSumToOneEvenForHugeLogits) {
  const std::vector<double> p = Probabilities({1e6, 1e6 - 1.0, -1e6}, 1.0);
  EXPECT_NEAR(std::accumulate(p.begin(), p.end(), 0.0), 1.0, 1e-12);
  EXPECT_NEAR(p[0] / p[1], std::exp(1.0), 1e-6);
}

TEST(CalibrationTest, AHigherTemperatureIsLessSure) {
  EXPECT_GT(Probabilities({2.0, 0.0}, 1.0)[0], Probabilities({2.0, 0.0}, 2.0)[0]);
}

// n predictions with a lead of 4 logits, of which `right` are right.
std::vector<LabelledLogits> Examples(int n, int right) {
  std::vector<LabelledLogits> examples;
  for (int i = 0; i < n; ++i) examples.push_back({{4.0, 0.0}, i < right ? 0 : 1});
  return examples;
}

TEST(CalibrationTest, TheTemperatureMakesConfidenceEqualToAccuracy) {
  for (const int right : {60, 75, 90}) {
    const double t = FitTemperature(Examples(100, right));
    EXPECT_THAT(Probabilities({4.0, 0.0}, t)[0], DoubleNear(right / 100.0, 0.01)) << right;
  }
}

TEST(CalibrationTest, WithoutExamplesTheTemperatureIsOne) { EXPECT_EQ(FitTemperature({}), 1.0); }

TEST(CalibrationTest, CalibrationErrorIsTheGapBetweenConfidenceAndAccuracy) {
  std::vector<Confidence> predictions(10, {0.9, true});
  EXPECT_NEAR(ExpectedCalibrationError(predictions), 0.1, 1e-9);
  predictions[0].right = false;
  EXPECT_NEAR(ExpectedCalibrationError(predictions), 0.0, 1e-9);
  EXPECT_EQ(ExpectedCalibrationError({}), 0.0);
}

TEST(CalibrationTest, AbstentionGivesUpUnsurePredictionsThatAreMostlyWrong) {
  // Label 0 is general. Unsure specialists are wrong, sure ones right.
  std::vector<LabelledLogits> examples;
  for (int i = 0; i < 10; ++i) examples.push_back({{0.0, 0.2}, 0});
  for (int i = 0; i < 90; ++i) examples.push_back({{0.0, 3.0}, 1});
  const double threshold = FitAbstention(examples, 1.0, /*general=*/0, /*max_given_up=*/0.2);
  EXPECT_GT(threshold, Probabilities({0.0, 0.2}, 1.0)[1]);
  EXPECT_LT(threshold, Probabilities({0.0, 3.0}, 1.0)[1]);
}

TEST(CalibrationTest, AbstentionStaysOffWhereItGainsNothing) {
  EXPECT_EQ(FitAbstention(Examples(100, 100), 1.0, /*general=*/1, 0.5), 0.0);
  EXPECT_EQ(FitAbstention(Examples(100, 10), 1.0, /*general=*/-1, 0.5), 0.0);
  EXPECT_EQ(FitAbstention(Examples(100, 10), 1.0, /*general=*/1, /*max_given_up=*/0.0), 0.0);
}

}  // namespace
}  // namespace coterie
