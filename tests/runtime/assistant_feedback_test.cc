// What an assistant keeps and learns, on the real models of the store (label "model").

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "runtime/assistant.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::IsOk;
using ::coterie::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kSmall[] = "smollm2-135m";
constexpr char kCode[] = "qwen2.5-coder-0.5b";
constexpr char kPrompt[] = "Hello! How are you today?";  // The router gives it to kSmall.

class AssistantFeedbackTest : public ::testing::Test {
 protected:
  AssistantFeedbackTest() {
    folder_ = absl::StrCat(::testing::TempDir(), "/coterie_feedback_", getpid());
    std::filesystem::create_directories(folder_);
    configuration_ = *Configuration::Default();
    configuration_.memory_budget_bytes = 900'000'000;
    configuration_.router_path = COTERIE_DEFAULT_ROUTER;
    configuration_.learning.log_path = folder_ + "/interactions.db";
  }
  ~AssistantFeedbackTest() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<Assistant> Open() {
    auto assistant = Assistant::Open(configuration_);
    EXPECT_THAT(assistant, IsOk());
    return *std::move(assistant);
  }

  static Reply Ask(Assistant& assistant, const std::string& prompt, const std::string& expert = "",
                   bool log = true) {
    Request request;
    request.messages.push_back({"user", prompt, ""});
    request.sampling.temperature = 0.0f;
    request.expert = expert;
    request.max_tokens = 4;
    request.log = log;
    const auto reply = assistant.Generate(request, [](absl::string_view) { return true; }, {});
    EXPECT_THAT(reply, IsOk());
    return reply.ok() ? *reply : Reply();
  }

  static std::vector<Event> LogFailures(Assistant& assistant) {
    std::vector<Event> events = assistant.TakeEvents();
    events.erase(std::remove_if(events.begin(), events.end(),
                                [](const Event& event) { return event.kind != "log_failed"; }),
                 events.end());
    return events;
  }

  std::string folder_;
  Configuration configuration_;
};

TEST_F(AssistantFeedbackTest, AReplyIsLoggedAsTheExpertReadItUnlessTheRequestSaysNo) {
  const ExpertConfiguration expert{.name = "brief",
                                   .model = kSmall,
                                   .system_prompt = "Be brief.",
                                   .chat_template = "",
                                   .adapter = "",
                                   .domains = {{"general", 1.0}},
                                   .sampling = {},
                                   .keep_alive = {}};
  configuration_.experts = {expert};
  const auto assistant = Open();
  const Reply reply = Ask(*assistant, kPrompt);
  Ask(*assistant, "not for the log", "", /*log=*/false);
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto logged, assistant->interactions()->List({}));
  ASSERT_THAT(logged, SizeIs(1));
  EXPECT_EQ(logged[0].id, reply.id);
  EXPECT_EQ(logged[0].expert, "brief");
  EXPECT_THAT(logged[0].base, HasSubstr("sha256:"));
  ASSERT_THAT(logged[0].messages, SizeIs(2));
  EXPECT_EQ(logged[0].messages[0].content, "Be brief.");
  EXPECT_EQ(logged[0].messages[1].content, kPrompt);
  EXPECT_EQ(logged[0].reply, reply.generation.text);
  EXPECT_EQ(logged[0].finish_reason, "length");
  EXPECT_FALSE(logged[0].route.domain.empty());
}

TEST_F(AssistantFeedbackTest, WithoutALogThereIsNothingToGiveFeedbackOn) {
  configuration_.learning.log = false;
  const auto assistant = Open();
  const Reply reply = Ask(*assistant, kPrompt);
  EXPECT_THAT(assistant->GiveFeedback(reply.id, {Verdict::kAccepted, "", ""}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("[learning]")));
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/interactions.db"));
}

TEST_F(AssistantFeedbackTest, ALogThatCannotBeOpenedIsOneProblemAndAnswersGoOn) {
  std::ofstream(configuration_.learning.log_path) << std::string(5000, 'x');
  const auto assistant = Open();
  const std::vector<std::string>& problems = assistant->problems();
  EXPECT_EQ(std::count_if(problems.begin(), problems.end(),
                          [](const std::string& problem) {
                            return problem.find("answers are not logged") != std::string::npos &&
                                   problem.find("interactions.db") != std::string::npos;
                          }),
            1);
  EXPECT_FALSE(Ask(*assistant, kPrompt).generation.text.empty());
}

TEST_F(AssistantFeedbackTest, AFailureToLogIsToldOnceAndAnswersGoOn) {
  configuration_.learning.log_bytes = 2000;  // Below what a file may ask for.
  const auto assistant = Open();
  const std::string page(600, '-');
  for (int i = 0; i < 2; ++i) Ask(*assistant, page + kPrompt, kSmall);
  const std::vector<Event> events = LogFailures(*assistant);
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_THAT(events[0].text, HasSubstr("too long for the interaction log"));
}

