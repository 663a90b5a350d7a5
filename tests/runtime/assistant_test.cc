// The whole of it, on the real models of the store (label "model").

#include "runtime/assistant.h"

#include <cstdio>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "core/base/byte_size.h"
#include "tests/model_files.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::IsOk;
using ::coterie::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kSmall[] = "smollm2-135m";
constexpr char kCode[] = "qwen2.5-coder-0.5b";
// Holds either expert beside the router, never both.
constexpr int64_t kBudgetBytes = 600'000'000;

// A field of /proc/self/status in bytes, such as "VmRSS" or its peak "VmHWM".
int64_t MemoryField(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(name + ":", 0) == 0) return std::stoll(line.substr(name.size() + 1)) * 1024;
  }
  return 0;
}

class AssistantTest : public ::testing::Test {
 protected:
  static Configuration DefaultConfiguration(int64_t budget_bytes) {
    absl::StatusOr<Configuration> configuration = Configuration::Default();
    EXPECT_THAT(configuration, IsOk());
    configuration->memory_budget_bytes = budget_bytes;
    configuration->router_path = COTERIE_DEFAULT_ROUTER;
    configuration->learning.log = false;  // assistant_feedback_test.cc has one.
    return *std::move(configuration);
  }

  static std::unique_ptr<Assistant> Open(int64_t budget_bytes = kBudgetBytes) {
    auto assistant = Assistant::Open(DefaultConfiguration(budget_bytes));
    EXPECT_THAT(assistant, IsOk());
    return *std::move(assistant);
  }

  static Request Ask(const std::string& prompt, const std::string& expert = "",
                     int64_t max_tokens = 8) {
    Request request;
    request.messages.push_back({"user", prompt, ""});
    request.sampling.temperature = 0.0f;
    request.expert = expert;
    request.max_tokens = max_tokens;
    return request;
  }

  static absl::StatusOr<Reply> Answer(Assistant& assistant, const Request& request) {
    return assistant.Generate(request, [](absl::string_view) { return true; }, {});
  }
};

// It has no chat template: it continues text, and the router leaves it alone.
TEST_F(AssistantTest, ABaseModelIsAskedByNameOnly) {
  constexpr char kBase[] = "gemma-3-270m";
  const auto assistant = Open();
  for (const char* const prompt : {"Hello!", "Write a poem.", "Translate to French: cat"}) {
    const auto route = assistant->Decide(prompt);
    ASSERT_THAT(route, IsOk());
    for (const ExpertScore& score : route->choice.scores) EXPECT_NE(score.expert, kBase);
  }
  const auto reply = Answer(*assistant, Ask("The capital of France is", kBase));
  ASSERT_THAT(reply, IsOk());
  EXPECT_THAT(reply->generation.text, StartsWith(" the capital of the"));
}

TEST_F(AssistantTest, RoutesLoadsEvictsAndAnswersInsideTheBudget) {
  const auto assistant = Open();
  const auto code = Answer(*assistant, Ask("Write a Python function that reverses a string."));
  ASSERT_THAT(code, IsOk());
  EXPECT_EQ(code->expert, kCode);
  EXPECT_EQ(code->residence, Residence::kLoaded);
  EXPECT_FALSE(code->generation.text.empty());
  const auto talk = Answer(*assistant, Ask("Hello! How are you today?"));
  ASSERT_THAT(talk, IsOk());
  EXPECT_EQ(talk->expert, kSmall);
  const AssistantStats stats = assistant->Stats();
  EXPECT_EQ(stats.cache.n_evictions, 1);
  EXPECT_LE(stats.budget.peak_bytes, kBudgetBytes);
  const std::vector<Event> events = assistant->TakeEvents();
  EXPECT_TRUE(std::any_of(events.begin(), events.end(), [](const Event& event) {
    return event.kind == "evicted" && event.expert == kCode && !event.reason.empty();
  }));
}

TEST_F(AssistantTest, TheLeastRecentlyUsedLeavesWhereThatIsConfigured) {
  Configuration configuration = DefaultConfiguration(kBudgetBytes);
  configuration.cache.policy = LeavingPolicy::kLru;
  auto assistant = Assistant::Open(std::move(configuration));
  ASSERT_THAT(assistant, IsOk());
  for (const char* const expert : {kCode, kSmall}) {
    ASSERT_THAT(Answer(**assistant, Ask("Say yes.", expert)), IsOk());
  }
  const std::vector<Event> events = (*assistant)->TakeEvents();
  EXPECT_TRUE(std::any_of(events.begin(), events.end(), [](const Event& event) {
    return event.kind == "evicted" && event.reason.find("least recently used") != std::string::npos;
  }));
}

