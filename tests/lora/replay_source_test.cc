#include "lora/replay_source.h"

#include <algorithm>
#include <memory>
#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "lora/general_text.h"
#include "tests/core/formats/small_vocabulary.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::SmallVocabulary;
using ::coterie::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

std::string Book() {
  std::string text;
  for (int i = 0; i < 200; ++i) {
    text += "Line " + std::to_string(i) + " of a book about something else entirely.\n\n";
  }
  return text;
}

class ReplaySourceTest : public ::testing::Test {
 protected:
  void SetUp() override { COTERIE_ASSERT_OK_AND_ASSIGN(tokenizer_, SmallVocabulary({}).Build()); }

  std::unique_ptr<const Tokenizer> tokenizer_;
};

TEST_F(ReplaySourceTest, PassagesDifferAndAllTokensButTheFirstAreTargets) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const ReplaySource source, ReplaySource::FromText(Book(), "book"));
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto examples, source.Examples(*tokenizer_, 10, 64, 1, 0.5f));
  ASSERT_THAT(examples, SizeIs(10));
  std::set<std::vector<TokenId>> different;
  for (const TrainingExample& example : examples) {
    different.insert(example.sequence.tokens);
    EXPECT_THAT(example.sequence.tokens, SizeIs(64));
    EXPECT_FALSE(example.sequence.is_target[0]);
    for (size_t i = 1; i < 64; ++i) EXPECT_TRUE(example.sequence.is_target[i]);
    EXPECT_EQ(example.weight, 0.5f);
    EXPECT_THAT(example.id, HasSubstr("replay:"));
  }
  EXPECT_THAT(different, SizeIs(10));
}

TEST_F(ReplaySourceTest, TheSeedChooses) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const ReplaySource source, ReplaySource::FromText(Book(), "book"));
  const auto ids = [&](uint64_t seed) {
    std::vector<std::string> found;
    const auto examples = source.Examples(*tokenizer_, 5, 64, seed);
    EXPECT_THAT(examples, testing::IsOk());
    for (const auto& example : *examples) {
      found.push_back(example.id);
    }
    return found;
  };
  EXPECT_EQ(ids(1), ids(1));
  EXPECT_NE(ids(1), ids(2));
}

TEST_F(ReplaySourceTest, ThereAreNoMorePassagesThanTheTextHas) {
  COTERIE_ASSERT_OK_AND_ASSIGN(
      const ReplaySource source,
      ReplaySource::FromText("One line that is long enough to be worth rehearsing.", "line"));
  EXPECT_THAT(*source.Examples(*tokenizer_, 10, 64, 1), SizeIs(1));
}

TEST_F(ReplaySourceTest, APassageIsAsManyWholeLinesAsFit) {
  const std::string line(100, 'x');
  std::string text;
  for (int i = 0; i < 9; ++i) text += line + "\n";
  text += std::string(1000, 'y');  // A line that is too long for any passage.
  COTERIE_ASSERT_OK_AND_ASSIGN(const ReplaySource source, ReplaySource::FromText(text, "lines"));
  // 64 tokens are at most 320 bytes: three lines.
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto examples, source.Examples(*tokenizer_, 10, 64, 1));
  std::set<std::string> ids;
  for (const TrainingExample& example : examples) ids.insert(example.id);
  EXPECT_THAT(ids, ElementsAre("replay:0", "replay:303", "replay:606", "replay:909"));
}

TEST_F(ReplaySourceTest, WhatIsBuiltInIsAPassageALineAndNothingThatForgettingIsMeasuredWith) {
  const std::string text = GeneralText();
  const int64_t n_lines = std::count(text.begin(), text.end(), '\n');
  EXPECT_GE(n_lines, 50);
  COTERIE_ASSERT_OK_AND_ASSIGN(const ReplaySource source, ReplaySource::FromText(text, "own"));
  EXPECT_EQ(static_cast<int64_t>(source.Examples(*tokenizer_, 1000, 96, 0)->size()), n_lines);
  EXPECT_GE(ProbePassages().size(), 16u);
  for (const absl::string_view probe : ProbePassages()) {
    EXPECT_THAT(text, Not(HasSubstr(std::string(probe.substr(0, 20)))));
  }
}

TEST_F(ReplaySourceTest, BadTextsAreRefusedByName) {
  EXPECT_THAT(ReplaySource::FromText("\n\n = Title = \n", "t.txt"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("t.txt")));
  EXPECT_THAT(ReplaySource::FromText("abc\xff", "t.txt"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("byte=3")));
  EXPECT_THAT(ReplaySource::Open("/nowhere/t.txt"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nowhere/t.txt")));
}

}  // namespace
}  // namespace coterie