TEST_F(AssistantFeedbackTest, NamingTheDomainTeachesTheRouterForGoodUntilItIsForgotten) {
  std::string id;
  {
    const auto assistant = Open();
    id = Ask(*assistant, kPrompt).id;
    EXPECT_EQ(assistant->Decide(kPrompt)->expert, kSmall);
    EXPECT_THAT(assistant->GiveFeedback(id, {Verdict::kRejected, "", "cooking"}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("translate")));
    ASSERT_THAT(assistant->GiveFeedback(id, {Verdict::kRejected, "", "code"}), IsOk());
    EXPECT_EQ(assistant->Decide(kPrompt)->domains.ranked.front().domain, "code");
  }
  const auto reopened = Open();
  EXPECT_EQ(reopened->Decide(kPrompt)->domains.ranked.front().domain, "code");
  ASSERT_THAT(reopened->Forget(id), IsOk());
  EXPECT_NE(reopened->Decide(kPrompt)->domains.ranked.front().domain, "code");
  EXPECT_THAT(*reopened->interactions()->List({}), IsEmpty());
}

TEST_F(AssistantFeedbackTest, EditedAnswersAreShownAsExamplesAndTheLogSaysNothingOfThem) {
  configuration_.learning.retrieval = true;
  const auto assistant = Open();
  const Reply first = Ask(*assistant, "Mark the word lamp.", kSmall);
  EXPECT_THAT(first.examples, IsEmpty());
  ASSERT_THAT(assistant->GiveFeedback(first.id, {Verdict::kEdited, "<<lamp>>", ""}), IsOk());
  const Reply shown = Ask(*assistant, "Mark the word lemon.", kSmall);
  EXPECT_THAT(shown.examples, ElementsAre(first.id));
  EXPECT_GT(shown.generation.n_prompt_tokens, first.generation.n_prompt_tokens + 8);
  EXPECT_THAT(assistant->interactions()->Get(shown.id)->messages, SizeIs(1));
  EXPECT_THAT(Ask(*assistant, "Mark the word lemon.", kCode).examples, IsEmpty())
      << "of the same expert only";
  ASSERT_THAT(assistant->Forget(first.id), IsOk());
  EXPECT_THAT(Ask(*assistant, "Mark the word lemon.", kSmall).examples, IsEmpty());
}

TEST_F(AssistantFeedbackTest, ExamplesStayInsideTheirBudgetOfTokens) {
  configuration_.learning.retrieval = true;
  configuration_.learning.retrieval_tokens = 60;
  const auto assistant = Open();
  for (const char* word : {"lamp", "lime", "lion", "leaf"}) {
    const Reply reply = Ask(*assistant, absl::StrCat("Mark the word ", word, "."), kSmall);
    ASSERT_THAT(
        assistant->GiveFeedback(reply.id, {Verdict::kEdited, absl::StrCat("<<", word, ">>"), ""}),
        IsOk());
  }
  const Reply with = Ask(*assistant, "Mark the word lemon.", kSmall);
  Request plain;
  plain.messages.push_back({"user", "Mark the word lemon.", ""});
  plain.expert = kSmall;
  plain.max_tokens = 1;
  plain.retrieval = false;
  const auto without = assistant->Generate(plain, [](absl::string_view) { return true; }, {});
  ASSERT_THAT(without, IsOk());
  EXPECT_THAT(without->examples, IsEmpty());
  EXPECT_GT(with.examples.size(), 0u);
  EXPECT_LT(with.examples.size(), 4u);
  EXPECT_LE(with.generation.n_prompt_tokens, without->generation.n_prompt_tokens + 60);
  plain.retrieval = true;
  plain.max_tokens = 8192;  // No room beside the answer that is asked for.
  const auto full = assistant->Generate(plain, [](absl::string_view) { return false; }, {});
  ASSERT_THAT(full, IsOk());
  EXPECT_THAT(full->examples, IsEmpty());
}

TEST_F(AssistantFeedbackTest, AcceptingAnotherExpertsAnswerTeachesTheRouter) {
  const auto assistant = Open();
  const Reply first = Ask(*assistant, kPrompt);
  ASSERT_EQ(first.expert, kSmall);
  const Reply unrelated = Ask(*assistant, "Say yes.", kCode);
  ASSERT_THAT(assistant->GiveFeedback(unrelated.id, {Verdict::kAccepted, "", ""}), IsOk());
  EXPECT_EQ(assistant->interactions()->Get(unrelated.id)->feedback.domain, "");
  const Reply again = Ask(*assistant, kPrompt, kCode);
  ASSERT_THAT(assistant->GiveFeedback(again.id, {Verdict::kAccepted, "", ""}), IsOk());
  EXPECT_NE(assistant->interactions()->Get(again.id)->feedback.domain, "");
  EXPECT_EQ(assistant->Decide(kPrompt)->expert, kCode);
  ASSERT_THAT(assistant->GiveFeedback(again.id, {Verdict::kRejected, "", ""}), IsOk());
  EXPECT_EQ(assistant->Decide(kPrompt)->expert, kSmall) << "feedback can be changed";
}

}  // namespace
}  // namespace coterie