TEST_F(AssistantTest, FiftySwitchesNeitherGrowNorChangeAnswers) {
  const std::string prompt = "What is a list?";
  std::string alone[2];
  const std::string names[2] = {kSmall, kCode};
  for (int i = 0; i < 2; ++i) {
    const auto assistant = Open();
    const auto reply = Answer(*assistant, Ask(prompt, names[i]));
    ASSERT_THAT(reply, IsOk());
    alone[i] = reply->generation.text;
  }
  std::ofstream("/proc/self/clear_refs") << "5";  // Forgets the peak so far.
  const auto assistant = Open();
  int64_t early_bytes = 0;
  for (int i = 0; i < 50; ++i) {
    const auto reply = Answer(*assistant, Ask(prompt, names[i % 2]));
    ASSERT_THAT(reply, IsOk());
    EXPECT_EQ(reply->residence, Residence::kLoaded);
    EXPECT_EQ(reply->generation.text, alone[i % 2]) << "switch " << i;
    if (i == 9) early_bytes = MemoryField("VmRSS");
  }
  EXPECT_LE(MemoryField("VmRSS") - early_bytes, 10'000'000);
  const ChurnReport churn = assistant->Stats().cache.churn;
  EXPECT_GT(churn.n_reloads, 0);
  if (churn.thrashing) {
    EXPECT_THAT(churn.advice, HasSubstr(kSmall)) << "experts by their names";
  }
  EXPECT_LE(MemoryField("VmHWM"), kBudgetBytes + 80'000'000);
  EXPECT_LE(assistant->Stats().budget.peak_bytes, kBudgetBytes);
}

TEST_F(AssistantTest, AFullQueueRejectsBeforeItLoadsAnything) {
  Configuration configuration = DefaultConfiguration(kBudgetBytes);
  configuration.queue = {.max_waiting = 0, .max_running = 1};
  auto assistant = Assistant::Open(std::move(configuration));
  ASSERT_THAT(assistant, IsOk());
  absl::Status second;
  const auto first = (*assistant)
                         ->Generate(Ask("Say yes.", kSmall, 2),
                                    [&](absl::string_view) {
                                      second = Answer(**assistant, Ask("Hi", kCode)).status();
                                      return true;
                                    },
                                    {});
  ASSERT_THAT(first, IsOk());
  EXPECT_THAT(second, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("n_running=1")));
  EXPECT_EQ((*assistant)->Stats().cache.n_loads, 1);
}

TEST_F(AssistantTest, AnIdleExpertLeavesAfterItsKeepAliveAndRequestsAreLogged) {
  Configuration configuration = DefaultConfiguration(kBudgetBytes);
  configuration.cache.keep_alive = absl::ZeroDuration();
  configuration.cache.request_log = ::testing::TempDir() + "/coterie_requests.jsonl";
  std::remove(configuration.cache.request_log.c_str());
  const std::string log = configuration.cache.request_log;
  auto assistant = Assistant::Open(std::move(configuration));
  ASSERT_THAT(assistant, IsOk());
  ASSERT_THAT(Answer(**assistant, Ask("Say yes.", kSmall)), IsOk());
  const absl::Time end = absl::Now() + absl::Seconds(10);
  while ((*assistant)->Stats().cache.n_evictions == 0 && absl::Now() < end) {
    absl::SleepFor(absl::Milliseconds(50));
  }
  const auto causes = (*assistant)->Stats().cache.n_evictions_by_cause;
  EXPECT_EQ(causes[static_cast<size_t>(EvictionCause::kKeepAlive)], 1);
  std::stringstream lines;
  lines << std::ifstream(log).rdbuf();
  EXPECT_THAT(lines.str(), HasSubstr("\"base\":\"smollm2-135m\""));
  EXPECT_EQ(lines.str().find("Say yes"), std::string::npos);
}

TEST_F(AssistantTest, ABudgetBelowTheRouterIsRefusedAndChangesNothing) {
  const auto assistant = Open();
  EXPECT_THAT(assistant->SetMemoryBudget(1000),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("router")));
  EXPECT_EQ(assistant->Stats().budget.limit_bytes, kBudgetBytes);
}

