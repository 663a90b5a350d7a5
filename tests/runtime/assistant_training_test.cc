// From feedback to a published adapter, and out of it again, on a tiny model.

#include <algorithm>
#include <filesystem>
#include <memory>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "core/base/read_file.h"
#include "lora/adapter_store.h"
#include "lora/sha256.h"
#include "runtime/assistant.h"
#include "tests/fuzz/gguf_draft.h"
#include "tests/fuzz/scratch_folder.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::testing::_;
using ::testing::Contains;
using ::testing::HasSubstr;
using testing::StatusIs;

class AssistantTrainingTest : public ::testing::Test {
 protected:
  void SetUp() override {
    assistant_ = Open(folder_);
    ASSERT_NE(assistant_, nullptr);
  }

  static void AddModel(const testing::ScratchFolder& folder, const std::string& name,
                       const std::string& bytes) {
    folder.Write(name + ".gguf", bytes);
    folder.Write(
        absl::StrCat("models/", name, ".json"),
        absl::StrCat(R"({"name": ")", name, R"(", "path": ")", name, R"(.gguf", "sha256": ")",
                     Sha256Of(bytes).substr(7), R"(", "bytes": )", bytes.size(), "}"));
  }

  static std::unique_ptr<Assistant> Open(const testing::ScratchFolder& folder,
                                         LearningConfiguration learning = {}) {
    AddModel(folder, "tiny", testing::TinyModel().Bytes());
    Configuration configuration = *Configuration::Default();
    configuration.home = folder.path();
    configuration.memory_budget_bytes = 400'000'000;
    configuration.router_path = COTERIE_DEFAULT_ROUTER;
    configuration.cache.pressure = false;  // What else this machine does decides nothing here.
    configuration.learning = std::move(learning);
    configuration.learning.log_path = absl::StrCat(folder.path(), "/interactions.db");
    auto assistant = Assistant::Open(std::move(configuration));
    EXPECT_THAT(assistant, testing::IsOk());
    return assistant.ok() ? *std::move(assistant) : nullptr;
  }

  // An answer that was edited. Times and ids are given, so that two logs can be alike.
  static void LogEdit(Assistant& assistant, int i, const std::string& edit) {
    Interaction interaction;
    interaction.id = absl::StrCat("id-", i);
    interaction.time = absl::FromUnixSeconds(1000 + i);
    const std::string letters = {static_cast<char>('a' + i % 26), static_cast<char>('a' + i / 26)};
    interaction.messages = {{"user", absl::StrCat("hello ", letters, " you"), ""}};
    interaction.reply = "hello";
    interaction.expert = "tiny";
    COTERIE_ASSERT_OK(assistant.interactions()->Append(interaction));
    COTERIE_ASSERT_OK(assistant.interactions()
                          ->SetFeedback(interaction.id, {Verdict::kEdited, edit, ""})
                          .status());
  }
  static void LogEdits(Assistant& assistant, int n) {
    for (int i = 0; i < n; ++i) LogEdit(assistant, i, "you you you hello");
  }

  static TrainingRequest Quick() {
    TrainingRequest request;
    request.expert = "tiny";
    request.adapter = "home";
    request.options.learning_rate = 0.02f;
    request.options.rank = 4;
    request.options.precision = TrainingPrecision::kF32;
    request.n_epochs = 6;
    request.gate.least_cases = 4;
    request.gate.largest_forgetting = 100;  // Tiny models have nothing to forget.
    return request;
  }

  static std::string CurrentWeights(const testing::ScratchFolder& folder,
                                    const std::string& name = "home") {
    const AdapterStore store(folder.path());
    const auto version = store.CurrentVersion(name);
    if (!version.ok()) return "";
    const auto bytes =
        ReadSmallFile(store.FolderOf(name, *version) + "/adapter_model.safetensors", 1 << 24);
    return bytes.ok() ? *bytes : "";
  }

  const testing::ScratchFolder folder_;
  std::unique_ptr<Assistant> assistant_;
};

