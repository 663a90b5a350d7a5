// Tokens computed ahead, and answers written with them: the bits of one pass a token.

#include "experts/lookup_decoder.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <random>
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

using ::testing::HasSubstr;
using testing::LogitsOf;
using testing::StatusIs;
using testing::TinyIds;

class LookupDecoderTest : public testing::TinyExpertTest {
 protected:
  Session NewSession(int64_t capacity, const DeltaSnapshot& adapter = nullptr,
                     Activations activations = Activations::kInt8) {
    return Session(*expert_, pool_, SessionShape::ForTokens(capacity, adapter.get()), activations,
                   adapter);
  }

  Generation Answer(const std::vector<TokenId>& prompt, const GenerationOptions& options,
                    const DeltaSnapshot& adapter = nullptr) {
    Session session = NewSession(static_cast<int64_t>(prompt.size()) + options.max_tokens, adapter);
    auto answer = Generate(session, prompt, options, [](absl::string_view) { return true; }, {});
    EXPECT_THAT(answer, testing::IsOk());
    return answer.ok() ? *std::move(answer) : Generation();
  }

  // A prompt whose end is its beginning again, so that there is much to look up.
  static std::vector<TokenId> RepeatedPrompt(uint32_t seed) {
    std::vector<TokenId> prompt = TinyIds(30, seed);
    prompt.insert(prompt.end(), prompt.begin(), prompt.begin() + 12);
    return prompt;
  }

  WorkerPool pool_{2};
  MemoryBudget budget_{int64_t{1} << 30};
};

// Wrong proposals, right ones, and such that are right for a while.
TEST_P(LookupDecoderTest, LogitsAreThoseOfAPassEachHoweverProposalsFare) {
  for (const Activations activations : {Activations::kInt8, Activations::kF32}) {
    for (const DeltaSnapshot& adapter : {DeltaSnapshot(), adapter_}) {
      const std::vector<TokenId> ids = TinyIds(150);
      Session plain = NewSession(150, adapter, activations);
      Session ahead = NewSession(150, adapter, activations);
      COTERIE_ASSERT_OK(plain.Prefill({ids.data(), 20}, {}));
      COTERIE_ASSERT_OK(ahead.Prefill({ids.data(), 20}, {}));
      std::mt19937 random(5);
      int64_t n_taken = 0;
      for (size_t i = 20; i < ids.size(); ++i) {
        COTERIE_ASSERT_OK(plain.Decode(ids[i]));
        if (ahead.TakeAhead(ids[i])) {
          ++n_taken;
        } else {
          std::vector<TokenId> proposed(ids.begin() + static_cast<int64_t>(i) + 1, ids.end());
          proposed.resize(std::min<size_t>(proposed.size(), random() % 12));
          if (!proposed.empty() && random() % 2 == 0) {
            TokenId& wrong = proposed[random() % proposed.size()];
            wrong = (wrong + 1) % 90;
          }
          COTERIE_ASSERT_OK(ahead.Decode(ids[i], proposed));
        }
        ASSERT_EQ(ahead.n_tokens(), plain.n_tokens()) << "what is ahead is not counted";
        ASSERT_EQ(LogitsOf(ahead), LogitsOf(plain)) << "after token " << i;
      }
      EXPECT_GT(n_taken, 40);
    }
  }
}

