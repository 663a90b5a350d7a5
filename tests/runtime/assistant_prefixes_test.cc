// What answers take up from earlier ones, on tiny models of one layer.

#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "lora/adapter_store.h"
#include "lora/sha256.h"
#include "runtime/assistant.h"
#include "tests/experts/fake_base_source.h"
#include "tests/experts/tiny_adapter.h"
#include "tests/fuzz/gguf_draft.h"
#include "tests/fuzz/scratch_folder.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::Eventually;
using ::testing::Contains;
using ::testing::Ge;
using ::testing::HasSubstr;

constexpr int64_t kBlock = PrefixCache::kBlockTokens;
constexpr int64_t kBudget = 400'000'000;

class AssistantPrefixesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    AddModel("tiny", 1e4);
    AddModel("other", 2e4);
  }

  void AddModel(const std::string& name, double rope_base) {
    testing::GgufDraft draft = testing::TinyModel();
    draft.Set("llama.context_length", int64_t{4096}).Set("llama.rope.freq_base", rope_base);
    const std::string bytes = draft.Bytes();
    base_ids_[name] = Sha256Of(bytes);
    folder_.Write(name + ".gguf", bytes);
    folder_.Write(
        absl::StrCat("models/", name, ".json"),
        absl::StrCat(R"({"name": ")", name, R"(", "path": ")", name, R"(.gguf", "sha256": ")",
                     base_ids_[name].substr(7), R"(", "bytes": )", bytes.size(), "}"));
  }

  Configuration Settings(double share = 0.125) {
    Configuration configuration = *Configuration::Default();
    configuration.home = folder_.path();
    configuration.memory_budget_bytes = kBudget;
    configuration.threads = 2;  // Working memory grows with them, and budgets are tight here.
    configuration.router_path = COTERIE_DEFAULT_ROUTER;
    configuration.cache.pressure = false;  // What else this machine does decides nothing here.
    configuration.cache.prefix_share = share;
    configuration.learning.log_path = folder_.path("interactions.db");
    return configuration;
  }
  Configuration OnDisk() {
    Configuration configuration = Settings();
    configuration.cache.prefix_disk_bytes = 100'000'000;
    return configuration;
  }
  std::vector<std::string> FilesOnDisk() const {
    std::vector<std::string> paths;
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path("prefixes"), none)) {
      if (entry.path().extension() == ".kv") paths.push_back(entry.path());
    }
    return paths;
  }
  static std::unique_ptr<Assistant> Open(Configuration configuration) {
    auto assistant = Assistant::Open(std::move(configuration));
    EXPECT_THAT(assistant, testing::IsOk());
    return assistant.ok() ? *std::move(assistant) : nullptr;
  }

  // Of about 300 tokens.
  static Request Ask(const std::string& expert = "tiny", const std::string& text = "hello you") {
    Request request;
    std::string instructions;
    for (int i = 0; i < 40; ++i) absl::StrAppend(&instructions, "be brief ", i % 10, "; ");
    request.messages = {{"system", instructions.substr(0, 280), ""}, {"user", text, ""}};
    request.sampling.temperature = 0.8f;
    request.sampling.seed = 7;
    request.sampling.n_logprobs = 0;
    request.expert = expert;
    request.max_tokens = 20;
    return request;
  }
  static absl::StatusOr<Reply> Answer(Assistant& assistant, const Request& request) {
    return assistant.Generate(request, [](absl::string_view) { return true; }, {});
  }
  static int64_t WholeBlocks(int64_t n_tokens) { return n_tokens / kBlock * kBlock; }
  // The log-probabilities tell answers apart whose tokens are the same.
  static std::vector<float> Logprobs(const Reply& reply) {
    std::vector<float> values;
    for (const TokenLogprobs& token : reply.generation.logprobs) values.push_back(token.logprob);
    return values;
  }
  static int64_t Charged(const Assistant& assistant) {
    const BudgetSnapshot budget = assistant.Stats().budget;
    return budget.bytes_by_purpose[static_cast<size_t>(Purpose::kPrefixCache)];
  }

  const testing::ScratchFolder folder_;
  std::map<std::string, std::string> base_ids_;
};