TEST_F(AssistantTrainingTest, EditsBecomeAnExpertOfTheirOwn) {
  LogEdits(*assistant_, 40);
  COTERIE_ASSERT_OK_AND_ASSIGN(const TrainingReport report, assistant_->Train(Quick(), {}));
  EXPECT_EQ(report.adapter, "home@1") << report.result.gate.verdict;
  EXPECT_GT(report.n_held_out, 3);
  EXPECT_GT(report.result.gate.gain.low, 0);
  EXPECT_LT(report.result.served_difference, 0.002);
  EXPECT_EQ(report.compared.n_cases, report.n_held_out);
  EXPECT_LT(report.compared.adapter, report.compared.base);
  // As it is answered, with rounded activations, and as it is trained.
  EXPECT_NEAR(report.compared.base / report.result.gate.held_out_before, 1, 0.02);
  EXPECT_NEAR(report.compared.adapter / report.result.gate.held_out_after, 1, 0.02);
  EXPECT_NE(report.compared.base_retrieval, report.compared.base);
  EXPECT_NE(report.compared.adapter_retrieval, report.compared.adapter);
  Request request;
  request.messages = {{"user", "hello zz you", ""}};
  request.expert = "home";
  request.sampling.temperature = 0.0f;
  request.max_tokens = 4;
  COTERIE_ASSERT_OK_AND_ASSIGN(
      const Reply reply, assistant_->Generate(request, [](absl::string_view) { return true; }, {}));
  EXPECT_EQ(reply.adapter, "home@1");
  const BudgetSnapshot budget = assistant_->Stats().budget;
  EXPECT_EQ(budget.bytes_by_purpose[static_cast<size_t>(Purpose::kTraining)], 0);
}

TEST_F(AssistantTrainingTest, TheExpertOfAnAdapterIsShownWhatItsBaseWasTaught) {
  LogEdits(*assistant_, 40);
  COTERIE_ASSERT_OK_AND_ASSIGN(const TrainingReport report, assistant_->Train(Quick(), {}));
  ASSERT_EQ(report.adapter, "home@1") << report.result.gate.verdict;
  Request request;
  request.messages = {{"user", "hello ca you", ""}};
  request.sampling.temperature = 0.0f;
  request.max_tokens = 1;
  request.retrieval = true;
  const auto examples_of = [&](const std::string& expert) {
    request.expert = expert;
    const auto reply = assistant_->Generate(request, [](absl::string_view) { return true; }, {});
    EXPECT_THAT(reply, testing::IsOk());
    return reply.ok() ? reply->examples : std::vector<std::string>();
  };
  ASSERT_THAT(examples_of("tiny"), Contains("id-2"));
  EXPECT_EQ(examples_of("home"), examples_of("tiny"));
}

TEST_F(AssistantTrainingTest, TrainingTheExpertOfAnAdapterLearnsFromWhatItsBaseWasTaughtToo) {
  LogEdits(*assistant_, 40);
  COTERIE_ASSERT_OK_AND_ASSIGN(const TrainingReport first, assistant_->Train(Quick(), {}));
  ASSERT_EQ(first.adapter, "home@1") << first.result.gate.verdict;
  TrainingRequest again = Quick();
  again.expert = "home";
  again.adapter = "";
  COTERIE_ASSERT_OK_AND_ASSIGN(const TrainingReport second, assistant_->Train(again, {}));
  EXPECT_EQ(second.n_examples, first.n_examples);
  EXPECT_EQ(second.n_held_out, first.n_held_out);
}

