#include "router/evaluation.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace coterie {
namespace {

EvaluatedPrompt Prompt(const char* label, const char* domain, bool abstained = false) {
  return {label, abstained ? "general" : domain, domain, 1.0, abstained};
}

TEST(EvaluationTest, AWrongSpecialistCountsAsOneAndTheGeneralistDoesNot) {
  const Evaluation result = Evaluate({Prompt("code", "code"), Prompt("code", "math"),
                                      Prompt("code", "general"), Prompt("general", "code")});
  EXPECT_EQ(result.n, 4);
  EXPECT_DOUBLE_EQ(result.accuracy, 0.25);
  EXPECT_DOUBLE_EQ(result.wrong_expert_rate, 0.5);
}

TEST(EvaluationTest, AnAbstentionCountsAsGeneral) {
  const Evaluation result =
      Evaluate({Prompt("general", "code", /*abstained=*/true), Prompt("code", "code", true)});
  EXPECT_DOUBLE_EQ(result.accuracy, 0.5);
  EXPECT_DOUBLE_EQ(result.wrong_expert_rate, 0.0);
  EXPECT_DOUBLE_EQ(result.abstained_rate, 1.0);
}

TEST(EvaluationTest, MacroF1IsTheMeanOverLabels) {
  // code: precision 1, recall 1/2; math: precision 1/2, recall 1.
  const Evaluation result =
      Evaluate({Prompt("code", "code"), Prompt("code", "math"), Prompt("math", "math")});
  EXPECT_NEAR(result.macro_f1, (2.0 / 3.0 + 2.0 / 3.0) / 2.0, 1e-12);
  EXPECT_DOUBLE_EQ(result.recall_by_label.at("code"), 0.5);
}

}  // namespace
}  // namespace coterie