TEST_F(AssistantPrefixesTest, APromptThatWasAnsweredIsNotComputedAgain) {
  const auto assistant = Open(Settings());
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply first, Answer(*assistant, Ask()));
  EXPECT_EQ(first.generation.n_cached_tokens, 0);
  ASSERT_GT(first.generation.n_prompt_tokens, 4 * kBlock);
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply second, Answer(*assistant, Ask()));
  EXPECT_EQ(second.generation.n_cached_tokens, WholeBlocks(second.generation.n_prompt_tokens - 1));
  EXPECT_EQ(second.generation.n_prompt_tokens, first.generation.n_prompt_tokens);
  EXPECT_EQ(second.generation.text, first.generation.text);
  EXPECT_EQ(Logprobs(second), Logprobs(first));
  // Another question under the same instructions.
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply third, Answer(*assistant, Ask("tiny", "who are you")));
  EXPECT_EQ(third.generation.n_cached_tokens, 4 * kBlock);
  const PrefixStats stats = assistant->Stats().prefixes;
  EXPECT_EQ(stats.n_misses, 1);
  EXPECT_EQ(stats.n_hits, 2);
  EXPECT_EQ(stats.cached_tokens, second.generation.n_cached_tokens + 4 * kBlock);
  EXPECT_EQ(stats.memory.held_bytes, Charged(*assistant));
  EXPECT_EQ(stats.memory.max_bytes, kBudget / 8);
}

// What was computed ahead in vain is never kept for a later prompt.
TEST_F(AssistantPrefixesTest, ConversationsAreTheSameWithLookupAndWithout) {
  Configuration without = Settings();
  without.lookup = false;
  const auto looks_up = Open(Settings());
  const auto plain = Open(std::move(without));
  Request request = Ask();
  request.max_tokens = 70;
  for (int turn = 0; turn < 4; ++turn) {
    request.sampling.temperature = turn % 2 == 0 ? 0.0f : 0.2f;
    COTERIE_ASSERT_OK_AND_ASSIGN(const Reply one, Answer(*looks_up, request));
    COTERIE_ASSERT_OK_AND_ASSIGN(const Reply other, Answer(*plain, request));
    EXPECT_EQ(one.generation.tokens, other.generation.tokens) << "turn " << turn;
    EXPECT_EQ(Logprobs(one), Logprobs(other));
    EXPECT_EQ(one.generation.n_cached_tokens, other.generation.n_cached_tokens);
    request.messages.push_back({"assistant", one.generation.text, ""});
    request.messages.push_back({"user", absl::StrCat("and then ", turn), ""});
  }
  EXPECT_GT(looks_up->Stats().lookup.lookup_tokens, 0);
  EXPECT_EQ(plain->Stats().lookup.proposed_tokens, 0);
  request.lookup = true;
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply asked, Answer(*plain, request));
  EXPECT_EQ(plain->Stats().lookup.proposed_tokens, asked.generation.n_proposed_tokens)
      << "a request has the last word";
}

TEST_F(AssistantPrefixesTest, AnswersAreThoseOfAnAssistantThatKeepsNothing) {
  const auto keeps = Open(Settings());
  const auto keeps_nothing = Open(Settings(0));
  Request request = Ask();
  for (int turn = 0; turn < 4; ++turn) {
    COTERIE_ASSERT_OK_AND_ASSIGN(const Reply one, Answer(*keeps, request));
    COTERIE_ASSERT_OK_AND_ASSIGN(const Reply other, Answer(*keeps_nothing, request));
    EXPECT_EQ(one.generation.text, other.generation.text);
    EXPECT_EQ(one.generation.tokens, other.generation.tokens);
    EXPECT_EQ(Logprobs(one), Logprobs(other));
    EXPECT_EQ(one.generation.n_cached_tokens > 0, turn > 0);
    EXPECT_EQ(other.generation.n_cached_tokens, 0);
    request.messages.push_back({"assistant", one.generation.text, ""});
    request.messages.push_back({"user", absl::StrCat("and ", turn, "?"), ""});
  }
  EXPECT_EQ(Charged(*keeps_nothing), 0);
}