TEST_F(AssistantTrainingTest, ForgettingNeedsNoFileOfAVersionButItsLedger) {
  LogEdits(*assistant_, 40);
  COTERIE_ASSERT_OK_AND_ASSIGN(const TrainingReport report, assistant_->Train(Quick(), {}));
  ASSERT_EQ(report.adapter, "home@1") << report.result.gate.verdict;
  folder_.Write("adapters/home/v0001/adapter_model.safetensors", "damaged");
  COTERIE_ASSERT_OK(assistant_->Forget("id-3"));
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto adapters, AdapterStore(folder_.path()).List());
  ASSERT_EQ(adapters.size(), 1u);
  ASSERT_EQ(adapters.front().versions.size(), 1u);
  EXPECT_EQ(adapters.front().current, 2);
}

TEST_F(AssistantTrainingTest, AFileThatIsRehearsedChangesWhatIsLearntAndMayBeGoneLater) {
  LogEdits(*assistant_, 40);
  COTERIE_ASSERT_OK(assistant_->Train(Quick(), {}).status());
  const std::string without = CurrentWeights(folder_);
  TrainingRequest request = Quick();
  request.replay = folder_.path("novel.txt");
  EXPECT_THAT(assistant_->Train(request, {}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("novel.txt")));
  request.adapter = "reader";
  std::string novel;
  for (int i = 0; i < 100; ++i)
    absl::StrAppend(&novel, "On page ", i, " nothing happened again.\n");
  folder_.Write("novel.txt", novel);
  COTERIE_ASSERT_OK_AND_ASSIGN(const TrainingReport report, assistant_->Train(request, {}));
  ASSERT_EQ(report.adapter, "reader@1") << report.result.gate.verdict;
  EXPECT_FALSE(without == CurrentWeights(folder_, "reader"));
  ASSERT_TRUE(std::filesystem::remove(request.replay));
  COTERIE_EXPECT_OK(assistant_->Forget("id-3"));
  EXPECT_EQ(*AdapterStore(folder_.path()).CurrentVersion("reader"), 2);
}

TEST_F(AssistantTrainingTest, EditsThatTeachNothingAreNotPublished) {
  for (int i = 0; i < 40; ++i) {
    // Each wants something else, so that nothing carries over to cases held back.
    std::string noise;
    for (int k = 0; k < 8; ++k)
      noise.push_back(static_cast<char>('a' + (i * 7919 + k * k * 31) % 26));
    LogEdit(*assistant_, i, noise);
  }
  TrainingRequest request = Quick();
  request.gate.largest_forgetting = -100;  // Even a gain by chance would cost too much.
  COTERIE_ASSERT_OK_AND_ASSIGN(const TrainingReport report, assistant_->Train(request, {}));
  EXPECT_EQ(report.adapter, "");
  EXPECT_THAT(report.result.gate.verdict, HasSubstr("no gain yet"));
  EXPECT_EQ(CurrentWeights(folder_), "");
}

TEST_F(AssistantTrainingTest, ForgettingLeavesTheBytesOfNeverHavingHadIt) {
  // The ledger alone says how to train again: options that are not the defaults.
  TrainingRequest request = Quick();
  request.options.dropout = 0.1f;
  request.options.warmup_steps = 3;
  request.options.clip_norm = 0.05f;
  request.options.weight_decay = 0.01f;
  LogEdits(*assistant_, 40);
  // Several, for some are held back and change no byte.
  for (int i = 40; i < 43; ++i) LogEdit(*assistant_, i, "a secret");
  COTERIE_ASSERT_OK_AND_ASSIGN(const TrainingReport with, assistant_->Train(request, {}));
  ASSERT_EQ(with.adapter, "home@1") << with.result.gate.verdict;
  const std::string with_secret = CurrentWeights(folder_);
  for (int i = 40; i < 43; ++i) {
    COTERIE_ASSERT_OK(assistant_->Forget(absl::StrCat("id-", i)));
  }

  const testing::ScratchFolder other;
  const auto never_had_it = Open(other);
  LogEdits(*never_had_it, 40);
  COTERIE_ASSERT_OK_AND_ASSIGN(const TrainingReport without, never_had_it->Train(request, {}));
  ASSERT_EQ(without.adapter, "home@1");
  EXPECT_FALSE(with_secret == CurrentWeights(other));
  EXPECT_TRUE(CurrentWeights(folder_) == CurrentWeights(other));
  // No version that had it is left.
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto adapters, AdapterStore(folder_.path()).List());
  ASSERT_EQ(adapters.size(), 1u);
  EXPECT_EQ(adapters.front().versions.size(), 1u);
  EXPECT_EQ(adapters.front().current, 4);
}

