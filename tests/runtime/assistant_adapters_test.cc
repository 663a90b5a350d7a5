// Experts that are an adapter on a base which others use too, on a tiny model of one layer.

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "lora/adapter_store.h"
#include "lora/sha256.h"
#include "runtime/assistant.h"
#include "tests/experts/tiny_adapter.h"
#include "tests/fuzz/gguf_draft.h"
#include "tests/fuzz/scratch_folder.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

class AssistantAdaptersTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string bytes = testing::TinyModel().Bytes();
    const std::string model = folder_.Write("tiny.gguf", bytes);
    base_id_ = Sha256Of(bytes);
    folder_.Write("models/tiny.json",
                  absl::StrCat(R"({"name": "tiny", "path": "tiny.gguf", "sha256": ")",
                               base_id_.substr(7), R"(", "bytes": )", bytes.size(), "}"));
    COTERIE_ASSERT_OK_AND_ASSIGN(expert_, Expert::Open(model));
    COTERIE_ASSERT_OK_AND_ASSIGN(configuration_, Configuration::Default());
    configuration_.home = folder_.path();
    configuration_.memory_budget_bytes = 400'000'000;
    configuration_.router_path = COTERIE_DEFAULT_ROUTER;
    configuration_.learning.log = false;
  }

  void Publish(uint32_t seed, const std::string& name = "home", const std::string& base_id = "") {
    Adapter adapter;
    adapter.name = name;
    adapter.base = IdentityOf(*expert_, base_id.empty() ? base_id_ : base_id, "tiny");
    adapter.deltas = testing::TinyDeltas(expert_->spec(), seed);
    for (LinearDelta& delta : adapter.deltas) delta.scale *= 8;  // The tiny weights are small.
    COTERIE_ASSERT_OK(store_.Publish(adapter, {}).status());
  }

  std::unique_ptr<Assistant> Open() {
    auto assistant = Assistant::Open(configuration_);
    EXPECT_THAT(assistant, testing::IsOk());
    return assistant.ok() ? *std::move(assistant) : nullptr;
  }

  static Request Ask(const std::string& expert) {
    Request request;
    request.messages.push_back({"user", "hello you", ""});
    request.sampling.temperature = 0.0f;
    request.sampling.n_logprobs = 0;
    request.expert = expert;
    request.max_tokens = 12;
    return request;
  }
  static absl::StatusOr<Reply> Answer(Assistant& assistant, const Request& request) {
    return assistant.Generate(request, [](absl::string_view) { return true; }, {});
  }
  // All at once, each on a thread of its own.
  static std::vector<absl::StatusOr<Reply>> AnswerAll(Assistant& assistant,
                                                      const std::vector<Request>& requests) {
    std::vector<absl::StatusOr<Reply>> replies(requests.size());
    std::vector<std::jthread> threads;
    for (size_t i = 0; i < requests.size(); ++i) {
      threads.emplace_back([&, i] { replies[i] = Answer(assistant, requests[i]); });
    }
    threads.clear();
    return replies;
  }
  // The log-probabilities tell answers apart whose tokens are the same.
  static std::vector<float> Logprobs(const Reply& reply) {
    std::vector<float> values;
    for (const TokenLogprobs& token : reply.generation.logprobs) values.push_back(token.logprob);
    return values;
  }
  static int64_t AdapterBytes(const Assistant& assistant) {
    const BudgetSnapshot budget = assistant.Stats().budget;
    return budget.bytes_by_purpose[static_cast<size_t>(Purpose::kAdapter)];
  }

  const testing::ScratchFolder folder_;
  AdapterStore store_{folder_.path()};
  std::string base_id_;
  std::shared_ptr<const Expert> expert_;
  Configuration configuration_;
};

TEST_F(AssistantAdaptersTest, AnAdapterOfTheStoreIsAnExpertThatSharesTheResidentBase) {
  Publish(1);
  const auto assistant = Open();
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply plain, Answer(*assistant, Ask("tiny")));
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply adapted, Answer(*assistant, Ask("home")));
  EXPECT_EQ(plain.adapter, "");
  EXPECT_EQ(adapted.adapter, "home@1");
  EXPECT_EQ(adapted.residence, Residence::kHit);
  EXPECT_NE(Logprobs(adapted), Logprobs(plain));
  EXPECT_EQ(assistant->Stats().cache.n_loads, 1);
  COTERIE_ASSERT_OK_AND_ASSIGN(const int64_t bytes, store_.ServedBytes("home", 1));
  EXPECT_EQ(AdapterBytes(*assistant), bytes);
  // Two experts of one base stand under each other's prompts alike: the base is asked first.
  COTERIE_ASSERT_OK_AND_ASSIGN(const Route route, assistant->Decide("What is a list?"));
  EXPECT_EQ(route.expert, "tiny");
}

TEST_F(AssistantAdaptersTest, APromotionTakesEffectAtOnceAndARunningAnswerKeepsItsVersion) {
  Publish(1);
  const auto assistant = Open();
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply before, Answer(*assistant, Ask("home")));
  bool published = false;
  const auto publish_once = [&](absl::string_view) {
    if (!published) Publish(2);
    published = true;
    return true;
  };
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply during,
                               assistant->Generate(Ask("home"), publish_once, {}));
  ASSERT_TRUE(published);
  EXPECT_EQ(during.adapter, "home@1");
  EXPECT_EQ(Logprobs(during), Logprobs(before));
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply after, Answer(*assistant, Ask("home")));
  EXPECT_EQ(after.adapter, "home@2");
  EXPECT_EQ(after.residence, Residence::kHit);
  EXPECT_NE(Logprobs(after), Logprobs(before));
  COTERIE_ASSERT_OK(store_.Rollback("home", 1));
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply back, Answer(*assistant, Ask("home")));
  EXPECT_EQ(Logprobs(back), Logprobs(before));
}

