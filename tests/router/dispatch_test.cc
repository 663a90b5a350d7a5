#include "router/dispatch.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::StatusIs;
using ::testing::HasSubstr;

DomainScores Scores(std::vector<Score> ranked, bool abstained = false) {
  DomainScores scores;
  scores.ranked = std::move(ranked);
  scores.abstained = abstained;
  return scores;
}

DomainScores Code(double p) { return Scores({{"code", p}, {"general", 1.0 - p}}); }

ExpertRow Row(std::string name, double code, double general) {
  ExpertRow row;
  row.name = std::move(name);
  row.quality = {{"code", code}, {"general", general}};
  row.bytes = 1000;
  row.load_ms = 2000;
  return row;
}

// A coder and a generalist, mirror images of each other.
ExpertTable TwoExperts() { return {Row("coder", 0.9, 0.4), Row("generalist", 0.4, 0.9)}; }

class DispatchTest : public ::testing::Test {
 protected:
  Choice Choose(const DomainScores& scores) {
    const absl::StatusOr<Choice> choice = Dispatch(scores, table_, residency_, conversation_);
    EXPECT_THAT(choice, testing::IsOk());
    return choice.ok() ? *choice : Choice();
  }

  ExpertTable table_ = TwoExperts();
  Residency residency_;
  ConversationState conversation_;
};

TEST_F(DispatchTest, TheBestExpectedQualityWins) {
  EXPECT_EQ(Choose(Code(0.6)).expert, "coder");
  EXPECT_EQ(Choose(Code(0.4)).expert, "generalist");
}

TEST_F(DispatchTest, ExpectedQualityIsTheSumOverDomains) {
  const Choice choice = Choose(Code(0.7));
  EXPECT_NEAR(choice.scores[0].expected_quality, 0.7 * 0.9 + 0.3 * 0.4, 1e-12);
  EXPECT_NEAR(choice.scores[1].expected_quality, 0.7 * 0.4 + 0.3 * 0.9, 1e-12);
  EXPECT_EQ(choice.decided_by, DecidedBy::kQuality);
  EXPECT_THAT(choice.reason, HasSubstr("code 70 %"));
}

TEST_F(DispatchTest, AQuickExpertWinsOverOneThatIsALittleBetterAndMuchSlower) {
  table_ = {Row("large", 0.50, 0.50), Row("small", 0.48, 0.48)};
  table_[0].answer_seconds = {{"code", 8.0}, {"general", 8.0}};
  table_[1].answer_seconds = {{"code", 2.0}, {"general", 2.0}};
  const Choice choice = Choose(Code(0.9));
  EXPECT_EQ(choice.expert, "small");
  EXPECT_EQ(choice.decided_by, DecidedBy::kSpeed);
  EXPECT_NEAR(choice.scores[0].expected_seconds, 2.0, 1e-12);
  EXPECT_THAT(choice.reason, HasSubstr("answers in about 2.0 s"));
}

TEST_F(DispatchTest, ASecondIsWorthItsPriceAndNoMore) {
  table_ = {Row("large", 0.50, 0.50), Row("small", 0.43, 0.43)};
  table_[0].answer_seconds = {{"code", 8.0}, {"general", 8.0}};
  table_[1].answer_seconds = {{"code", 2.0}, {"general", 2.0}};
  EXPECT_EQ(Choose(Code(0.9)).expert, "large");  // Six seconds are worth six points, not seven.
  EXPECT_EQ(Choose(Code(0.9)).decided_by, DecidedBy::kQuality);
}

TEST_F(DispatchTest, AnUnknownTimeCostsNothing) {
  table_ = {Row("large", 0.50, 0.50), Row("small", 0.48, 0.48)};
  EXPECT_EQ(Choose(Code(0.9)).expert, "large");
}

TEST_F(DispatchTest, ATimeThatIsNoTimeIsRefused) {
  for (const double seconds : {-1.0, std::numeric_limits<double>::infinity(), std::nan("")}) {
    table_[0].answer_seconds["code"] = seconds;
    EXPECT_THAT(Dispatch(Code(0.9), table_, residency_, conversation_),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("answer_seconds")));
  }
}

TEST_F(DispatchTest, AResidentExpertWinsACloseCall) {
  residency_.experts = {"generalist"};
  const Choice choice = Choose(Code(0.6));
  EXPECT_EQ(choice.expert, "generalist");
  EXPECT_EQ(choice.decided_by, DecidedBy::kResidency);
  EXPECT_THAT(choice.reason, HasSubstr("already in memory"));
}

TEST_F(DispatchTest, ResidencyIsWorthItsBonusInProbabilityAndNoMore) {
  residency_.experts = {"generalist"};
  // With mirrored experts the bonus of 0.3 is beaten from p - (1 - p) > 0.3 on.
  EXPECT_EQ(Choose(Code(0.64)).expert, "generalist");
  EXPECT_EQ(Choose(Code(0.66)).expert, "coder");
}

TEST_F(DispatchTest, TheBonusMeansTheSameForQualitiesOfAnotherScale) {
  table_ = {Row("coder", 0.09, 0.04), Row("generalist", 0.04, 0.09)};
  residency_.experts = {"generalist"};
  EXPECT_EQ(Choose(Code(0.64)).expert, "generalist");
  EXPECT_EQ(Choose(Code(0.66)).expert, "coder");
}