TEST_F(AssistantTrainingTest, AnAdapterThatStoodForOneInteractionGoesWithIt) {
  LogEdits(*assistant_, 1);
  TrainingRequest request = Quick();
  request.set.held_out_share = 0;
  request.gate.least_cases = 0;
  // Too few cases to publish by itself: published by hand, as an import would be.
  COTERIE_ASSERT_OK(assistant_->Train(request, {}).status());
  Adapter adapter;
  adapter.name = "home";
  const auto expert = Expert::Open(absl::StrCat(folder_.path(), "/tiny.gguf"));
  ASSERT_THAT(expert, testing::IsOk());
  adapter.base = IdentityOf(**expert, "", "tiny");
  LinearDelta delta;
  const LinearShape shape = ShapeOf((*expert)->spec(), LayerLinear::kQ);
  delta.rank = 1;
  delta.scale = 1;
  delta.a.assign(static_cast<size_t>(shape.in), 0.1f);
  delta.b.assign(static_cast<size_t>(shape.out), 0.1f);
  adapter.deltas = {delta};
  AdapterStore store(folder_.path());
  COTERIE_ASSERT_OK(
      store.Publish(adapter, {{"id-0"}, R"({"expert": "tiny", "precision": "f32"})", ""}).status());
  COTERIE_ASSERT_OK(assistant_->Forget("id-0"));
  EXPECT_THAT(store.Current("home"), StatusIs(absl::StatusCode::kNotFound, _));
}

TEST_F(AssistantTrainingTest, ARequestThatNeedsItsMemoryGetsItAndTrainingGoesOnToTheSameBytes) {
  TrainingRequest request = Quick();
  request.n_epochs = 40;
  LogEdits(*assistant_, 40);
  COTERIE_ASSERT_OK(assistant_->Train(request, {}).status());

  const testing::ScratchFolder other;
  AddModel(other, "second", testing::TinySentencePieceModel().Bytes());
  LearningConfiguration learning;
  learning.resume_after = absl::Milliseconds(300);
  const auto pausing = Open(other, learning);
  LogEdits(*pausing, 40);
  absl::StatusOr<TrainingReport> report = absl::UnknownError("");
  std::jthread trainer([&] { report = pausing->Train(request, {}); });
  while (pausing->training_progress().step < 3) std::this_thread::yield();
  const auto training_bytes = [&] {
    return pausing->Stats().budget.bytes_by_purpose[static_cast<size_t>(Purpose::kTraining)];
  };
  EXPECT_GT(training_bytes(), 0);
  // Nothing fits beside it any more.
  COTERIE_ASSERT_OK(pausing->SetMemoryBudget(pausing->Stats().budget.used_bytes));
  Request ask;
  ask.messages = {{"user", "hello", ""}};
  ask.expert = "second";
  ask.max_tokens = 2;
  COTERIE_ASSERT_OK(pausing->Generate(ask, [](absl::string_view) { return true; }, {}).status());
  EXPECT_EQ(training_bytes(), 0);
  // It says so a moment after it gave the bytes back.
  while (pausing->training_progress().phase != TrainingProgress::Phase::kPaused) {
    ASSERT_LT(pausing->training_progress().step, 160);
    std::this_thread::yield();
  }
  trainer.join();
  COTERIE_ASSERT_OK(report.status());
  EXPECT_EQ(report->adapter, "home@1") << report->result.gate.verdict;
  EXPECT_TRUE(CurrentWeights(other) == CurrentWeights(folder_));
}