TEST_P(LookupDecoderTest, ASessionThatWentAheadIsKeptAndRewoundAsAnyOther) {
  const std::vector<TokenId> ids = TinyIds(140);
  Session plain = NewSession(140), ahead = NewSession(140);
  COTERIE_ASSERT_OK(plain.Prefill({ids.data(), 129}, {}));
  COTERIE_ASSERT_OK(ahead.Prefill({ids.data(), 127}, {}));
  COTERIE_ASSERT_OK(ahead.Decode(ids[127], {1, 2, 3, 4, 5}));
  EXPECT_EQ(ahead.n_ahead(), 5);
  EXPECT_EQ(ahead.n_tokens(), 128);
  EXPECT_FALSE(ahead.TakeAhead(2)) << "not what is next";
  EXPECT_FALSE(ahead.TakeAhead(1)) << "nothing is ahead any more";
  COTERIE_ASSERT_OK(ahead.Decode(ids[128]));
  EXPECT_EQ(LogitsOf(ahead), LogitsOf(plain));

  std::vector<uint8_t> block(static_cast<size_t>(plain.kv().block_bytes())), other = block;
  for (int64_t index = 0; index < 2; ++index) {
    plain.kv().ExportBlock(index, block.data());
    ahead.kv().ExportBlock(index, other.data());
    EXPECT_EQ(block, other);
  }

  COTERIE_ASSERT_OK(ahead.Decode(ids[129], {ids[130], ids[131]}));
  COTERIE_ASSERT_OK(ahead.Rewind(100));
  EXPECT_EQ(ahead.n_ahead(), 0);
  EXPECT_TRUE(ahead.logits().empty());
  EXPECT_FALSE(ahead.TakeAhead(ids[130]));
  COTERIE_ASSERT_OK(ahead.Prefill({ids.data() + 100, 29}, {}));
  EXPECT_EQ(LogitsOf(ahead), LogitsOf(plain));
}

TEST_P(LookupDecoderTest, ProposalsEndWhereCapacityDoes) {
  Session session = NewSession(12);
  COTERIE_ASSERT_OK(session.Prefill(TinyIds(9), {}));
  COTERIE_ASSERT_OK(session.Decode(1, {2, 3, 4, 5, 6}));
  EXPECT_EQ(session.n_ahead(), 2);
  EXPECT_TRUE(session.TakeAhead(2));
  EXPECT_TRUE(session.TakeAhead(3));
  EXPECT_EQ(session.n_tokens(), session.capacity_tokens());
  EXPECT_THAT(session.Decode(4, {5}),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("capacity")));
}

TEST_P(LookupDecoderTest, ABadProposalHarmsNothing) {
  Session session = NewSession(40), plain = NewSession(40);
  COTERIE_ASSERT_OK(session.Prefill(TinyIds(9), {}));
  COTERIE_ASSERT_OK(plain.Prefill(TinyIds(9), {}));
  const TokenId bad = static_cast<TokenId>(expert_->spec().n_vocab);
  EXPECT_THAT(session.Decode(1, {2, bad}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("outside")));
  EXPECT_EQ(session.n_tokens(), 9);
  EXPECT_FALSE(session.TakeAhead(2));
  COTERIE_ASSERT_OK(session.Decode(1, {2}));
  EXPECT_TRUE(session.TakeAhead(2));
  COTERIE_ASSERT_OK(plain.Decode(1));
  COTERIE_ASSERT_OK(plain.Decode(2));
  EXPECT_EQ(LogitsOf(session), LogitsOf(plain));
}

TEST_P(LookupDecoderTest, LongPassesHaveRoomForTheLogitsOfWhatIsAhead) {
  SessionShape with = SessionShape::ForTokens(200), without = with;
  without.ahead_tokens = 0;
  EXPECT_EQ(with.ScratchBytes(expert_->spec(), 2), without.ScratchBytes(expert_->spec(), 2));
  with.chunk_tokens = without.chunk_tokens = 1;
  EXPECT_GT(with.ScratchBytes(expert_->spec(), 2), without.ScratchBytes(expert_->spec(), 2));
}

