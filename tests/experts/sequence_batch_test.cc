// Answers that advance in shared passes, on threads of their own: each as if it were alone.

#include "experts/sequence_batch.h"

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "experts/generation.h"
#include "experts/session.h"
#include "tests/experts/tiny_adapter.h"
#include "tests/experts/tiny_expert_test.h"
#include "tests/experts/tiny_model.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::StatusIs;
using testing::TinyIds;

// So long that a pass is never begun without those who are on their way.
constexpr absl::Duration kForever = absl::Seconds(60);

TEST(ShareTokensTest, EveryoneGetsOneAndPromptsShareTheRestAlike) {
  EXPECT_THAT(ShareTokens({1, 1, 1}, 16), ElementsAre(1, 1, 1));
  EXPECT_THAT(ShareTokens({1, 300, 1}, 16), ElementsAre(1, 14, 1));
  EXPECT_THAT(ShareTokens({300, 1, 300}, 17), ElementsAre(8, 1, 8));
  EXPECT_THAT(ShareTokens({300, 4}, 16), ElementsAre(12, 4)) << "what a short one leaves";
  EXPECT_THAT(ShareTokens({9, 9, 9}, 2), ElementsAre(1, 1, 1)) << "nobody gets nothing";
  EXPECT_THAT(ShareTokens({}, 16), IsEmpty());
}

struct Job {
  std::vector<TokenId> prompt;
  GenerationOptions options;
  DeltaSnapshot adapter;
};

class SequenceBatchTest : public testing::TinyExpertTest {
 protected:
  DeltaSnapshot NewAdapter(uint32_t seed) const {
    auto set = LinearDeltaSet::Create(expert_->spec(), "tiny@1",
                                      testing::TinyDeltas(expert_->spec(), seed));
    EXPECT_THAT(set, testing::IsOk());
    return set.ok() ? *std::move(set) : nullptr;
  }

  // Prompts of 1 to 90 tokens, greedy and drawn, with an adapter or without.
  std::vector<Job> SomeJobs(size_t n) const {
    std::vector<Job> jobs(n);
    for (size_t i = 0; i < n; ++i) {
      jobs[i].prompt = TinyIds(static_cast<int64_t>(1 + 37 * i % 90), static_cast<uint32_t>(i));
      jobs[i].options.max_tokens = static_cast<int64_t>(10 + 7 * i % 30);
      jobs[i].options.sampling.temperature = i % 3 == 0 ? 0.0f : 1.0f;
      jobs[i].options.sampling.seed = i;
      jobs[i].options.sampling.n_logprobs = 2;
      if (i % 2 == 1) jobs[i].adapter = NewAdapter(static_cast<uint32_t>(1 + i % 4));
    }
    return jobs;
  }

  static SessionShape ShapeOf(const Job& job) {
    return SessionShape::ForTokens(static_cast<int64_t>(job.prompt.size()) + job.options.max_tokens,
                                   job.adapter.get());
  }

  using Sink = std::function<bool(absl::string_view)>;
  static bool Ignore(absl::string_view) { return true; }

  Generation Alone(const Job& job) {
    Session session(*expert_, pool_, ShapeOf(job), Activations::kInt8, job.adapter);
    auto generation = Generate(session, job.prompt, job.options, &Ignore, {});
    EXPECT_THAT(generation, testing::IsOk());
    return generation.ok() ? *std::move(generation) : Generation();
  }

  absl::StatusOr<Generation> InBatch(SequenceBatch& batch, const Job& job,
                                     const Sink& sink = &Ignore, std::stop_token cancel = {}) {
    Session session(*expert_, pool_, ShapeOf(job), batch, job.adapter);
    return Generate(session, job.prompt, job.options, sink, std::move(cancel));
  }

  // All at once, each on a thread of its own.
  std::vector<Generation> AllInBatch(SequenceBatch& batch, const std::vector<Job>& jobs) {
    std::vector<Generation> answers(jobs.size());
    std::vector<std::jthread> threads;
    for (size_t i = 0; i < jobs.size(); ++i) {
      threads.emplace_back([&, i] {
        auto answer = InBatch(batch, jobs[i]);
        EXPECT_THAT(answer, testing::IsOk());
        if (answer.ok()) answers[i] = *std::move(answer);
      });
    }
    threads.clear();
    return answers;
  }

  // Log-probabilities are those of the logits, so that these are compared to the last bit.
  static void ExpectSame(const Generation& answer, const Generation& alone) {
    EXPECT_EQ(answer.text, alone.text);
    EXPECT_EQ(answer.finish_reason, alone.finish_reason);
    EXPECT_EQ(answer.n_tokens, alone.n_tokens);
    ASSERT_EQ(answer.logprobs.size(), alone.logprobs.size());
    for (size_t i = 0; i < alone.logprobs.size(); ++i) {
      EXPECT_EQ(answer.logprobs[i].text, alone.logprobs[i].text) << "token " << i;
      EXPECT_EQ(answer.logprobs[i].logprob, alone.logprobs[i].logprob) << "token " << i;
      EXPECT_EQ(answer.logprobs[i].top, alone.logprobs[i].top) << "token " << i;
    }
  }