TEST_F(AssistantPrefixesTest, AConversationThatWasSwitchedAwayFromGoesOnWithoutItsPrefill) {
  Configuration configuration = Settings();
  configuration.cache.keep_alive = absl::ZeroDuration();
  const auto assistant = Open(std::move(configuration));
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply first, Answer(*assistant, Ask()));
  COTERIE_ASSERT_OK(Answer(*assistant, Ask("other")).status());
  ASSERT_TRUE(Eventually([&] { return assistant->Stats().cache.n_evictions >= 2; }));
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply again, Answer(*assistant, Ask()));
  EXPECT_EQ(assistant->Stats().cache.n_loads, 3);
  EXPECT_EQ(again.generation.n_cached_tokens, WholeBlocks(again.generation.n_prompt_tokens - 1));
  EXPECT_EQ(Logprobs(again), Logprobs(first));
}

TEST_F(AssistantPrefixesTest, ExpertsDoNotTakeUpWhatIsAnothers) {
  const auto assistant = Open(Settings());
  COTERIE_ASSERT_OK(Answer(*assistant, Ask("tiny")).status());
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply other, Answer(*assistant, Ask("other")));
  EXPECT_EQ(other.generation.n_cached_tokens, 0);
}

TEST_F(AssistantPrefixesTest, AnotherVersionOfAnAdapterBeginsAnew) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto expert, Expert::Open(folder_.path("tiny.gguf")));
  AdapterStore store(folder_.path());
  const auto publish = [&](uint32_t seed) {
    Adapter adapter;
    adapter.name = "home";
    adapter.base = IdentityOf(*expert, base_ids_["tiny"], "tiny");
    adapter.deltas = testing::TinyDeltas(expert->spec(), seed);
    COTERIE_ASSERT_OK(store.Publish(adapter, {}).status());
  };
  publish(1);
  const auto assistant = Open(Settings());
  COTERIE_ASSERT_OK(Answer(*assistant, Ask("tiny")).status());
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply first, Answer(*assistant, Ask("home")));
  EXPECT_EQ(first.generation.n_cached_tokens, 0) << "the base's own is not the adapter's";
  publish(2);
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply second, Answer(*assistant, Ask("home")));
  EXPECT_EQ(second.adapter, "home@2");
  EXPECT_EQ(second.generation.n_cached_tokens, 0);
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply third, Answer(*assistant, Ask("home")));
  EXPECT_THAT(third.generation.n_cached_tokens, Ge(4 * kBlock));
  EXPECT_EQ(Logprobs(third), Logprobs(second));
}

TEST_F(AssistantPrefixesTest, WhatAnotherAdapterOfTheSameNameComputedIsNotTakenUp) {
  const ArchSpec spec = (*Expert::Open(folder_.path("tiny.gguf")))->spec();
  COTERIE_ASSERT_OK_AND_ASSIGN(
      const DeltaSnapshot one,
      LinearDeltaSet::Create(spec, "home@1", testing::TinyDeltas(spec, 1)));
  COTERIE_ASSERT_OK_AND_ASSIGN(
      const DeltaSnapshot same,
      LinearDeltaSet::Create(spec, "home@1", testing::TinyDeltas(spec, 1)));
  COTERIE_ASSERT_OK_AND_ASSIGN(
      const DeltaSnapshot other,
      LinearDeltaSet::Create(spec, "home@1", testing::TinyDeltas(spec, 2)));
  MemoryBudget budget(0);
  PrefixShelf shelf(budget, 0, folder_.path("prefixes"));
  const auto scope = [&](const DeltaSnapshot& adapter) {
    return shelf.PlaceFor("base", 1, adapter.get(), Activations::kInt8).scope;
  };
  EXPECT_EQ(scope(one), scope(same));
  EXPECT_NE(scope(one), scope(other));
  EXPECT_NE(scope(one), scope(nullptr));
  EXPECT_NE(shelf.PlaceFor("base", 2, nullptr, Activations::kInt8).scope, scope(nullptr));
}

TEST_F(AssistantPrefixesTest, WhatIsForgottenIsGone) {
  const auto assistant = Open(Settings());
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply first, Answer(*assistant, Ask()));
  ASSERT_GT(Charged(*assistant), 0);
  // An answer that is under way has read it.
  bool forgot = false;
  const auto forget_once = [&](absl::string_view) {
    if (forgot) return true;
    forgot = true;
    EXPECT_THAT(assistant->Forget(first.id), testing::IsOk());
    return true;
  };
  COTERIE_ASSERT_OK(assistant->Generate(Ask(), forget_once, {}).status());
  ASSERT_TRUE(forgot);
  EXPECT_EQ(Charged(*assistant), 0);
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply again, Answer(*assistant, Ask()));
  EXPECT_EQ(again.generation.n_cached_tokens, 0);
}

