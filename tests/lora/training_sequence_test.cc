// What is learned of a conversation, in the templates of real models (label "model").

#include "lora/training_sequence.h"

#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "experts/expert.h"
#include "experts/generation.h"
#include "tests/model_files.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

constexpr char kReply[] = "{\"action\":\"on\",\"device\":\"lamp\"}\nIt's \"done\" – ok?";

const std::vector<Message>& Talk() {
  static const std::vector<Message> talk = {{"system", "Answer with JSON.", ""},
                                            {"user", "Hello", ""},
                                            {"assistant", "Hi!", ""},
                                            {"user", "lamp on\n", ""}};
  return talk;
}

class TrainingSequenceTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    COTERIE_ASSERT_OK_AND_ASSIGN(expert_, Expert::Open(testing::ModelFile(GetParam())));
  }

  std::shared_ptr<const Expert> expert_;
};

// The prompt as it is served, then what the model would have to write.
TEST_P(TrainingSequenceTest, TheTargetsAreWhatFollowsTheServedPrompt) {
  const Tokenizer& tokenizer = expert_->tokenizer();
  COTERIE_ASSERT_OK_AND_ASSIGN(const Encoding prompt, EncodeConversation(*expert_, Talk()));
  COTERIE_ASSERT_OK_AND_ASSIGN(std::vector<TokenId> ids,
                               tokenizer.Encode(kReply, /*add_special=*/false, false));
  COTERIE_ASSERT_OK_AND_ASSIGN(
      const TrainingSequence sequence,
      TeachReply(tokenizer, expert_->chat_template(), Talk(), kReply, /*ends=*/true));
  ids.insert(ids.begin(), prompt.ids.begin(), prompt.ids.end());
  ASSERT_EQ(sequence.tokens.size(), ids.size() + 1);
  EXPECT_TRUE(std::equal(ids.begin(), ids.end(), sequence.tokens.begin()));
  EXPECT_TRUE(tokenizer.IsEndOfGeneration(sequence.tokens.back()));
  for (size_t i = 0; i < sequence.tokens.size(); ++i) {
    EXPECT_EQ(sequence.is_target[i], i >= prompt.ids.size()) << i;
  }
}

TEST_P(TrainingSequenceTest, AnswersShownBeforeAreTargetsAsWhenTheyWereGiven) {
  if (expert_->chat_template() == nullptr) return;  // Without a template there are no turns.
  const Tokenizer& tokenizer = expert_->tokenizer();
  const ChatTemplate* chat = expert_->chat_template();
  COTERIE_ASSERT_OK_AND_ASSIGN(const TrainingSequence last,
                               TeachReply(tokenizer, chat, Talk(), kReply, true));
  COTERIE_ASSERT_OK_AND_ASSIGN(
      const TrainingSequence first,
      TeachReply(tokenizer, chat, absl::MakeConstSpan(Talk()).first(2), "Hi!", true));
  COTERIE_ASSERT_OK_AND_ASSIGN(const TrainingSequence both,
                               TeachConversation(tokenizer, chat, Talk(), kReply, true, 3));
  ASSERT_EQ(both.tokens, last.tokens);
  for (size_t i = 0; i < both.tokens.size(); ++i) {
    const bool is_first = i < first.tokens.size() && first.is_target[i];
    EXPECT_EQ(both.is_target[i], is_first || last.is_target[i]) << i;
  }
  COTERIE_ASSERT_OK_AND_ASSIGN(const TrainingSequence none_shown,
                               TeachConversation(tokenizer, chat, Talk(), kReply, true, 2));
  EXPECT_EQ(none_shown.is_target, last.is_target);
}

// The roles that the encoding of the whole conversation keeps say the same.
TEST_P(TrainingSequenceTest, TheTargetsAreTheTokensOfTheAssistantsLastTurn) {
  if (expert_->chat_template() == nullptr) return;  // Without a template there are no turns.
  std::vector<Message> whole = Talk();
  whole.push_back({"assistant", kReply, ""});
  const Tokenizer& tokenizer = expert_->tokenizer();
  COTERIE_ASSERT_OK_AND_ASSIGN(
      const Encoding encoded,
      EncodeConversation(tokenizer, expert_->chat_template(), whole, /*awaits_answer=*/false));
  COTERIE_ASSERT_OK_AND_ASSIGN(
      const TrainingSequence sequence,
      TeachReply(tokenizer, expert_->chat_template(), Talk(), kReply, /*ends=*/true));
  ASSERT_LE(sequence.tokens.size(), encoded.ids.size());
  size_t begin = encoded.roles.size();
  while (begin > 0 && encoded.roles[begin - 1] == Role::kAssistant) --begin;
  const std::string header = "<|im_start|>assistant\n";
  const size_t n_header = tokenizer.Encode(header, false, true)->size();
  for (size_t i = 0; i < sequence.tokens.size(); ++i) {
    EXPECT_EQ(sequence.tokens[i], encoded.ids[i]) << i;
    EXPECT_EQ(sequence.is_target[i], i >= begin + n_header) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, TrainingSequenceTest,
                         ::testing::Values("smollm2-135m", "qwen2.5-coder-0.5b", "gemma-3-270m"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name) c = std::isalnum(c) ? c : '_';
                           return name;
                         });

}  // namespace
}  // namespace coterie
