#include "runtime/idle_training.h"

#include "gtest/gtest.h"

#include "runtime/training_pause.h"
#include "tests/fuzz/scratch_folder.h"

namespace coterie {
namespace {

class IdleTrainingTest : public ::testing::Test {
 protected:
  std::string Chosen() { return ExpertToTrain(options_, now_ - asked_, on_ac_, feedback_); }

  IdleTrainingOptions options_{true, absl::Minutes(10), 20, true};
  absl::Time asked_ = absl::FromUnixSeconds(0);
  absl::Time now_ = asked_ + absl::Minutes(10);
  bool on_ac_ = true;
  std::map<std::string, FeedbackCounts> feedback_ = {{"few", {10, 5, 4}}, {"many", {10, 5, 5}}};
};

TEST_F(IdleTrainingTest, ItBeginsWithEnoughFeedbackWhenNobodyHasAskedForLongEnough) {
  EXPECT_EQ(Chosen(), "many");
  now_ -= absl::Seconds(1);
  EXPECT_EQ(Chosen(), "");
  now_ += absl::Seconds(1);
  feedback_["many"].n_edited = 4;
  EXPECT_EQ(Chosen(), "");
}

TEST_F(IdleTrainingTest, TheExpertWithMostIsFirstAndOfEqualsTheFirstByName) {
  feedback_["most"] = {0, 0, 50};
  EXPECT_EQ(Chosen(), "most");
  feedback_["also"] = {0, 50, 0};
  EXPECT_EQ(Chosen(), "also");
}

TEST_F(IdleTrainingTest, OnABatteryItWaitsUnlessItMayNot) {
  on_ac_ = false;
  EXPECT_EQ(Chosen(), "");
  options_.only_on_ac = false;
  EXPECT_EQ(Chosen(), "many");
  options_.enabled = false;
  EXPECT_EQ(Chosen(), "");
}

TEST(OnAcPowerTest, AMachineWithoutMainsOrWithOneThatIsOnlineIsOnAcPower) {
  const testing::ScratchFolder folder;
  EXPECT_TRUE(OnAcPower(folder.path("nothing")));
  folder.Write("BAT0/type", "Battery\n");
  folder.Write("BAT0/online", "1\n");
  EXPECT_TRUE(OnAcPower(folder.path()));
  folder.Write("AC/type", "Mains\n");
  folder.Write("AC/online", "0\n");
  EXPECT_FALSE(OnAcPower(folder.path()));
  folder.Write("AC/online", "1\n");
  EXPECT_TRUE(OnAcPower(folder.path()));
}

TEST(TrainingPauseTest, OnlyAStretchThatRunsIsAskedToEnd) {
  TrainingPause pause;
  pause.Ask();
  const std::stop_source first;
  pause.Begin(first);
  EXPECT_FALSE(first.stop_requested());
  pause.Ask();
  EXPECT_TRUE(first.stop_requested());
  EXPECT_TRUE(pause.End());
  EXPECT_FALSE(pause.End());
  const std::stop_source second;
  pause.Begin(second);
  EXPECT_FALSE(pause.End());
  pause.Ask();
  EXPECT_FALSE(second.stop_requested());
}

}  // namespace
}  // namespace coterie