TEST_F(DispatchTest, ResidencyDoesNotCountWhenTheRouterIsConfident) {
  table_ = {Row("coder", 0.55, 0.5), Row("generalist", 0.5, 0.9)};
  residency_.experts = {"generalist"};
  const DomainScores sure = Scores({{"code", 0.95}, {"general", 0.05}});
  const Choice choice = Choose(sure);
  EXPECT_EQ(choice.expert, "coder");
  for (const ExpertScore& score : choice.scores) EXPECT_EQ(score.residency_bonus, 0.0);
}

TEST_F(DispatchTest, ResidencyDecidesALimitedNumberOfTimesInAConversation) {
  residency_.experts = {"generalist"};
  const DispatchOptions options{.max_residency_decisions = 2, .sticky_bonus = 0.0};
  std::vector<std::string> chosen;
  for (int turn = 0; turn < 4; ++turn) {
    const auto choice = Dispatch(Code(0.6), table_, residency_, conversation_, options);
    COTERIE_ASSERT_OK(choice);
    chosen.push_back(choice->expert);
    conversation_ = Advanced(conversation_, *choice);
  }
  EXPECT_THAT(chosen, ::testing::ElementsAre("generalist", "generalist", "coder", "coder"));
}

TEST_F(DispatchTest, AQuickLoadIsHardlyHeldAgainstAnExpert) {
  residency_.experts = {"generalist"};
  table_[0].load_ms = 50;
  EXPECT_EQ(Choose(Code(0.6)).expert, "coder");
}

TEST_F(DispatchTest, AnUnknownLoadCountsAsASlowOne) {
  residency_.experts = {"generalist"};
  table_[0].load_ms = 0;
  EXPECT_EQ(Choose(Code(0.6)).expert, "generalist");
}

TEST_F(DispatchTest, TheExpertOfTheLastTurnKeepsACloseCall) {
  conversation_.last_expert = "generalist";
  const Choice close = Choose(Code(0.54));
  EXPECT_EQ(close.expert, "generalist");
  EXPECT_EQ(close.decided_by, DecidedBy::kSticky);
  EXPECT_EQ(Choose(Code(0.6)).expert, "coder");
}

TEST_F(DispatchTest, AnAbstentionGoesToTheBestGeneralExpertWhateverIsResident) {
  residency_.experts = {"coder"};
  const Choice choice = Choose(Scores({{"code", 0.45}, {"general", 0.55}}, /*abstained=*/true));
  EXPECT_EQ(choice.expert, "generalist");
  EXPECT_EQ(choice.decided_by, DecidedBy::kAbstention);
  const Choice specialist = Choose(Scores({{"code", 0.55}, {"general", 0.45}}, true));
  EXPECT_EQ(specialist.expert, "generalist");
}

TEST_F(DispatchTest, AnAbstentionWithoutAGeneralistFollowsTheProbabilities) {
  table_ = {Row("coder", 0.9, 0.0), Row("shell", 0.8, 0.0)};
  EXPECT_EQ(Choose(Scores({{"code", 0.4}, {"general", 0.6}}, true)).expert, "coder");
}

TEST_F(DispatchTest, AnExpertThatCannotFitIsNotChosenIfAnotherCan) {
  table_[0].fits = false;
  const Choice choice = Choose(Code(0.99));
  EXPECT_EQ(choice.expert, "generalist");
  EXPECT_EQ(choice.decided_by, DecidedBy::kOnlyFit);
  EXPECT_FALSE(choice.scores.back().fits);
}

TEST_F(DispatchTest, IfNoExpertFitsTheErrorNamesTheSmallest) {
  for (ExpertRow& row : table_) row.fits = false;
  table_[1].bytes = 10;
  EXPECT_THAT(
      Dispatch(Code(0.5), table_, residency_, conversation_),
      StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("smallest=generalist, bytes=10")));
}

TEST_F(DispatchTest, TiesGoToTheResidentExpertThenToTheEarlierRow) {
  table_ = {Row("a", 0.5, 0.5), Row("b", 0.5, 0.5)};
  EXPECT_EQ(Choose(Code(0.9)).expert, "a");
  residency_.experts = {"b"};
  EXPECT_EQ(Choose(Code(0.9)).expert, "b");
}

TEST_F(DispatchTest, AMissingDomainIsQualityZero) {
  table_[1].quality.erase("code");
  EXPECT_EQ(Choose(Code(1.0)).scores.back().expected_quality, 0.0);
}

TEST_F(DispatchTest, ScoresComeBestFirst) {
  const Choice choice = Choose(Code(0.2));
  EXPECT_EQ(choice.scores.front().expert, choice.expert);
  EXPECT_GE(choice.scores[0].total(), choice.scores[1].total());
}

TEST_F(DispatchTest, BadTablesAreRefused) {
  const auto refused = StatusIs(absl::StatusCode::kInvalidArgument, ::testing::_);
  EXPECT_THAT(Dispatch(Code(0.5), {}, residency_, conversation_), refused);
  EXPECT_THAT(Dispatch(Scores({}), table_, residency_, conversation_), refused);
  ExpertTable twice = {table_[0], table_[0]};
  EXPECT_THAT(Dispatch(Code(0.5), twice, residency_, conversation_), refused);
  ExpertTable nameless = {Row("", 0.5, 0.5)};
  EXPECT_THAT(Dispatch(Code(0.5), nameless, residency_, conversation_), refused);
  for (const double bad : {-0.1, 1.1, std::numeric_limits<double>::quiet_NaN()}) {
    ExpertTable wrong = {Row("coder", bad, 0.5)};
    EXPECT_THAT(Dispatch(Code(0.5), wrong, residency_, conversation_), refused);
  }
}

}  // namespace
}  // namespace coterie
