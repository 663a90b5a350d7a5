#include "lora/held_out_report.h"

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "lora/training_sequence.h"
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
    one.finish_reason = "stop";
    interactions_.push_back(one);
    TrainingExample example;
    example.id = id;
    example.objective = objective;
    COTERIE_ASSERT_OK_AND_ASSIGN(
        example.sequence, TeachReply(expert_->tokenizer(), expert_->chat_template(), one.messages,
                                     reply, /*ends=*/true));
    side.push_back(example);
  }

  ShownAnswers Shown(const ShownAnswersOptions& options = {}) const {
    return {interactions_, set_, expert_->tokenizer(), expert_->chat_template(), options};
  }

  std::vector<HeldOutCase> Cases(const ShownAnswersOptions& options = {}, size_t n = 16) const {
    ShownAnswers shown = Shown(options);
    return MakeHeldOutCases(set_, shown, n);
  }

  std::string Text(const TrainingSequence& sequence) const {
    return expert_->tokenizer().Decode(sequence.tokens);
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
  const std::vector<HeldOutCase> cases = Cases({.max_example_tokens = 1}, 1);
  ASSERT_THAT(cases, SizeIs(1));
  EXPECT_EQ(cases[0].shown.tokens, cases[0].plain.tokens);
}

TEST_F(HeldOutReportTest, AnEpisodeTeachesTheAnswersBeforeItsOwnAsWell) {
  Add("c", "turn on the lights again", "gamma", Objective::kImitate, set_.train);
  Add("d", "turn on the lights once more", "delta", Objective::kPrefer, set_.train);
  bool any_has_two = false;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    for (const auto& [index, episode] : Shown().Episodes(1000, seed)) {
      const TrainingSequence& sequence = episode.example.sequence;
      const TrainingExample& alone = set_.train[index];
      EXPECT_NE(alone.objective, Objective::kDiscourage);
      EXPECT_EQ(episode.example.objective, Objective::kImitate);
      std::vector<TokenId> targets, own;
      for (size_t t = 0; t < sequence.tokens.size(); ++t) {
        if (sequence.is_target[t]) targets.push_back(sequence.tokens[t]);
      }
      for (size_t t = 0; t < alone.sequence.tokens.size(); ++t) {
        if (alone.sequence.is_target[t]) own.push_back(alone.sequence.tokens[t]);
      }
      ASSERT_GE(targets.size(), own.size());
      EXPECT_TRUE(std::equal(own.rbegin(), own.rend(), targets.rbegin())) << "its own comes last";
      const std::string taught = expert_->tokenizer().Decode(targets);
      int n_answers = 0;
      for (const char* answer : {"alpha", "gamma", "delta"}) {
        n_answers += absl::StrContains(taught, answer) ? 1 : 0;
      }
      EXPECT_EQ(n_answers, episode.n_answers) << taught;
      EXPECT_THAT(Text(sequence), Not(HasSubstr("beta"))) << "rejected answers are not shown";
      EXPECT_THAT(Text(sequence), Not(HasSubstr("held"))) << "nor are those held out";
      any_has_two |= episode.n_answers > 1;
    }
  }
  EXPECT_TRUE(any_has_two);
}

TEST_F(HeldOutReportTest, TheNumberShownInAnEpisodeDependsOnTheSeed) {
  for (int i = 0; i < 12; ++i) {
    Add(absl::StrCat("n", i), absl::StrCat("turn on light number ", std::string(i, 'x')), "yes",
        Objective::kImitate, set_.train);
  }
  std::set<int64_t> found;
  for (const auto& [index, episode] : Shown().Episodes(100'000, 1)) found.insert(episode.n_answers);
  EXPECT_GE(found.size(), 3u);
  EXPECT_GE(*found.begin(), 2);
  EXPECT_LE(*found.rbegin(), 7);
  EXPECT_TRUE(Shown().Episodes(4, 1).empty()) << "longer than allowed";
}

}  // namespace
}  // namespace coterie