  WorkerPool pool_{2};
  MemoryBudget budget_{1'000'000'000};
};

TEST_P(SequenceBatchTest, EveryAnswerIsWhatItIsAlone) {
  const std::vector<Job> jobs = SomeJobs(9);
  std::vector<Generation> alone;
  for (const Job& job : jobs) alone.push_back(Alone(job));
  for (const int max_sequences : {1, 3, 16}) {
    SCOPED_TRACE(max_sequences);
    SequenceBatch batch(*expert_, pool_, budget_,
                        {.max_sequences = max_sequences, .max_tokens = 24});
    const std::vector<Generation> answers = AllInBatch(batch, jobs);
    for (size_t i = 0; i < jobs.size(); ++i) {
      SCOPED_TRACE(i);
      ExpectSame(answers[i], alone[i]);
    }
    EXPECT_EQ(batch.Stats().n_shared_passes > 0, max_sequences > 1);
  }
  EXPECT_EQ(budget_.Snapshot().used_bytes, 0) << "the batch's memory went with it";
  EXPECT_GT(budget_.Snapshot().peak_bytes, 0) << "and was charged";
}

TEST_P(SequenceBatchTest, AnAnswerMayJoinAndLeaveInTheMiddleOfAnother) {
  std::vector<Job> jobs = SomeJobs(3);
  jobs[0].options.max_tokens = 60;
  jobs[0].options.sampling.temperature = 1.0f;
  SequenceBatch batch(*expert_, pool_, budget_, {.least_patience = kForever});
  std::vector<std::jthread> joined;
  std::vector<Generation> answers(3);
  int n_pieces = 0;
  const auto start_another = [&](absl::string_view) {
    if (++n_pieces % 5 == 0 && joined.size() < 2) {
      const size_t i = joined.size() + 1;
      joined.emplace_back([&, i] {
        auto answer = InBatch(batch, jobs[i]);
        if (answer.ok()) answers[i] = *std::move(answer);
      });
    }
    return true;
  };
  COTERIE_ASSERT_OK_AND_ASSIGN(answers[0], InBatch(batch, jobs[0], start_another));
  const size_t n = joined.size() + 1;
  joined.clear();
  for (size_t i = 0; i < n; ++i) ExpectSame(answers[i], Alone(jobs[i]));
}

TEST_P(SequenceBatchTest, CancellingOneDoesNotTouchTheOthers) {
  std::vector<Job> jobs = SomeJobs(4);
  for (Job& job : jobs) job.options.max_tokens = 40;
  SequenceBatch batch(*expert_, pool_, budget_);
  std::stop_source cancel;
  absl::StatusOr<Generation> cancelled = absl::UnknownError("not begun");
  std::vector<Generation> answers;
  {
    int n_pieces = 0;
    const std::jthread other([&] {
      cancelled = InBatch(
          batch, jobs[3],
          [&](absl::string_view) { return ++n_pieces < 5 || (cancel.request_stop(), true); },
          cancel.get_token());
    });
    answers = AllInBatch(batch, {jobs[0], jobs[1], jobs[2]});
  }
  ASSERT_THAT(cancelled, testing::IsOk());
  EXPECT_EQ(cancelled->finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(Alone(jobs[3]).text.rfind(cancelled->text, 0), 0u) << "what was written stands";
  for (size_t i = 0; i < 3; ++i) ExpectSame(answers[i], Alone(jobs[i]));
}

// Decodes in `session` for as long as the other thread works, so that each pass of that one is
// shared; returns the tokens.
std::vector<TokenId> DecodeWhile(const std::atomic<bool>& works, Session& session) {
  std::vector<TokenId> tokens;
  while (works && session.n_tokens() < session.capacity_tokens()) {
    tokens.push_back(static_cast<TokenId>(tokens.size() % 90));
    EXPECT_THAT(session.Decode(tokens.back()), testing::IsOk());
  }
  return tokens;
}

TEST_P(SequenceBatchTest, AnErrorOfOneIsNoOneElses) {
  constexpr int64_t kCapacity = 1000;
  const std::vector<TokenId> prompt = TinyIds(10);
  const TokenId bad[] = {static_cast<TokenId>(expert_->spec().n_vocab)};
  SequenceBatch batch(*expert_, pool_, budget_, {.least_patience = kForever});
  std::optional<Session> healthy;
  healthy.emplace(*expert_, pool_, SessionShape::ForTokens(kCapacity), batch);
  COTERIE_ASSERT_OK(healthy->Prefill(prompt, {}));
  std::atomic<bool> works = true;
  const std::jthread other([&] {
    {
      Session mistaken(*expert_, pool_, SessionShape::ForTokens(kCapacity), batch);
      EXPECT_THAT(mistaken.Prefill(prompt, {}), testing::IsOk());
      EXPECT_THAT(mistaken.Prefill(bad, {}), StatusIs(absl::StatusCode::kInvalidArgument,
                                                      HasSubstr("outside the vocabulary")));
      EXPECT_THAT(mistaken.Decode(1), testing::IsOk());
    }
    // The shape has no room for the adapter's rank.
    Session broken(*expert_, pool_, {.capacity_tokens = 20, .chunk_tokens = 10}, batch,
                   NewAdapter(1));
    EXPECT_THAT(broken.Prefill(prompt, {}),
                StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("adapter rank")));
    EXPECT_THAT(broken.Decode(1),
                StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("failed before")));
    works = false;
  });
  const std::vector<TokenId> tokens = DecodeWhile(works, *healthy);
  EXPECT_GT(batch.Stats().n_shared_passes, 0);
  Session alone(*expert_, pool_, SessionShape::ForTokens(kCapacity));
  COTERIE_ASSERT_OK(alone.Prefill(prompt, {}));
  for (const TokenId token : tokens) COTERIE_ASSERT_OK(alone.Decode(token));
  EXPECT_EQ(healthy->logits(), alone.logits());
  healthy.reset();
}