TEST_F(AssistantTrainingTest, APausedTrainingCanBeStopped) {
  const testing::ScratchFolder other;
  AddModel(other, "second", testing::TinySentencePieceModel().Bytes());
  LearningConfiguration learning;
  learning.resume_after = absl::InfiniteDuration();
  const auto pausing = Open(other, learning);
  LogEdits(*pausing, 40);
  TrainingRequest request = Quick();
  request.n_epochs = 1000;
  std::stop_source stop;
  absl::StatusOr<TrainingReport> report = absl::UnknownError("");
  std::jthread trainer([&] { report = pausing->Train(request, stop.get_token()); });
  while (pausing->training_progress().step < 3) std::this_thread::yield();
  COTERIE_ASSERT_OK(pausing->SetMemoryBudget(pausing->Stats().budget.used_bytes));
  Request ask;
  ask.messages = {{"user", "hello", ""}};
  ask.expert = "second";
  ask.max_tokens = 2;
  COTERIE_ASSERT_OK(pausing->Generate(ask, [](absl::string_view) { return true; }, {}).status());
  stop.request_stop();
  trainer.join();
  EXPECT_THAT(report, StatusIs(absl::StatusCode::kCancelled, _));
}

TEST_F(AssistantTrainingTest, EnoughFeedbackIsLearntFromWhenNobodyAsks) {
  const testing::ScratchFolder other;
  LearningConfiguration learning;
  learning.idle = {true, absl::ZeroDuration(), 30, /*only_on_ac=*/false};
  const auto idle = Open(other, learning);
  LogEdits(*idle, 40);
  std::vector<Event> events;
  const absl::Time give_up = absl::Now() + absl::Seconds(30);
  while (events.empty() && absl::Now() < give_up) {
    absl::SleepFor(absl::Milliseconds(20));
    for (const Event& event : idle->TakeEvents()) {
      if (event.kind == "trained" || event.kind == "training_failed") events.push_back(event);
    }
  }
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events.front().kind, "trained") << events.front().text;
  EXPECT_EQ(events.front().expert, "tiny");
  EXPECT_TRUE(idle->interactions()->NewFeedback()->empty());
}

TEST_F(AssistantTrainingTest, SaysWhatIsMissing) {
  EXPECT_THAT(assistant_->Train(Quick(), {}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("no feedback")));
  TrainingRequest unknown = Quick();
  unknown.expert = "nobody";
  EXPECT_THAT(assistant_->Train(unknown, {}), StatusIs(absl::StatusCode::kNotFound, _));
  LogEdits(*assistant_, 5);
  TrainingRequest bad = Quick();
  bad.options.rank = 0;
  EXPECT_THAT(assistant_->Train(bad, {}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("rank=0")));
}

TEST_F(AssistantTrainingTest, AStoppedTrainingGoesOnToTheSameBytes) {
  LogEdits(*assistant_, 40);
  const testing::ScratchFolder other;
  const auto whole = Open(other);
  LogEdits(*whole, 40);
  COTERIE_ASSERT_OK(whole->Train(Quick(), {}).status());

  std::stop_source stop;
  std::jthread stopper([&] {
    while (assistant_->training_progress().step < 3) std::this_thread::yield();
    stop.request_stop();
  });
  const auto stopped = assistant_->Train(Quick(), stop.get_token());
  stopper.join();
  if (!stopped.ok()) {
    EXPECT_THAT(stopped, StatusIs(absl::StatusCode::kCancelled, _));
    COTERIE_ASSERT_OK(assistant_->Train(Quick(), {}).status());
  }
  EXPECT_TRUE(CurrentWeights(folder_) == CurrentWeights(other));
}

}  // namespace
}  // namespace coterie
