#include "lora/training_set.h"

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "lora/training_sequence.h"
#include "tests/core/formats/small_vocabulary.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::IsOk;
using ::coterie::testing::SmallVocabulary;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kChatMl[] =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

class TrainingSetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SmallVocabulary small({});
    small.Add("<|im_start|>", TokenType::kControl);
    end_ = small.Add("<|im_end|>", TokenType::kControl);
    small->eos = end_;
    COTERIE_ASSERT_OK_AND_ASSIGN(tokenizer_, small.Build());
    COTERIE_ASSERT_OK_AND_ASSIGN(template_, ChatTemplate::Parse(kChatMl, "chatml"));
  }

  static Interaction Make(const std::string& id, const std::string& asked, const std::string& reply,
                          Feedback feedback) {
    Interaction one;
    one.id = id;
    one.messages = {{"user", asked, ""}};
    one.reply = reply;
    one.finish_reason = "stop";
    one.feedback = std::move(feedback);
    static int64_t change = 0;
    one.change = ++change;
    return one;
  }

  TrainingSet Build(const std::vector<Interaction>& interactions,
                    const TrainingSetOptions& options = {.held_out_share = 0}) {
    return BuildTrainingSet(interactions, *tokenizer_, template_.get(), options);
  }

  std::string Text(const TrainingSequence& sequence, bool targets_only) const {
    std::vector<TokenId> ids;
    for (size_t i = 0; i < sequence.tokens.size(); ++i) {
      if (!targets_only || sequence.is_target[i]) ids.push_back(sequence.tokens[i]);
    }
    return tokenizer_->Decode(ids);
  }

  TokenId end_ = 0;
  std::unique_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<const ChatTemplate> template_;
};

TEST_F(TrainingSetTest, OnlyTheLastAnswerAndItsClosingTokenAreLearned) {
  const std::vector<Message> talk = {
      {"user", "one", ""}, {"assistant", "first", ""}, {"user", "two", ""}};
  COTERIE_ASSERT_OK_AND_ASSIGN(const TrainingSequence sequence,
                               TeachReply(*tokenizer_, template_.get(), talk, "second", true));
  EXPECT_EQ(Text(sequence, false),
            "<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\nfirst<|im_end|>\n"
            "<|im_start|>user\ntwo<|im_end|>\n<|im_start|>assistant\nsecond<|im_end|>");
  EXPECT_EQ(Text(sequence, true), "second<|im_end|>");
  COTERIE_ASSERT_OK_AND_ASSIGN(const TrainingSequence cut,
                               TeachReply(*tokenizer_, template_.get(), talk, "second", false));
  EXPECT_EQ(Text(cut, true), "second") << "a reply that was cut off does not end there";
}

TEST_F(TrainingSetTest, AUsersSpecialTokensAreText) {
  COTERIE_ASSERT_OK_AND_ASSIGN(
      const TrainingSequence sequence,
      TeachReply(*tokenizer_, template_.get(), {{"user", "<|im_end|>", ""}}, "<|im_end|>x", true));
  EXPECT_EQ(std::count(sequence.tokens.begin(), sequence.tokens.end(), end_), 2);
  EXPECT_EQ(Text(sequence, true), "<|im_end|>x<|im_end|>");
}

TEST_F(TrainingSetTest, ABaseModelContinuesThePrompt) {
  COTERIE_ASSERT_OK_AND_ASSIGN(
      const TrainingSequence sequence,
      TeachReply(*tokenizer_, nullptr, {{"user", "The capital is", ""}}, " Paris", true));
  EXPECT_EQ(Text(sequence, false), "The capital is Paris<|im_end|>");
  EXPECT_EQ(Text(sequence, true), " Paris<|im_end|>");
}

TEST_F(TrainingSetTest, EachKindOfFeedbackHasItsObjective) {
  const TrainingSet set = Build({Make("a", "q one", "good", {Verdict::kAccepted, "", ""}),
                                 Make("b", "q two", "bad", {Verdict::kRejected, "", ""}),
                                 Make("c", "q three", "abcd", {Verdict::kEdited, "abXY", ""}),
                                 Make("d", "q four", "none", {})});
  std::map<std::string, std::vector<const TrainingExample*>> by_id;
  for (const TrainingExample& example : set.train) by_id[example.id].push_back(&example);
  ASSERT_THAT(by_id, SizeIs(3));
  EXPECT_EQ(by_id["a"][0]->objective, Objective::kImitate);
  EXPECT_EQ(Text(by_id["a"][0]->sequence, true), "good<|im_end|>");
  EXPECT_LT(by_id["a"][0]->weight, 1);
  EXPECT_EQ(by_id["b"][0]->objective, Objective::kDiscourage);
  ASSERT_THAT(by_id["c"], SizeIs(1));
  EXPECT_EQ(by_id["c"][0]->objective, Objective::kPrefer);
  EXPECT_EQ(Text(by_id["c"][0]->sequence, true), "abXY<|im_end|>");
  EXPECT_EQ(Text(by_id["c"][0]->instead, true), "abcd<|im_end|>");
  EXPECT_FLOAT_EQ(by_id["c"][0]->preference, 0.5f);
  EXPECT_GT(set.through_change, 0);
}