TEST_F(AssistantTest, AnswersOnTwoThreadsShareABudgetThatHoldsOneExpert) {
  const auto assistant = Open();
  std::vector<std::thread> threads;
  std::vector<absl::Status> statuses(2);
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&, i] {
      for (int turn = 0; turn < 3 && statuses[i].ok(); ++turn) {
        statuses[i] = Answer(*assistant, Ask("Say yes.", i == 0 ? kSmall : kCode)).status();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(statuses[0], IsOk());
  EXPECT_THAT(statuses[1], IsOk());
  EXPECT_LE(assistant->Stats().budget.peak_bytes, kBudgetBytes);
}

TEST_F(AssistantTest, ABudgetTooSmallForAnyExpertIsSaidAtOnceWithTheNumbers) {
  EXPECT_THAT(Assistant::Open(DefaultConfiguration(60'000'000)),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       ::testing::AllOf(HasSubstr(kSmall), HasSubstr("60.0 MB"))));
}

TEST_F(AssistantTest, AnExpertThatCannotFitIsNotChosen) {
  const auto assistant = Open(200'000'000);
  const auto route = assistant->Decide("Write a Python function that reverses a string.");
  ASSERT_THAT(route, IsOk());
  EXPECT_EQ(route->expert, kSmall);
  EXPECT_THAT(Answer(*assistant, Ask("Hi", kCode)),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("limit")));
  EXPECT_THAT(Answer(*assistant, Ask("Hi", kSmall)), IsOk()) << "what was there goes on working";
}

TEST_F(AssistantTest, BadRequestsAreRefusedAndHarmNothing) {
  const auto assistant = Open();
  EXPECT_THAT(Answer(*assistant, Ask("Hi", "nobody")),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("nobody")));
  EXPECT_THAT(Answer(*assistant, Request()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("message")));
  EXPECT_THAT(Answer(*assistant, Ask("\xff\xfe", kSmall)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("UTF-8")));
  Request hot = Ask("Hi", kSmall);
  hot.sampling.temperature = -1.0f;
  EXPECT_THAT(Answer(*assistant, hot),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("temperature")));
  std::string book;
  for (int i = 0; i < 9000; ++i) book += "word ";
  EXPECT_THAT(Answer(*assistant, Ask(book, kSmall)),
              StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("context_tokens=")));
  EXPECT_THAT(Answer(*assistant, Ask("", kSmall)), IsOk()) << "an empty message is a message";
  EXPECT_THAT(Answer(*assistant, Ask("Hi", kSmall)), IsOk());
}

TEST_F(AssistantTest, ACancelEndsTheAnswerAtATokenAndFreesItsMemory) {
  const auto assistant = Open();
  int n_pieces = 0;
  const auto reply = assistant->Generate(Ask("Count to one hundred.", kSmall, 200),
                                         [&](absl::string_view) { return ++n_pieces < 3; }, {});
  ASSERT_THAT(reply, IsOk());
  EXPECT_EQ(reply->generation.finish_reason, FinishReason::kCancelled);
  EXPECT_LT(reply->generation.n_tokens, 20);
  const BudgetSnapshot budget = assistant->Stats().budget;
  EXPECT_EQ(budget.bytes_by_purpose[static_cast<size_t>(Purpose::kKvCache)], 0);
  EXPECT_EQ(budget.bytes_by_purpose[static_cast<size_t>(Purpose::kScratch)], 0);
}

TEST_F(AssistantTest, AnsweringMapsNoLibTorch) {
  const auto assistant = Open();
  ASSERT_THAT(Answer(*assistant, Ask("Hi", kSmall)), IsOk());
  std::ifstream file("/proc/self/maps");
  std::stringstream maps;
  maps << file.rdbuf();
  EXPECT_THAT(maps.str(), ::testing::Not(HasSubstr("torch")));
}

TEST_F(AssistantTest, SeedsRepeatAnswers) {
  const auto assistant = Open();
  Request request = Ask("Tell me a story.", kSmall, 24);
  request.sampling.temperature = 1.0f;
  request.sampling.seed = 7;
  const auto first = Answer(*assistant, request);
  const auto second = Answer(*assistant, request);
  ASSERT_THAT(first, IsOk());
  ASSERT_THAT(second, IsOk());
  EXPECT_EQ(first->generation.text, second->generation.text);
}

}  // namespace
}  // namespace coterie