TEST_F(AssistantPrefixesTest, ACancelledAnswerLeavesWhatItComputed) {
  const auto assistant = Open(Settings());
  COTERIE_ASSERT_OK_AND_ASSIGN(
      const Reply cancelled,
      assistant->Generate(Ask(), [](absl::string_view) { return false; }, {}));
  ASSERT_EQ(cancelled.generation.finish_reason, FinishReason::kCancelled);
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply again, Answer(*assistant, Ask()));
  EXPECT_THAT(again.generation.n_cached_tokens, Ge(4 * kBlock));
}

// As an assistant in another process would find it.
TEST_F(AssistantPrefixesTest, OnDiskItOutlivesTheProcess) {
  Configuration configuration = OnDisk();
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply first, Answer(*Open(configuration), Ask()));
  const auto next = Open(configuration);
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply again, Answer(*next, Ask()));
  EXPECT_EQ(again.generation.n_cached_tokens, WholeBlocks(again.generation.n_prompt_tokens - 1));
  EXPECT_EQ(again.generation.tokens, first.generation.tokens);
  EXPECT_EQ(Logprobs(again), Logprobs(first));
  EXPECT_EQ(next->Stats().prefixes.disk_tokens, again.generation.n_cached_tokens);
  EXPECT_EQ(next->Stats().prefixes.memory.held_bytes, Charged(*next));
  // Then it is in memory.
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply third, Answer(*next, Ask()));
  EXPECT_EQ(third.generation.n_cached_tokens, again.generation.n_cached_tokens);
  EXPECT_EQ(next->Stats().prefixes.disk_tokens, again.generation.n_cached_tokens);
  // Another file of the same name and size is another base.
  AddModel("tiny", 3e4);
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply other, Answer(*Open(configuration), Ask()));
  EXPECT_EQ(other.generation.n_cached_tokens, 0);
}

TEST_F(AssistantPrefixesTest, DamageOnDiskCostsAPrefillAndNothingElse) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply first, Answer(*Open(OnDisk()), Ask()));
  ASSERT_GT(FilesOnDisk().size(), 3u);
  for (const std::string& path : FilesOnDisk()) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(1000);
    file.put('x').put('y');
  }
  auto next = Open(OnDisk());
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply again, Answer(*next, Ask()));
  EXPECT_EQ(again.generation.n_cached_tokens, 0);
  EXPECT_EQ(Logprobs(again), Logprobs(first));
  EXPECT_EQ(next->Stats().prefixes.n_damaged, 1);
  next.reset();  // Writes it again, as far as it is not there.
  next = Open(OnDisk());
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply third, Answer(*next, Ask()));
  EXPECT_EQ(third.generation.n_cached_tokens, kBlock);
  EXPECT_EQ(Logprobs(third), Logprobs(first));
}

TEST_F(AssistantPrefixesTest, AnAnswerThatIsNotLoggedIsNotOnDisk) {
  Request request = Ask();
  request.log = false;
  const auto assistant = Open(OnDisk());
  COTERIE_ASSERT_OK(Answer(*assistant, request).status());
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply again, Answer(*assistant, request));
  EXPECT_THAT(again.generation.n_cached_tokens, Ge(4 * kBlock));
  EXPECT_EQ(assistant->Stats().prefixes.n_written, 0);
  EXPECT_EQ(FilesOnDisk().size(), 0u);
}