TEST_P(SequenceBatchTest, ALongPromptComesInPiecesBetweenTheTokensOfOthers) {
  constexpr int64_t kPromptTokens = 200, kMaxTokens = 16;
  SequenceBatch batch(*expert_, pool_, budget_,
                      {.max_tokens = kMaxTokens, .least_patience = kForever});
  std::optional<Session> writing;
  writing.emplace(*expert_, pool_, SessionShape::ForTokens(1000), batch);
  COTERIE_ASSERT_OK(writing->Prefill(TinyIds(5), {}));
  std::atomic<bool> works = true;
  const std::jthread other([&] {
    Session reading(*expert_, pool_, SessionShape::ForTokens(kPromptTokens), batch);
    const int64_t n_shared = batch.Stats().n_shared_passes;
    EXPECT_THAT(reading.Prefill(TinyIds(kPromptTokens), {}), testing::IsOk());
    EXPECT_EQ(batch.Stats().n_shared_passes - n_shared,
              (kPromptTokens + kMaxTokens - 2) / (kMaxTokens - 1))
        << "a token of the other in each pass";
    works = false;
  });
  DecodeWhile(works, *writing);
  writing.reset();
}

TEST_P(SequenceBatchTest, ASlowReaderIsNotWaitedFor) {
  std::vector<Job> jobs = SomeJobs(3);
  for (Job& job : jobs) {
    job.options.max_tokens = 40;
    job.options.sampling.temperature = 0.5f;
  }
  SequenceBatch batch(*expert_, pool_, budget_);
  std::atomic<int> n_fast_done = 0;
  const auto slow = [&](absl::string_view) {
    const absl::Time give_up = absl::Now() + absl::Seconds(30);
    while (n_fast_done < 2 && absl::Now() < give_up) absl::SleepFor(absl::Milliseconds(1));
    return true;
  };
  absl::StatusOr<Generation> slow_answer = absl::UnknownError("not begun");
  const absl::Time start = absl::Now();
  {
    const std::jthread reader([&] { slow_answer = InBatch(batch, jobs[0], slow); });
    std::vector<std::jthread> others;
    for (size_t i = 1; i < 3; ++i) {
      others.emplace_back([&, i] {
        const auto answer = InBatch(batch, jobs[i]);
        EXPECT_THAT(answer, testing::IsOk());
        if (answer.ok()) ExpectSame(*answer, Alone(jobs[i]));
        ++n_fast_done;
      });
    }
  }
  EXPECT_LT(absl::Now() - start, absl::Seconds(30)) << "the slow one waited for the fast ones";
  ASSERT_THAT(slow_answer, testing::IsOk());
  ExpectSame(*slow_answer, Alone(jobs[0]));
}

TEST_P(SequenceBatchTest, WithoutRoomForSharedPassesAnswersTakeTurns) {
  const std::vector<Job> jobs = SomeJobs(4);
  MemoryBudget full(1);
  SequenceBatch batch(*expert_, pool_, full);
  const std::vector<Generation> answers = AllInBatch(batch, jobs);
  for (size_t i = 0; i < jobs.size(); ++i) ExpectSame(answers[i], Alone(jobs[i]));
  EXPECT_EQ(full.Snapshot().peak_bytes, 0);
}

TEST_P(SequenceBatchTest, AFullBatchLeavesTheRestForTheNextPass) {
  const std::vector<Job> jobs = SomeJobs(7);
  SequenceBatch batch(*expert_, pool_, budget_, {.max_sequences = 2});
  const std::vector<Generation> answers = AllInBatch(batch, jobs);
  for (size_t i = 0; i < jobs.size(); ++i) ExpectSame(answers[i], Alone(jobs[i]));
  const SequenceBatchStats stats = batch.Stats();
  EXPECT_LE(stats.n_sequences, 2 * stats.n_passes);
}

INSTANTIATE_TEST_SUITE_P(Architectures, SequenceBatchTest,
                         ::testing::Values("llama", "qwen2", "gemma3"));

}  // namespace
}  // namespace coterie