TEST_F(AssistantAdaptersTest, ARequestNamesAnAdapterOrNone) {
  Publish(1);
  const auto assistant = Open();
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply home, Answer(*assistant, Ask("home")));
  Request request = Ask("tiny");
  request.adapter = "home";
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply named, Answer(*assistant, request));
  EXPECT_EQ(named.adapter, "home@1");
  EXPECT_EQ(Logprobs(named), Logprobs(home));
  request = Ask("home");
  request.adapter = "";
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply none, Answer(*assistant, request));
  EXPECT_EQ(none.adapter, "");
  request.adapter = "away";
  EXPECT_THAT(Answer(*assistant, request),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("'away'")));
}

TEST_F(AssistantAdaptersTest, AnswersAtOnceShareThePassesOfTheirBaseAndAreAsAlone) {
  Publish(1);
  Publish(2, "away");
  const auto assistant = Open();
  std::vector<Request> requests;
  for (size_t i = 0; i < 8; ++i) {
    requests.push_back(Ask(i % 3 == 0 ? "tiny" : i % 3 == 1 ? "home" : "away"));
    requests.back().messages[0].content += std::string(5 * i, 'x');
    requests.back().sampling.temperature = i < 4 ? 0.0f : 1.0f;
    requests.back().sampling.seed = i;
    requests.back().max_tokens = static_cast<int64_t>(20 + i);
  }
  std::vector<Reply> alone;
  for (const Request& request : requests) {
    COTERIE_ASSERT_OK_AND_ASSIGN(Reply reply, Answer(*assistant, request));
    alone.push_back(std::move(reply));
  }
  const auto has_shared = [&] { return assistant->Stats().passes.n_shared_passes > 0; };
  EXPECT_FALSE(has_shared());
  // Answers of the tiny model are short: they need not meet at once.
  for (int round = 0; round < 5 || (round < 500 && !has_shared()); ++round) {
    const std::vector<absl::StatusOr<Reply>> replies = AnswerAll(*assistant, requests);
    for (size_t i = 0; i < replies.size(); ++i) {
      COTERIE_ASSERT_OK(replies[i].status());
      EXPECT_EQ(replies[i]->generation.text, alone[i].generation.text);
      EXPECT_EQ(replies[i]->generation.finish_reason, alone[i].generation.finish_reason);
      EXPECT_EQ(Logprobs(*replies[i]), Logprobs(alone[i]));
    }
  }
  EXPECT_TRUE(has_shared());
  const BudgetSnapshot budget = assistant->Stats().budget;
  EXPECT_EQ(budget.bytes_by_purpose[static_cast<size_t>(Purpose::kScratch)], 0);
}

TEST_F(AssistantAdaptersTest, ADeadlineThatPassesInLineLeavesThoseWhoRunAlone) {
  configuration_.queue.max_running = 1;
  const auto assistant = Open();
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply alone, Answer(*assistant, Ask("tiny")));
  Request late = Ask("tiny");
  absl::Status status;
  const auto ask_meanwhile = [&](absl::string_view) {
    late.deadline = absl::Now() + absl::Milliseconds(5);
    if (status.ok()) status = Answer(*assistant, late).status();
    return true;
  };
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply reply,
                               assistant->Generate(Ask("tiny"), ask_meanwhile, {}));
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("turn")));
  EXPECT_EQ(Logprobs(reply), Logprobs(alone));
}

TEST_F(AssistantAdaptersTest, AConfiguredExpertAnswersWithItsBaseUntilItsAdapterIsThere) {
  ExpertConfiguration expert;
  expert.name = "butler";
  expert.model = "tiny";
  expert.adapter = "home";
  configuration_.experts = {expert};
  const auto assistant = Open();
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply before, Answer(*assistant, Ask("butler")));
  EXPECT_EQ(before.adapter, "");
  Publish(1);
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply after, Answer(*assistant, Ask("butler")));
  EXPECT_EQ(after.adapter, "home@1");
}

TEST_F(AssistantAdaptersTest, ANewAdapterBecomesAnExpertWhenReloaded) {
  const auto assistant = Open();
  Publish(1);
  EXPECT_THAT(Answer(*assistant, Ask("home")),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("")));
  COTERIE_ASSERT_OK(assistant->ReloadAdapters());
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply reply, Answer(*assistant, Ask("home")));
  EXPECT_EQ(reply.adapter, "home@1");
}

TEST_F(AssistantAdaptersTest, AnAdapterOfAnotherBaseIsRefusedWithBothIdsAndIsNoExpert) {
  Publish(1, "home", "sha256:00");
  const auto assistant = Open();
  EXPECT_EQ(assistant->Experts().size(), 1u);
  Request request = Ask("tiny");
  request.adapter = "home";
  EXPECT_THAT(Answer(*assistant, request),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       ::testing::AllOf(HasSubstr("sha256:00"), HasSubstr(base_id_))));
}

TEST_F(AssistantAdaptersTest, ADamagedVersionServesTheLastGoodOneAndTellsWhy) {
  Publish(1);
  Publish(2);
  folder_.Write("adapters/home/v0002/adapter_config.json", "{");
  const auto assistant = Open();
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply reply, Answer(*assistant, Ask("home")));
  EXPECT_EQ(reply.adapter, "home@1");
  std::string told;
  for (const Event& event : assistant->TakeEvents()) {
    if (event.kind == "adapter_failed") told += event.text;
  }
  EXPECT_THAT(told, HasSubstr("v0002/adapter_config.json"));
}

}  // namespace
}  // namespace coterie
