// Who has a screen and when, what it is charged, and that answers are the same with and without.

#include "experts/head_screens.h"

#include <atomic>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "experts/generation.h"
#include "experts/sequence_batch.h"
#include "tests/experts/tiny_model.h"
#include "tests/fuzz/scratch_folder.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using testing::MakeTinyModel;
using testing::TinyIds;

constexpr int64_t kBudget = 1 << 20;

class HeadScreensTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ =
        testing::WriteGguf(MakeTinyModel("llama"), folder_.path(), "tiny", 1, TensorType::kQ8_0);
    expert_ = Open();
  }
  std::shared_ptr<const Expert> Open() {
    auto expert = Expert::Open(path_);
    EXPECT_THAT(expert, testing::IsOk());
    return *std::move(expert);
  }

  int64_t Charged() const {
    return budget_.Snapshot().bytes_by_purpose[static_cast<size_t>(Purpose::kHeadScreen)];
  }
  HeadScreen* Seen(const Expert& expert) {
    HeadScreen* seen = nullptr;
    screens_.Use(expert, [&](HeadScreen* screen) { seen = screen; });
    return seen;
  }
  int64_t Bytes() const { return HeadScreen::Bytes(expert_->weights().head.w); }

  const testing::ScratchFolder folder_;
  std::string path_;
  std::shared_ptr<const Expert> expert_;
  MemoryBudget budget_{kBudget};
  HeadScreens screens_{budget_, /*least_head_bytes=*/0};
};

TEST_F(HeadScreensTest, AnExpertHasOneAndTheSameAndIsChargedForIt) {
  HeadScreen* const first = Seen(*expert_);
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(Charged(), Bytes());
  EXPECT_EQ(screens_.expendable_bytes(), Bytes());
  EXPECT_EQ(Seen(*expert_), first);
  EXPECT_EQ(Charged(), Bytes());
}

TEST_F(HeadScreensTest, OnePassAtATimeHasIt) {
  screens_.Use(*expert_, [&](HeadScreen* screen) {
    EXPECT_NE(screen, nullptr);
    EXPECT_EQ(Seen(*expert_), nullptr);
  });
  EXPECT_NE(Seen(*expert_), nullptr);
}

TEST_F(HeadScreensTest, TakesOnlyMemoryThatLeavesAQuarterFree) {
  COTERIE_ASSERT_OK_AND_ASSIGN(
      Reservation most, budget_.Reserve(Purpose::kScratch, kBudget - kBudget / 4 - Bytes() + 1));
  EXPECT_EQ(Seen(*expert_), nullptr);
  EXPECT_EQ(Charged(), 0);
  most.ShrinkTo(most.bytes() - 1);
  EXPECT_NE(Seen(*expert_), nullptr);
}

TEST_F(HeadScreensTest, SmallHeadsAndThoseOfFloatsHaveNone) {
  HeadScreens screens(budget_);
  screens.Use(*expert_, [](HeadScreen* screen) { EXPECT_EQ(screen, nullptr); });
  path_ = testing::WriteGguf(MakeTinyModel("llama"), folder_.path(), "floats");
  EXPECT_EQ(Seen(*Open()), nullptr);
  EXPECT_EQ(Charged(), 0);
}

TEST_F(HeadScreensTest, GoesWhenOthersNeedItsBytes) {
  ASSERT_NE(Seen(*expert_), nullptr);
  EXPECT_TRUE(screens_.Reclaim(Bytes() + 1).empty()) << "there is not so much";
  EXPECT_EQ(Charged(), Bytes());
  {
    const std::vector<Reservation> freed = screens_.Reclaim(1);
    ASSERT_EQ(freed.size(), 1u);
    EXPECT_EQ(freed[0].bytes(), Bytes()) << "still charged, for whoever asked";
    EXPECT_EQ(screens_.expendable_bytes(), 0);
  }
  EXPECT_EQ(Charged(), 0);
}

TEST_F(HeadScreensTest, APassThatHasItIsWaitedFor) {
  std::atomic<bool> pass_ended{false};
  std::jthread other;
  screens_.Use(*expert_, [&](HeadScreen* screen) {
    ASSERT_NE(screen, nullptr);
    other = std::jthread([&] {
      EXPECT_EQ(screens_.Reclaim(1).size(), 1u);
      EXPECT_TRUE(pass_ended);
    });
    while (screens_.expendable_bytes() > 0) absl::SleepFor(absl::Milliseconds(1));
    absl::SleepFor(absl::Milliseconds(20));
    pass_ended = true;
  });
}