TEST_F(AssistantPrefixesTest, TheKeyOfTheLogSealsWhatIsOnDisk) {
  Configuration sealed = OnDisk(), other = OnDisk(), missing = OnDisk();
  sealed.learning.key_file = folder_.Write("key", std::string(64, 'a'));
  other.learning.key_file = folder_.Write("other", std::string(64, 'b'));
  other.learning.log_path = folder_.path("other.db");
  missing.learning.key_file = folder_.path("missing");
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply first, Answer(*Open(sealed), Ask()));
  const size_t n_sealed = FilesOnDisk().size();
  ASSERT_GT(n_sealed, 3u);
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply again, Answer(*Open(sealed), Ask()));
  EXPECT_THAT(again.generation.n_cached_tokens, Ge(4 * kBlock));
  EXPECT_EQ(Logprobs(again), Logprobs(first));
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply stranger, Answer(*Open(other), Ask()));
  EXPECT_EQ(stranger.generation.n_cached_tokens, 0);
  EXPECT_EQ(FilesOnDisk().size(), 2 * n_sealed);
  const auto keyless = Open(missing);
  COTERIE_ASSERT_OK(Answer(*keyless, Ask()).status());
  EXPECT_THAT(keyless->problems(), Contains(HasSubstr("not kept on disk")));
  EXPECT_EQ(FilesOnDisk().size(), 2 * n_sealed);
}

TEST_F(AssistantPrefixesTest, ForgettingReachesTheDiskAndOtherProcesses) {
  auto one = Open(OnDisk());
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply first, Answer(*one, Ask()));
  const auto other = Open(Settings());
  COTERIE_ASSERT_OK(Answer(*other, Ask()).status());
  ASSERT_TRUE(Eventually([&] { return FilesOnDisk().size() > 3; }));
  COTERIE_ASSERT_OK(one->Forget(first.id));
  EXPECT_EQ(FilesOnDisk().size(), 0u);
  COTERIE_ASSERT_OK_AND_ASSIGN(const Reply again, Answer(*other, Ask()));
  EXPECT_EQ(again.generation.n_cached_tokens, 0);
  // An idle process does not wait for its next answer.
  COTERIE_ASSERT_OK(one->Forget(again.id));
  EXPECT_TRUE(Eventually([&] { return Charged(*other) == 0; }));
}

TEST_F(AssistantPrefixesTest, TheDiskHoldsNoMoreThanItMay) {
  Configuration configuration = OnDisk();
  configuration.cache.prefix_disk_bytes = 50'000;  // Five blocks.
  const auto assistant = Open(configuration);
  for (const char* text : {"a", "b", "c"}) {
    Request request = Ask("tiny", text);
    request.messages.front().content.insert(0, text);
    COTERIE_ASSERT_OK(Answer(*assistant, request).status());
  }
  ASSERT_TRUE(Eventually([&] { return assistant->Stats().prefixes.n_written >= 9; }));
  int64_t bytes = 0;
  for (const std::string& path : FilesOnDisk()) {
    // The writer may be taking one away just now.
    std::error_code gone;
    const auto size = std::filesystem::file_size(path, gone);
    if (!gone) bytes += static_cast<int64_t>(size);
  }
  EXPECT_LE(bytes, 50'000);
}

// Whatever the budget, the same answers come and the same are refused.
TEST_F(AssistantPrefixesTest, NoBudgetRefusesWhatItWouldAnswerWithout) {
  const auto keeps = Open(Settings(1));
  const auto keeps_nothing = Open(Settings(0));
  COTERIE_ASSERT_OK(Answer(*keeps_nothing, Ask()).status());
  const int64_t least_bytes = keeps_nothing->Stats().budget.used_bytes;
  Request request = Ask();
  request.deadline = absl::InfinitePast();
  int64_t n_answered = 0;
  for (int64_t bytes = least_bytes; bytes < least_bytes + 1'000'000; bytes += 50'000) {
    COTERIE_ASSERT_OK(keeps->SetMemoryBudget(bytes));
    COTERIE_ASSERT_OK(keeps_nothing->SetMemoryBudget(bytes));
    request.deadline = absl::Now() + absl::Seconds(5);
    for (int i = 0; i < 3; ++i) {
      const auto one = Answer(*keeps, request);
      const auto other = Answer(*keeps_nothing, request);
      EXPECT_EQ(one.status().code(), other.status().code()) << "budget " << bytes;
      if (!one.ok() || !other.ok()) continue;
      EXPECT_EQ(Logprobs(*one), Logprobs(*other));
      ++n_answered;
    }
    EXPECT_LE(keeps->Stats().budget.used_bytes, bytes);
  }
  EXPECT_GT(n_answered, 0);
}

}  // namespace
}  // namespace coterie
