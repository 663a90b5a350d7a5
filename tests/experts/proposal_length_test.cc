#include "experts/proposal_length.h"

#include <random>

#include "gtest/gtest.h"

namespace coterie {
namespace {

constexpr int64_t kMost = 7;

// Answers of so many tokens on a machine where a pass of n tokens takes 1 + slope * (n - 1), told
// with some noise; each prediction comes true with a chance.
class Answer {
 public:
  explicit Answer(double slope, uint32_t seed = 1) : slope_(slope), random_(seed) {}

  void Write(int64_t n_tokens, int64_t match_length, double chance) {
    std::bernoulli_distribution comes(chance);
    std::uniform_real_distribution<double> noise(0.9, 1.2);
    for (int64_t i = 0; i < n_tokens; ++i) {
      ++n_written_;
      const bool came = comes(random_);
      length_.NotePrediction(match_length, came);
      if (!came) n_ahead_ = 0;
      if (n_ahead_ > 0) {
        --n_ahead_;
        length_.NoteTaken();
        continue;
      }
      n_ahead_ = length_.Choose(match_length, kMost);
      n_proposed_ += n_ahead_;
      const double cost = 1 + slope_ * static_cast<double>(n_ahead_);
      time_ += cost;
      length_.NotePass(1 + n_ahead_, cost * noise(random_) * 0.02);
    }
  }

  // How many times as fast as without.
  double speed() const { return static_cast<double>(n_written_) / time_; }
  int64_t n_proposed() const { return n_proposed_; }
  ProposalLength& length() { return length_; }

 private:
  ProposalLength length_;
  const double slope_;
  std::mt19937 random_;
  int64_t n_ahead_ = 0;
  int64_t n_written_ = 0;
  int64_t n_proposed_ = 0;
  double time_ = 0;
};

TEST(ProposalLengthTest, WithoutAMatchThereIsNothingToPropose) {
  ProposalLength length;
  length.NotePass(1, 0.02);
  EXPECT_EQ(length.Choose(0, kMost), 0);
  EXPECT_GT(length.Choose(64, kMost), 0);
}

TEST(ProposalLengthTest, NeverMoreThanThereIsUseFor) {
  Answer answer(0.3);
  answer.Write(100, 64, 1.0);
  EXPECT_EQ(answer.length().Choose(64, kMost), kMost);
  EXPECT_EQ(answer.length().Choose(64, 2), 2);
  EXPECT_EQ(answer.length().Choose(64, 0), 0);
}

TEST(ProposalLengthTest, WhatIsCopiedIsWrittenMuchFaster) {
  Answer answer(0.3);
  answer.Write(200, 20, 0.97);
  EXPECT_GT(answer.speed(), 1.8);
}

TEST(ProposalLengthTest, WhateverIsPredictedAnAnswerIsAtMostThreePerCentSlower) {
  for (const double slope : {0.1, 0.3, 0.5, 1.0}) {
    for (const double chance : {0.0, 0.1, 0.2, 0.3, 0.5}) {
      for (uint32_t seed = 1; seed <= 5; ++seed) {
        Answer answer(slope, seed);
        answer.Write(200, 3, chance);
        EXPECT_GT(answer.speed(), 0.97) << "slope " << slope << ", chance " << chance;
      }
    }
  }
}

TEST(ProposalLengthTest, SilenceEndsWhenPredictionsComeTrueAgain) {
  Answer answer(0.3);
  answer.Write(100, 5, 0.0);
  EXPECT_EQ(answer.length().Choose(5, kMost), 0);
  const int64_t n_proposed = answer.n_proposed();
  answer.Write(50, 5, 0.0);
  EXPECT_EQ(answer.n_proposed(), n_proposed) << "and costs nothing meanwhile";
  answer.Write(40, 5, 1.0);
  EXPECT_GT(answer.length().Choose(5, kMost), 1);
}

TEST(ProposalLengthTest, ShortMatchesThatFailSayLittleOfLongOnes) {
  Answer answer(0.3);
  answer.Write(40, 3, 0.0);
  EXPECT_EQ(answer.length().Choose(3, kMost), 0);
  EXPECT_GT(answer.length().Choose(30, kMost), 0);
}

TEST(ProposalLengthTest, WhereTokensAheadCostAsMuchAsPassesNothingIsProposedForLong) {
  Answer answer(1.0);
  answer.Write(200, 10, 0.9);
  EXPECT_EQ(answer.length().Choose(10, kMost), 0);
  EXPECT_GT(answer.speed(), 0.97);
}

TEST(ProposalLengthTest, OneStallOfTheMachineDoesNotEndIt) {
  Answer answer(0.3);
  answer.Write(100, 20, 1.0);
  answer.length().NotePass(1 + kMost, 5.0);
  EXPECT_GT(answer.length().Choose(20, kMost), 3);
}

}  // namespace
}  // namespace coterie
