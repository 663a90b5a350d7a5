#include "lora/held_out_report.h"

#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/fuzz/gguf_draft.h"
#include "tests/fuzz/scratch_folder.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

class HeldOutReportTest : public ::testing::Test {
 protected:
  void SetUp() override {
    COTERIE_ASSERT_OK_AND_ASSIGN(
        expert_, Expert::Open(folder_.Write("tiny.gguf", testing::TinyModel().Bytes())));
    Add("a", "turn on the light", "alpha", Objective::kImitate, set_.train);
    Add("b", "turn on the lamp", "beta", Objective::kDiscourage, set_.train);
    Add("h", "turn on the lights", "held", Objective::kImitate, set_.held_out);
    Add("x", "turn on the light now", "xray", Objective::kImitate, set_.held_out);
    Add("r", "turn on the radio", "radio", Objective::kDiscourage, set_.held_out);
  }

  void Add(const std::string& id, const std::string& asked, const std::string& reply,
           Objective objective, std::vector<TrainingExample>& side) {
    Interaction one;
    one.id = id;
    one.messages = {{"user", asked, ""}};
    one.reply = reply;
    interactions_.push_back(one);
    TrainingExample example;
    example.id = id;
    example.objective = objective;
    side.push_back(example);
  }

  std::vector<HeldOutCase> Cases(const HeldOutCaseOptions& options = {}) const {
    return MakeHeldOutCases(interactions_, set_, expert_->tokenizer(), expert_->chat_template(),
                            options);
  }

  const testing::ScratchFolder folder_;
  std::shared_ptr<const Expert> expert_;
  std::vector<Interaction> interactions_;
  TrainingSet set_;
};

TEST_F(HeldOutReportTest, WhatIsShownIsAcceptedInTheTrainingPartAlone) {
  const std::vector<HeldOutCase> cases = Cases();
  ASSERT_THAT(cases, SizeIs(2));
  for (const HeldOutCase& one : cases) {
    const std::string shown = expert_->tokenizer().Decode(one.shown.tokens);
    EXPECT_THAT(shown, HasSubstr("alpha"));
    EXPECT_THAT(shown, Not(HasSubstr("beta")));
  }
  EXPECT_THAT(expert_->tokenizer().Decode(cases[0].shown.tokens), Not(HasSubstr("xray")));
  EXPECT_THAT(expert_->tokenizer().Decode(cases[0].plain.tokens), Not(HasSubstr("alpha")));
}

TEST_F(HeldOutReportTest, ExamplesThatTakeTooManyTokensAreNotShown) {
  HeldOutCaseOptions options;
  options.max_example_tokens = 1;
  options.max_cases = 1;
  const std::vector<HeldOutCase> cases = Cases(options);
  ASSERT_THAT(cases, SizeIs(1));
  EXPECT_EQ(cases[0].shown.tokens, cases[0].plain.tokens);
}

}  // namespace
}  // namespace coterie