TEST_F(HeadScreensTest, WhatAnUnloadedExpertLeftIsDropped) {
  ASSERT_NE(Seen(*expert_), nullptr);
  screens_.DropOrphans();
  EXPECT_EQ(Charged(), Bytes()) << "it is still loaded";
  expert_.reset();
  screens_.DropOrphans();
  EXPECT_EQ(Charged(), 0);
}

TEST_F(HeadScreensTest, ManyPassesAndReclaimersGetAlong) {
  std::vector<std::shared_ptr<const Expert>> experts = {expert_, Open(), Open()};
  std::atomic<bool> ends{false};
  std::vector<std::jthread> threads;
  for (size_t i = 0; i < experts.size(); ++i) {
    threads.emplace_back([&, i] {
      while (!ends) {
        screens_.Use(*experts[i], [&](HeadScreen* screen) {
          EXPECT_FALSE(screen != nullptr && screen->is_ready());
        });
      }
    });
  }
  threads.emplace_back([&] {
    while (!ends) screens_.Reclaim(1);
  });
  absl::SleepFor(absl::Milliseconds(100));
  ends = true;
  threads.clear();
  EXPECT_EQ(Charged(), screens_.expendable_bytes());
}

class ScreenedAnswerTest : public ::testing::TestWithParam<const char*> {};

TEST_P(ScreenedAnswerTest, IsTheAnswerWithoutAScreen) {
  const testing::ScratchFolder folder;
  COTERIE_ASSERT_OK_AND_ASSIGN(
      const auto expert, Expert::Open(testing::WriteGguf(MakeTinyModel(GetParam()), folder.path(),
                                                         "tiny", 1, TensorType::kQ8_0)));
  WorkerPool pool(2);
  MemoryBudget budget(int64_t{1} << 30);
  HeadScreens screens(budget, /*least_head_bytes=*/0);
  SequenceBatch with(*expert, pool, budget, {}, Activations::kInt8, &screens);
  SequenceBatch without(*expert, pool, budget);
  for (uint32_t i = 0; i < 12; ++i) {
    GenerationOptions options;
    options.max_tokens = 100;
    options.lookup = false;
    options.sampling = {.temperature = i % 2 == 0 ? 0.0f : 1.0f, .top_k = 3, .seed = i};
    if (i % 3 == 2) options.sampling = {.temperature = 0, .seed = i, .n_logprobs = 2};
    const std::vector<TokenId> prompt = TinyIds(5, i);
    std::vector<TokenId> tokens[2];
    for (SequenceBatch* batch : {&with, &without}) {
      Session session(*expert, pool, SessionShape::ForTokens(110), *batch);
      COTERIE_ASSERT_OK_AND_ASSIGN(
          const Generation answer,
          Generate(session, prompt, options, [](absl::string_view) { return true; }, {}));
      tokens[batch == &without] = answer.tokens;
    }
    EXPECT_EQ(tokens[0], tokens[1]) << "answer " << i;
  }
  screens.Use(*expert, [](HeadScreen* screen) {
    ASSERT_NE(screen, nullptr);
    EXPECT_GT(screen->n_screened(), 50) << "many of the tokens";
  });
}

INSTANTIATE_TEST_SUITE_P(Architectures, ScreenedAnswerTest,
                         ::testing::Values("llama", "qwen2", "gemma3"),
                         [](const auto& info) { return std::string(info.param); });

TEST(ExpendableMemoriesTest, TheFirstGoFirstAndNothingGoesThatIsNotEnough) {
  MemoryBudget budget(1000);
  class Held : public ExpendableMemory {
   public:
    Held(MemoryBudget& budget, int64_t bytes)
        : held_(*budget.Reserve(Purpose::kPrefixCache, bytes)) {}
    std::vector<Reservation> Reclaim(int64_t bytes) override {
      std::vector<Reservation> freed;
      if (bytes <= held_.bytes()) freed.push_back(held_.Split(bytes));
      return freed;
    }
    int64_t expendable_bytes() const override { return held_.bytes(); }

   private:
    Reservation held_;
  };
  Held first(budget, 100), second(budget, 200);
  ExpendableMemories memories({&first, &second});
  EXPECT_EQ(memories.expendable_bytes(), 300);
  EXPECT_TRUE(memories.Reclaim(301).empty());
  EXPECT_EQ(memories.Reclaim(60).size(), 1u);
  EXPECT_EQ(first.expendable_bytes(), 40);
  EXPECT_EQ(second.expendable_bytes(), 200);
  const std::vector<Reservation> freed = memories.Reclaim(90);
  ASSERT_EQ(freed.size(), 2u);
  EXPECT_EQ(freed[0].bytes() + freed[1].bytes(), 90);
  EXPECT_EQ(first.expendable_bytes(), 0);
  EXPECT_EQ(second.expendable_bytes(), 150);
}

}  // namespace
}  // namespace coterie
