#include "lora/training_objective.h"

#include <cmath>

#include "gtest/gtest.h"

namespace coterie {
namespace {

constexpr double kBeta = 0.3;

TrainingExample ExampleOf(Objective objective) {
  TrainingExample example;
  example.objective = objective;
  example.weight = 0.7f;
  example.sequence.is_target = {false, true, true};
  return example;
}

TEST(TrainingObjectiveTest, DerivativesAreThoseOfTheLoss) {
  for (const Objective objective :
       {Objective::kImitate, Objective::kPrefer, Objective::kEncourage, Objective::kDiscourage}) {
    const TrainingExample example = ExampleOf(objective);
    const BatchTotals totals = BatchTotals::Of({&example, 1}, 0.5);
    const ExampleLikelihood at{3, 4, 5, 5.5};
    const auto slope = [&](double ExampleLikelihood::*which) {
      ExampleLikelihood up = at, down = at;
      up.*which += 1e-5;
      down.*which -= 1e-5;
      return (LossOf(example, up, totals, kBeta).loss - LossOf(example, down, totals, kBeta).loss) /
             2e-5;
    };
    const ExampleLoss loss = LossOf(example, at, totals, kBeta);
    EXPECT_NEAR(loss.by_nll, slope(&ExampleLikelihood::nll), 1e-7);
    EXPECT_NEAR(loss.by_instead_nll, slope(&ExampleLikelihood::instead_nll), 1e-7);
  }
}

TEST(TrainingObjectiveTest, ExtremeRatiosStayFinite) {
  const TrainingExample example = ExampleOf(Objective::kPrefer);
  const BatchTotals totals = BatchTotals::Of({&example, 1}, 0.5);
  for (const double nll : {1e6, -1e6}) {
    const ExampleLoss loss = LossOf(example, {nll, 0, 0, 0}, totals, kBeta);
    EXPECT_TRUE(std::isfinite(loss.loss) && std::isfinite(loss.by_nll));
  }
}

}  // namespace
}  // namespace coterie