// Every way to draw, to end and to report.
TEST_P(LookupDecoderTest, AnswersAreTheSameWithAndWithout) {
  int64_t n_lookup_tokens = 0;
  for (uint32_t seed = 0; seed < 24; ++seed) {
    SCOPED_TRACE(seed);
    GenerationOptions options;
    options.max_tokens = 1 + 13 * (seed % 7);
    options.sampling.temperature = seed % 3 == 0 ? 0.0f : seed % 3 == 1 ? 0.3f : 1.0f;
    options.sampling.repetition_penalty = seed % 4 == 0 ? 1.2f : 1.0f;
    options.sampling.seed = seed;
    options.sampling.n_logprobs = 3;
    if (seed % 5 == 0) options.stop = {"a", "<5>"};
    const DeltaSnapshot adapter = seed % 2 == 0 ? nullptr : adapter_;
    const std::vector<TokenId> prompt = RepeatedPrompt(seed);
    options.lookup = false;
    const Generation without = Answer(prompt, options, adapter);
    options.lookup = true;
    const Generation with = Answer(prompt, options, adapter);
    EXPECT_EQ(with.text, without.text);
    EXPECT_EQ(with.tokens, without.tokens);
    EXPECT_EQ(with.n_tokens, without.n_tokens);
    EXPECT_EQ(with.finish_reason, without.finish_reason);
    ASSERT_EQ(with.logprobs.size(), without.logprobs.size());
    for (size_t i = 0; i < with.logprobs.size(); ++i) {
      EXPECT_EQ(with.logprobs[i].logprob, without.logprobs[i].logprob) << "token " << i;
      EXPECT_EQ(with.logprobs[i].top, without.logprobs[i].top) << "token " << i;
    }
    EXPECT_EQ(without.n_proposed_tokens, 0);
    EXPECT_LE(with.n_lookup_tokens, with.n_proposed_tokens);
    EXPECT_LT(with.n_lookup_tokens, std::max<int64_t>(1, with.n_tokens));
    n_lookup_tokens += with.n_lookup_tokens;
  }
  EXPECT_GT(n_lookup_tokens, 0) << "greedy answers of these models repeat themselves";
}

TEST_P(LookupDecoderTest, AProposalIsDroppedWhereAPassIsShared) {
  constexpr int64_t kTokens = 40;
  SequenceBatch batch(*expert_, pool_, budget_, {.least_patience = absl::Seconds(60)});
  const std::vector<TokenId> ids = TinyIds(kTokens + 10);
  Session plain = NewSession(100);
  COTERIE_ASSERT_OK(plain.Prefill({ids.data(), 10}, {}));
  for (int64_t i = 0; i < kTokens; ++i) COTERIE_ASSERT_OK(plain.Decode(ids[10 + i]));

  // Proposes what comes next, whoever else is there.
  const auto decode_all = [&](Session& session) {
    EXPECT_THAT(session.Prefill({ids.data(), 10}, {}), testing::IsOk());
    for (int64_t i = 10; i < kTokens + 10; ++i) {
      if (session.TakeAhead(ids[i])) continue;
      const std::vector<TokenId> proposed(ids.begin() + i + 1, ids.end());
      EXPECT_THAT(session.Decode(ids[i], proposed), testing::IsOk());
    }
  };
  {
    std::optional<Session> one(std::in_place, *expert_, pool_, SessionShape::ForTokens(100), batch);
    std::atomic<bool> works = true;
    const std::jthread other([&] {
      Session two(*expert_, pool_, SessionShape::ForTokens(100), batch);
      const absl::Time give_up = absl::Now() + absl::Seconds(30);
      while (batch.Stats().n_shared_passes < 20 && absl::Now() < give_up) {
        two.Reset();
        decode_all(two);
        EXPECT_EQ(LogitsOf(two), LogitsOf(plain));
      }
      works = false;
    });
    while (works) {
      one->Reset();
      decode_all(*one);
      EXPECT_EQ(LogitsOf(*one), LogitsOf(plain));
    }
    one.reset();
  }
  EXPECT_GE(batch.Stats().n_shared_passes, 20);
  Session alone(*expert_, pool_, SessionShape::ForTokens(100), batch);
  EXPECT_FALSE(alone.has_company());
  COTERIE_ASSERT_OK(alone.Decode(1, {2, 3}));
  EXPECT_EQ(alone.n_ahead(), 2);
  Session guest(*expert_, pool_, SessionShape::ForTokens(100), batch);
  EXPECT_TRUE(alone.has_company());
}

INSTANTIATE_TEST_SUITE_P(Architectures, LookupDecoderTest,
                         ::testing::Values("llama", "qwen2", "gemma3"));

}  // namespace
}  // namespace coterie