TEST_F(TrainingSetTest, TheShareOfAnEditCountsFromNothingToAll) {
  EXPECT_EQ(EditShare("same", "same"), 0);
  EXPECT_EQ(EditShare("", ""), 0);
  EXPECT_EQ(EditShare("abc", ""), 1);
  EXPECT_EQ(EditShare("abc", "xyz"), 1);
  EXPECT_DOUBLE_EQ(EditShare("abcd", "abXd"), 0.25);
  const std::string book(1'000'000, 'x');
  EXPECT_DOUBLE_EQ(EditShare(book, std::string(1'000'000, 'y')), 1) << "and takes no minutes";
}

TEST_F(TrainingSetTest, NearDuplicatesAndConversationsStayOnOneSide) {
  std::vector<Interaction> log;
  for (int i = 0; i < 300; ++i) {
    const std::string topic =
        absl::StrCat("topic ", std::string(1, 'a' + i % 26), std::string(1, 'a' + i / 26));
    Interaction one = Make(absl::StrCat("n", i), topic, "yes", {Verdict::kAccepted, "", ""});
    one.conversation = absl::StrCat("talk", i);
    log.push_back(one);
    Interaction again = Make(absl::StrCat("m", i), absl::StrCat("  ", topic, "!? "), "no",
                             {Verdict::kAccepted, "", ""});
    again.messages[0].content[2] = 'T';
    log.push_back(again);
    Interaction later =
        Make(absl::StrCat("l", i), absl::StrCat("more ", i), "well", {Verdict::kAccepted, "", ""});
    later.messages.insert(later.messages.begin(), {{"user", topic, ""}, {"assistant", "yes", ""}});
    later.messages.back().content += std::string(1, 'a' + i % 26) + std::string(1, 'a' + i / 26);
    later.conversation = one.conversation;
    log.push_back(later);
  }
  const TrainingSet set = Build(log, {});
  std::map<std::string, std::set<bool>> sides;
  for (const auto& example : set.train) sides[example.id.substr(1)].insert(false);
  for (const auto& example : set.held_out) sides[example.id.substr(1)].insert(true);
  ASSERT_THAT(sides, SizeIs(300));
  for (const auto& [topic, on] : sides) EXPECT_THAT(on, SizeIs(1)) << topic;
  EXPECT_EQ(set.train.size() + set.held_out.size(), 900u);
  EXPECT_GT(set.held_out.size(), 900 * 0.13);
  EXPECT_LT(set.held_out.size(), 900 * 0.27);
}

TEST_F(TrainingSetTest, WhatWasHeldOutStaysSoWhileTheLogGrowsAndTheOrderHolds) {
  std::vector<Interaction> log;
  for (int i = 0; i < 60; ++i) {
    log.push_back(Make(absl::StrCat("n", i), absl::StrCat("q ", std::string(i + 1, 'x')), "a",
                       {Verdict::kAccepted, "", ""}));
  }
  const TrainingSet all = Build(log, {.seed = 3});
  log.erase(log.begin() + 20);
  const TrainingSet without = Build(log, {.seed = 3});
  const auto ids = [](const std::vector<TrainingExample>& examples) {
    std::vector<std::string> found;
    for (const auto& example : examples) {
      if (example.id != "n20") found.push_back(example.id);
    }
    return found;
  };
  EXPECT_EQ(ids(all.train), ids(without.train));
  EXPECT_EQ(ids(all.held_out), ids(without.held_out));
  EXPECT_NE(ids(all.train), ids(Build(log, {.seed = 4}).train));
}

TEST_F(TrainingSetTest, OfOneAnswerTheLatestFeedbackCounts) {
  const TrainingSet set = Build({Make("a", "q", "same", {Verdict::kAccepted, "", ""}),
                                 Make("b", "q", "same", {Verdict::kRejected, "", ""})});
  ASSERT_THAT(set.train, SizeIs(1));
  EXPECT_EQ(set.train[0].id, "b");
  ASSERT_THAT(set.left_out, SizeIs(1));
  EXPECT_EQ(set.left_out[0].id, "a");
  EXPECT_THAT(set.left_out[0].reason, HasSubstr("later feedback"));
}

TEST_F(TrainingSetTest, WhatIsTooLongIsLeftOutWithItsNumbers) {
  const std::string book(2000, 'x');
  const TrainingSet set = Build({Make("a", book, "r", {Verdict::kAccepted, "", ""}),
                                 Make("b", "q", book, {Verdict::kEdited, "short", ""}),
                                 Make("c", "q", "", {Verdict::kEdited, "text", ""})});
  ASSERT_THAT(set.left_out, SizeIs(1));
  EXPECT_EQ(set.left_out[0].id, "a");
  EXPECT_THAT(set.left_out[0].reason, HasSubstr("allowed=1024"));
  size_t n_b = 0;
  for (const auto& example : set.train) n_b += example.id == "b";
  EXPECT_EQ(n_b, 1u) << "of a reply that is too long, the edit is learned";
}

TEST_F(TrainingSetTest, NoFeedbackIsNoExample) {
  EXPECT_THAT(Build({}).train, IsEmpty());
  EXPECT_THAT(Build({Make("a", "q", "r", {Verdict::kNone, "", "code"})}).train, IsEmpty());
}

}  // namespace
}  // namespace coterie
