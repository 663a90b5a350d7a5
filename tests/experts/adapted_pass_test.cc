// Passes under an adapter: y = W x + scale * B (A x), unmerged, in every architecture.

#include <algorithm>
#include <cmath>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "experts/expert.h"
#include "experts/session.h"
#include "tests/experts/tiny_adapter.h"
#include "tests/experts/tiny_expert_test.h"
#include "tests/experts/tiny_model.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using testing::LogitsOf;
using testing::TinyIds;
using testing::TinyModel;

class AdaptedPassTest : public testing::TinyExpertTest {
 protected:
  DeltaSnapshot SetOf(std::vector<LinearDelta> deltas, const std::string& version = "tiny@1") {
    auto set = LinearDeltaSet::Create(model_.spec, version, std::move(deltas));
    EXPECT_THAT(set, testing::IsOk());
    return set.ok() ? *std::move(set) : nullptr;
  }
  const ModelFiles& files() const { return expert_->files(); }
};

TEST_P(AdaptedPassTest, GivesTheLogitsOfTheMergedWeights) {
  const std::vector<int32_t> ids = TinyIds(60);
  const std::vector<LinearDelta> deltas = testing::TinyDeltas(model_.spec);
  const std::vector<float> logits = LogitsOf(files(), ids, 60, SetOf(deltas).get());
  const std::vector<double> expected =
      testing::ReferenceLogits(testing::Merged(model_, deltas), ids);
  const std::vector<double> base = testing::ReferenceLogits(model_, ids);
  ASSERT_EQ(logits.size(), expected.size());
  double largest_change = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    // As for the base: see ArchitectureTest.
    ASSERT_NEAR(logits[i], expected[i], 2e-3) << "token " << i / 96 << ", logit " << i % 96;
    largest_change = std::max(largest_change, std::fabs(expected[i] - base[i]));
  }
  EXPECT_GT(largest_change, 0.5);
}

TEST_P(AdaptedPassTest, AnySplitOfATextIntoPassesGivesTheSameBits) {
  const std::vector<int32_t> ids = TinyIds(70);
  const DeltaSnapshot adapter = SetOf(testing::TinyDeltas(model_.spec));
  const std::vector<float> whole = LogitsOf(files(), ids, 70, adapter.get());
  for (const int64_t chunk : {1, 7, 33}) {
    EXPECT_EQ(LogitsOf(files(), ids, chunk, adapter.get()), whole) << "passes of " << chunk;
  }
}

TEST_P(AdaptedPassTest, ScaleZeroIsBitEqualToNoAdapter) {
  const std::vector<int32_t> ids = TinyIds(30);
  std::vector<LinearDelta> deltas = testing::TinyDeltas(model_.spec);
  for (LinearDelta& delta : deltas) delta.scale = 0;
  EXPECT_EQ(LogitsOf(files(), ids, 30, SetOf(deltas).get()), LogitsOf(files(), ids, 30));
}

TEST_P(AdaptedPassTest, ABatchMixesAdaptersAndEachSequenceIsAsAlone) {
  const DeltaSnapshot adapters[] = {SetOf(testing::TinyDeltas(model_.spec, 5), "a@1"), nullptr,
                                    SetOf(testing::TinyDeltas(model_.spec, 6), "b@1")};
  WorkerPool pool(2);
  for (const Activations activations : {Activations::kInt8, Activations::kF32}) {
    std::vector<std::vector<int32_t>> ids;
    std::vector<KvCache> caches;
    std::vector<float> alone;
    DecoderScratch scratch(model_.spec, 64, 64, pool.n_workers(), 8);
    for (uint32_t i = 0; i < 3; ++i) ids.push_back(TinyIds(5 + 6 * i, 20 + i));
    for (size_t i = 0; i < 3; ++i) {
      KvCache kv(model_.spec, 32);
      const SequenceSlice slice{&kv, ids[i], LogitRows::kAll, adapters[i].get()};
      ASSERT_THAT(expert_->Forward({&slice, 1}, activations, pool, scratch), testing::IsOk());
      alone.insert(alone.end(), scratch.logits().begin(), scratch.logits().end());
    }
    for (size_t i = 0; i < 3; ++i) caches.emplace_back(model_.spec, 32);
    std::vector<SequenceSlice> batch;
    for (size_t i = 0; i < 3; ++i) {
      batch.push_back({&caches[i], ids[i], LogitRows::kAll, adapters[i].get()});
    }
    ASSERT_THAT(expert_->Forward(batch, activations, pool, scratch), testing::IsOk());
    EXPECT_EQ(std::vector<float>(scratch.logits().begin(), scratch.logits().end()), alone);
  }
}

TEST_P(AdaptedPassTest, ASessionKeepsItsAdapter) {
  const std::vector<int32_t> ids = TinyIds(20);
  DeltaSnapshot adapter = SetOf(testing::TinyDeltas(model_.spec));
  const std::vector<float> expected = LogitsOf(files(), ids, 20, adapter.get());
  WorkerPool pool(2);
  const SessionShape shape = SessionShape::ForTokens(32, adapter.get());
  EXPECT_GT(shape.ScratchBytes(model_.spec, 2),
            SessionShape::ForTokens(32).ScratchBytes(model_.spec, 2));
  Session session(*expert_, pool, shape, Activations::kF32, adapter);
  adapter.reset();
  ASSERT_THAT(session.Prefill({ids.data(), 12}, {}), testing::IsOk());
  for (size_t i = 12; i < ids.size(); ++i) ASSERT_THAT(session.Decode(ids[i]), testing::IsOk());
  EXPECT_EQ(std::vector<float>(session.logits().begin(), session.logits().end()),
            std::vector<float>(expected.end() - 96, expected.end()));
}

TEST_P(AdaptedPassTest, RefusesAnAdapterOfAnotherBaseOrTooWideForTheScratch) {
  ArchSpec other = model_.spec;
  other.d_ff *= 2;
  const auto foreign = LinearDeltaSet::Create(other, "foreign@1", testing::TinyDeltas(other));
  ASSERT_THAT(foreign, testing::IsOk());
  WorkerPool pool(1);
  KvCache kv(model_.spec, 8);
  const std::vector<int32_t> ids = TinyIds(4);
  DecoderScratch roomy(model_.spec, 8, 8, 1, 8), narrow(model_.spec, 8, 8, 1, 2);
  SequenceSlice slice{&kv, ids, LogitRows::kLast, foreign->get()};
  EXPECT_THAT(expert_->Forward({&slice, 1}, Activations::kInt8, pool, roomy),
              testing::StatusIs(absl::StatusCode::kInvalidArgument,
                                ::testing::HasSubstr("another base: adapter=foreign@1")));
  const DeltaSnapshot wide = SetOf(testing::TinyDeltas(model_.spec));
  slice.delta = wide.get();
  EXPECT_THAT(expert_->Forward({&slice, 1}, Activations::kInt8, pool, narrow),
              testing::StatusIs(absl::StatusCode::kResourceExhausted,
                                ::testing::HasSubstr("adapter rank=")));
  EXPECT_EQ(kv.n_tokens(), 0);
}

INSTANTIATE_TEST_SUITE_P(All, AdaptedPassTest, ::testing::Values("llama", "qwen2", "gemma3"));

}  // namespace
}  // namespace coterie
