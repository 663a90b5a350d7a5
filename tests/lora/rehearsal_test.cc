#include "lora/rehearsal.h"

#include <cmath>
#include <memory>
#include <stop_token>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "experts/kv_cache.h"
#include "lora/training_sequence.h"
#include "tests/fuzz/gguf_draft.h"
#include "tests/fuzz/scratch_folder.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::testing::_;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using testing::StatusIs;

class RehearsalTest : public ::testing::Test {
 protected:
  void SetUp() override {
    COTERIE_ASSERT_OK_AND_ASSIGN(
        expert_, Expert::Open(folder_.Write("tiny.gguf", testing::TinyModel().Bytes())));
    for (const char* text : {"hello you", "the quick brown fox jumps"}) {
      COTERIE_ASSERT_OK_AND_ASSIGN(passages_.emplace_back(),
                                   TeachText(expert_->tokenizer(), text, 64));
    }
  }

  std::vector<TrainingSequence> Said(int64_t n_tokens, uint64_t seed = 1) {
    const auto said = Rehearse(*expert_, passages_, n_tokens, seed, pool_, budget_, {});
    EXPECT_THAT(said, testing::IsOk());
    return said.ok() ? *said : std::vector<TrainingSequence>();
  }

  // What the base expects after each token of a sequence, [n_tokens, n_vocab].
  std::vector<double> Expected(const TrainingSequence& sequence) {
    const int64_t n = static_cast<int64_t>(sequence.tokens.size());
    const int64_t n_vocab = expert_->spec().n_vocab;
    KvCache kv(expert_->spec(), n);
    DecoderScratch scratch(expert_->spec(), n, n, pool_.n_workers());
    SequenceSlice slice;
    slice.kv = &kv;
    slice.tokens = sequence.tokens;
    slice.logits = LogitRows::kAll;
    EXPECT_THAT(expert_->Forward({&slice, 1}, Activations::kInt8, pool_, scratch), testing::IsOk());
    std::vector<double> shares(scratch.logits().begin(), scratch.logits().end());
    for (int64_t row = 0; row < n; ++row) {
      double* begin = shares.data() + row * n_vocab;
      double sum = 0;
      for (int64_t i = 0; i < n_vocab; ++i) sum += begin[i] = std::exp(begin[i]);
      for (int64_t i = 0; i < n_vocab; ++i) begin[i] /= sum;
    }
    return shares;
  }

  const testing::ScratchFolder folder_;
  std::shared_ptr<const Expert> expert_;
  std::vector<TrainingSequence> passages_;
  WorkerPool pool_{2};
  MemoryBudget budget_{int64_t{1} << 30};
};

TEST_F(RehearsalTest, LabelsComeAsOftenAsTheBaseExpectsThem) {
  constexpr int64_t kTimes = 4000;
  passages_.pop_back();
  const int64_t n = static_cast<int64_t>(passages_[0].tokens.size());
  const std::vector<TrainingSequence> said = Said(kTimes * n);
  ASSERT_THAT(said, SizeIs(kTimes));
  const std::vector<double> expected = Expected(passages_[0]);
  const int64_t n_vocab = expert_->spec().n_vocab;
  std::vector<double> found(expected.size());
  for (const TrainingSequence& one : said) {
    EXPECT_EQ(one.tokens, passages_[0].tokens);
    for (int64_t t = 1; t < n; ++t) {
      found[static_cast<size_t>((t - 1) * n_vocab + one.labels[static_cast<size_t>(t)])] +=
          1.0 / kTimes;
    }
  }
  for (size_t i = 0; i < static_cast<size_t>((n - 1) * n_vocab); ++i) {
    EXPECT_NEAR(found[i], expected[i], 5 * std::sqrt(expected[i] / kTimes) + 1e-3) << i;
  }
}

TEST_F(RehearsalTest, PassagesComeAgainWithOtherLabelsUntilThereAreTokensEnough) {
  const int64_t n_all =
      static_cast<int64_t>(passages_[0].tokens.size() + passages_[1].tokens.size());
  const std::vector<TrainingSequence> said = Said(n_all + 1);
  ASSERT_THAT(said, SizeIs(3));
  EXPECT_EQ(said[1].tokens, passages_[1].tokens);
  EXPECT_EQ(said[2].tokens, said[0].tokens);
  EXPECT_NE(said[2].labels, said[0].labels);
  EXPECT_THAT(Said(1), SizeIs(1));
  EXPECT_THAT(Said(0), IsEmpty());
}

TEST_F(RehearsalTest, TheSeedDecidesAndNothingStaysCharged) {
  EXPECT_EQ(Said(100)[0].labels, Said(100)[0].labels);
  EXPECT_NE(Said(100)[1].labels, Said(100, 2)[1].labels);
  EXPECT_EQ(budget_.Snapshot().used_bytes, 0);
  MemoryBudget none(1000);
  EXPECT_THAT(Rehearse(*expert_, passages_, 100, 1, pool_, none, {}),
              StatusIs(absl::StatusCode::kResourceExhausted, _));
}

TEST_F(RehearsalTest, ItStopsWhenItIsToldTo) {
  std::stop_source stop;
  stop.request_stop();
  EXPECT_THAT(Rehearse(*expert_, passages_, 100, 1, pool_, budget_, stop.get_token()),
              StatusIs(absl::StatusCode::kCancelled, _));
}

}  // namespace
}  // namespace coterie
