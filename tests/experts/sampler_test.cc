#include "experts/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::IsOk;
using ::coterie::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// No penalty and no cut: the plain distribution.
SamplingOptions Plain(uint64_t seed = 1) {
  SamplingOptions options;
  options.temperature = 1;
  options.top_k = 0;
  options.top_p = 1;
  options.min_p = 0;
  options.seed = seed;
  return options;
}

SamplingOptions Greedy() {
  SamplingOptions options;
  options.temperature = 0;
  return options;
}

Sampler Make(const SamplingOptions& options, int64_t n_vocab) {
  absl::StatusOr<Sampler> sampler = Sampler::Create(options, n_vocab);
  EXPECT_THAT(sampler, IsOk());
  return *std::move(sampler);
}

int32_t SampleId(Sampler& sampler, const std::vector<float>& logits) {
  const absl::StatusOr<SampledToken> token = sampler.Sample(logits);
  EXPECT_THAT(token, IsOk());
  return token.ok() ? token->id : -1;
}

std::map<int32_t, double> Frequencies(const SamplingOptions& options,
                                      const std::vector<float>& logits, int n_draws) {
  Sampler sampler = Make(options, logits.size());
  std::map<int32_t, double> share;
  for (int i = 0; i < n_draws; ++i) share[SampleId(sampler, logits)] += 1.0 / n_draws;
  return share;
}

std::set<int32_t> IdsDrawn(const SamplingOptions& options, const std::vector<float>& logits) {
  std::set<int32_t> ids;
  for (const auto& [id, share] : Frequencies(options, logits, 2000)) ids.insert(id);
  return ids;
}

std::vector<float> RandomLogits(int64_t n, uint32_t seed, float spread = 2.5f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(n);
  for (float& x : logits) x = normal(random);
  return logits;
}

// Logits whose softmax is the given distribution.
std::vector<float> LogitsOf(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

TEST(SamplingOptionsTest, TheDefaultsAreValid) {
  EXPECT_THAT(SamplingOptions().Validate(), IsOk());
}

TEST(SamplingOptionsTest, EveryFieldOutOfRangeIsNamedWithValueAndRange) {
  const auto expect_refused = [](auto change, const char* field, const char* value) {
    SamplingOptions options;
    change(options);
    EXPECT_THAT(options.Validate(),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr(field), HasSubstr(value), HasSubstr("allowed="))));
    EXPECT_THAT(Sampler::Create(options, 10),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(field)));
  };
  expect_refused([](auto& o) { o.temperature = -0.5f; }, "temperature", "-0.5");
  expect_refused([](auto& o) { o.temperature = kNan; }, "temperature", "nan");
  expect_refused([](auto& o) { o.top_k = -1; }, "top_k", "-1");
  expect_refused([](auto& o) { o.top_p = 0; }, "top_p", "0");
  expect_refused([](auto& o) { o.top_p = 1.5f; }, "top_p", "1.5");
  expect_refused([](auto& o) { o.min_p = kInfinity; }, "min_p", "inf");
  expect_refused([](auto& o) { o.repetition_penalty = 0; }, "repetition_penalty", "0");
  expect_refused([](auto& o) { o.repetition_window = 9000; }, "repetition_window", "9000");
  expect_refused([](auto& o) { o.n_logprobs = -2; }, "n_logprobs", "-2");
}

TEST(SamplerTest, GreedyTakesTheLargestAndOfEqualsTheLowestId) {
  for (int64_t n : {3, 63, 64, 65, 1000}) {
    std::vector<float> logits = RandomLogits(n, 7);
    Sampler sampler = Make(Greedy(), n);
    const auto largest = std::max_element(logits.begin(), logits.end()) - logits.begin();
    EXPECT_EQ(SampleId(sampler, logits), largest);
    logits[n - 1] = logits[n - 2] = 50;
    EXPECT_EQ(SampleId(sampler, logits), n - 2);
  }
}

TEST(SamplerTest, DrawsWithTheProbabilitiesOfTheSoftmax) {
  const std::vector<double> p = {0.5, 0.25, 0.15, 0.1};
  const std::map<int32_t, double> share = Frequencies(Plain(), LogitsOf(p), 40000);
  // Four standard deviations of the widest share are 0.01.
  for (int32_t id = 0; id < 4; ++id) EXPECT_NEAR(share.at(id), p[id], 0.01) << id;
}

TEST(SamplerTest, TemperatureSharpensAndFlattens) {
  const std::vector<float> logits = LogitsOf({0.8, 0.2});
  SamplingOptions options = Plain();
  options.temperature = 2;  // sqrt(4) : 1
  EXPECT_NEAR(Frequencies(options, logits, 20000).at(0), 2.0 / 3, 0.015);
  options.temperature = 0.5f;  // 16 : 1
  EXPECT_NEAR(Frequencies(options, logits, 20000).at(0), 16.0 / 17, 0.015);
}

TEST(SamplerTest, TopKKeepsExactlyTheKLargest) {
  SamplingOptions options = Plain();
  options.temperature = 100;  // Nearly uniform: each of the k is drawn.
  options.top_k = 5;
  const std::vector<float> logits = RandomLogits(700, 3);
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
  EXPECT_EQ(IdsDrawn(options, logits), std::set<int32_t>(order.begin(), order.begin() + 5));
}

TEST(SamplerTest, TopKAmongEqualsKeepsTheLowestIds) {
  SamplingOptions options = Plain();
  options.top_k = 3;
  EXPECT_THAT(IdsDrawn(options, std::vector<float>(500, 1.0f)), ElementsAre(0, 1, 2));
}

TEST(SamplerTest, TopPKeepsTheFewestThatReachIt) {
  const std::vector<float> logits = LogitsOf({0.1, 0.4, 0.05, 0.3, 0.15});
  SamplingOptions options = Plain();
  options.top_p = 0.35f;
  EXPECT_THAT(IdsDrawn(options, logits), ElementsAre(1));
  options.top_p = 0.65f;
  EXPECT_THAT(IdsDrawn(options, logits), ElementsAre(1, 3));
  options.top_p = 0.75f;
  EXPECT_THAT(IdsDrawn(options, logits), ElementsAre(1, 3, 4));
  options.top_p = 1e-6f;
  EXPECT_THAT(IdsDrawn(options, logits), ElementsAre(1));
}

TEST(SamplerTest, TopPCountsTheMassThatTopKLeft) {
  const std::vector<float> logits = LogitsOf({0.3, 0.25, 0.2, 0.15, 0.1});
  SamplingOptions options = Plain();
  options.top_k = 2;     // 0.3 and 0.25 become 0.545 and 0.455,
  options.top_p = 0.5f;  // so that the first alone reaches a half.
  EXPECT_THAT(IdsDrawn(options, logits), ElementsAre(0));
}

TEST(SamplerTest, MinPKeepsWhatIsLikelyEnoughBesideTheMostLikely) {
  const std::vector<float> logits = LogitsOf({0.5, 0.3, 0.12, 0.08});
  SamplingOptions options = Plain();
  options.min_p = 0.2f;  // 0.1 and more
  EXPECT_THAT(IdsDrawn(options, logits), ElementsAre(0, 1, 2));
  options.top_p = 0.7f;
  EXPECT_THAT(IdsDrawn(options, logits), ElementsAre(0, 1));
  options.min_p = 1;
  EXPECT_THAT(IdsDrawn(options, logits), ElementsAre(0));
}

// The cut by selection against the definition, by sorting, on distributions wide and narrow.
TEST(SamplerTest, CutsAgreeWithSortingTheWholeVocabulary) {
  for (uint32_t round = 0; round < 12; ++round) {
    const float spread = 0.5f + 0.4f * round;
    const std::vector<float> logits = RandomLogits(60, round, spread);
    SamplingOptions options = Plain(round);
    options.top_p = 0.3f + 0.05f * round;
    options.min_p = round % 3 == 0 ? 0 : 0.01f * round;
    std::vector<std::pair<double, int32_t>> sorted;
    const float largest = *std::max_element(logits.begin(), logits.end());
    double total = 0;
    for (size_t id = 0; id < logits.size(); ++id) {
      sorted.emplace_back(std::exp(double{logits[id]} - largest), id);
      total += sorted.back().first;
    }
    std::sort(sorted.rbegin(), sorted.rend());
    std::map<int32_t, double> expected;
    double mass = 0;
    for (const auto& [weight, id] : sorted) {
      if (mass >= options.top_p * total || weight < options.min_p) break;
      mass += weight;
      expected[id] = weight;
    }
    for (const auto& [id, share] : Frequencies(options, logits, 4000)) {
      ASSERT_TRUE(expected.contains(id)) << "round " << round << ", id " << id;
      EXPECT_NEAR(share, expected[id] / mass, 0.035) << "round " << round << ", id " << id;
    }
  }
}

TEST(SamplerTest, ThePenaltyPushesRecentTokensDownWhateverTheirSign) {
  SamplingOptions options = Greedy();
  options.repetition_penalty = 2;
  options.repetition_window = 2;
  Sampler sampler = Make(options, 3);
  EXPECT_EQ(SampleId(sampler, {4, 3, 2.5f}), 0);
  EXPECT_EQ(SampleId(sampler, {4, 3, 2.5f}), 1);  // 2, 3, 2.5
  EXPECT_EQ(SampleId(sampler, {4, 3, 2.5f}), 2);  // 2, 1.5, 2.5
  EXPECT_EQ(SampleId(sampler, {4, 3, 2.5f}), 0);  // 0 has left the window.
  sampler = Make(options, 3);
  sampler.Observe({1, 1, -7, 99});
  EXPECT_EQ(SampleId(sampler, {-3, -2, -9}), 0);  // -3, -4, -9
}

TEST(SamplerTest, OneSeedGivesOneSequenceAndItIsWrittenDown) {
  const std::vector<float> logits(1000, 0.0f);
  Sampler sampler = Make(Plain(42), 1000);
  std::vector<int32_t> ids;
  for (int i = 0; i < 6; ++i) ids.push_back(SampleId(sampler, logits));
  // floor(1000 u) for the first outputs of SplitMix64 from 42, as in tests of other languages:
  // 13679457532755275413, 2949826092126892291, 5139283748462763858, 6349198060258255764, ...
  EXPECT_THAT(ids, ElementsAre(741, 159, 278, 344, 38, 868));
  EXPECT_EQ(sampler.seed(), 42u);
}

TEST(SamplerTest, WithoutASeedTwoSamplersDiffer) {
  SamplingOptions options;
  options.seed.reset();
  EXPECT_NE(Make(options, 8).seed(), Make(options, 8).seed());
}

TEST(SamplerTest, LogprobsAreOfTheUnmodifiedDistribution) {
  const std::vector<double> p = {0.1, 0.4, 0.05, 0.3, 0.15};
  SamplingOptions options;
  options.temperature = 0.2f;
  options.top_k = 1;
  options.repetition_penalty = 5;
  options.n_logprobs = 3;
  Sampler sampler = Make(options, 5);
  sampler.Observe({1});
  COTERIE_ASSERT_OK_AND_ASSIGN(const SampledToken token, sampler.Sample(LogitsOf(p)));
  EXPECT_EQ(token.id, 3);
  EXPECT_NEAR(token.logprob, std::log(0.3), 1e-5);
  ASSERT_EQ(token.top.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    const int32_t expected_id = std::vector<int32_t>{1, 3, 4}[i];
    EXPECT_EQ(token.top[i].first, expected_id);
    EXPECT_NEAR(token.top[i].second, std::log(p[expected_id]), 1e-5);
  }
}

TEST(SamplerTest, LogprobsMatchDoublePrecisionOverALargeVocabulary) {
  const std::vector<float> logits = RandomLogits(152000, 5);
  double total = 0;
  for (float x : logits) total += std::exp(double{x});
  SamplingOptions options = Greedy();
  options.n_logprobs = 0;
  Sampler sampler = Make(options, logits.size());
  COTERIE_ASSERT_OK_AND_ASSIGN(const SampledToken token, sampler.Sample(logits));
  EXPECT_NEAR(token.logprob, logits[token.id] - std::log(total), 1e-5);
  EXPECT_TRUE(token.top.empty());
}

TEST(SamplerTest, UnaskedLogprobsAreNotANumber) {
  Sampler sampler = Make(Greedy(), 2);
  COTERIE_ASSERT_OK_AND_ASSIGN(const SampledToken token, sampler.Sample({1.0f, 2.0f}));
  EXPECT_TRUE(std::isnan(token.logprob));
}

TEST(SamplerTest, MinusInfinityIsNeverDrawn) {
  std::vector<float> logits(300, -kInfinity);
  logits[200] = -3;
  logits[299] = -3.5f;
  EXPECT_THAT(IdsDrawn(Plain(), logits), ElementsAre(200, 299));
  SamplingOptions options = Plain();
  options.top_k = 40;
  EXPECT_THAT(IdsDrawn(options, logits), ElementsAre(200, 299));
  options = Plain();
  options.top_p = 0.99f;
  EXPECT_THAT(IdsDrawn(options, logits), ElementsAre(200, 299));
}

// What HeadScreen relies on: the logits that do not decide may as well be -infinity.
TEST(SamplerTest, OnlyTheLogitsThatDecideAreLookedAt) {
  constexpr int64_t kVocab = 3000;
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0.0f, 2.0f);
  for (const SamplingOptions& options :
       {SamplingOptions{.temperature = 0, .seed = 1}, SamplingOptions{.seed = 2},
        SamplingOptions{.temperature = 2, .top_k = 5, .top_p = 1, .min_p = 0, .seed = 3},
        SamplingOptions{.repetition_penalty = 1.5f, .repetition_window = 20, .seed = 4},
        SamplingOptions{.temperature = 0, .repetition_penalty = 1.5f, .seed = 5}}) {
    auto whole = Sampler::Create(options, kVocab);
    auto screened = Sampler::Create(options, kVocab);
    ASSERT_THAT(whole, testing::IsOk());
    ASSERT_THAT(screened, testing::IsOk());
    const int64_t n_decisive = whole->n_decisive();
    ASSERT_GT(n_decisive, 0);
    ASSERT_LT(n_decisive, 200);
    for (int i = 0; i < 200; ++i) {
      std::vector<float> logits(kVocab);
      for (float& logit : logits) logit = normal(random);
      for (int j = 0; j < 30; ++j) logits[static_cast<size_t>(j)] += 6;  // Drawn again and again.
      std::vector<float> sorted = logits;
      std::nth_element(sorted.begin(), sorted.begin() + n_decisive - 1, sorted.end(),
                       std::greater<float>());
      std::vector<float> best = logits;
      for (float& logit : best) {
        if (logit < sorted[static_cast<size_t>(n_decisive - 1)]) logit = -kInfinity;
      }
      const auto token = whole->Sample(logits), same = screened->Sample(best);
      ASSERT_THAT(token, testing::IsOk());
      ASSERT_THAT(same, testing::IsOk());
      ASSERT_EQ(token->id, same->id) << "draw " << i;
    }
  }
}

TEST(SamplerTest, AllLogitsDecideWhereTheirSumOrTheirOrderIsWanted) {
  for (const SamplingOptions& options :
       {SamplingOptions{.top_k = 0, .seed = 1}, SamplingOptions{.top_k = 3000, .seed = 1},
        SamplingOptions{.temperature = 0, .seed = 1, .n_logprobs = 0},
        SamplingOptions{.repetition_penalty = 0.9f, .seed = 1}}) {
    auto sampler = Sampler::Create(options, 3000);
    ASSERT_THAT(sampler, testing::IsOk());
    EXPECT_EQ(sampler->n_decisive(), 0);
  }
}

TEST(SamplerTest, BrokenLogitsAreAnErrorAndNotAToken) {
  for (const SamplingOptions& options : {Greedy(), Plain(), SamplingOptions()}) {
    for (const float bad : {kNan, kInfinity}) {
      for (const size_t place : {0, 70, 99}) {
        std::vector<float> logits(100, 1.0f);
        logits[place] = bad;
        Sampler sampler = Make(options, 100);
        EXPECT_THAT(sampler.Sample(logits).status().code(), absl::StatusCode::kInternal);
      }
    }
    Sampler sampler = Make(options, 100);
    EXPECT_THAT(sampler.Sample(std::vector<float>(100, -kInfinity)).status().code(),
                absl::StatusCode::kInternal);
    EXPECT_THAT(sampler.Sample(std::vector<float>(99, 0.0f)),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("n_logits=99")));
    EXPECT_THAT(sampler.Sample(std::vector<float>(100, 0.0f)), IsOk());
  }
}

TEST(SamplerTest, ExtremeTemperaturesStayFinite) {
  const std::vector<float> logits = {-300, 90, 0, 89};
  for (float temperature : {1e-6f, 1e-3f, 100.0f}) {
    SamplingOptions options;
    options.temperature = temperature;
    Sampler sampler = Make(options, 4);
    const int32_t id = SampleId(sampler, logits);
    EXPECT_TRUE(id == 1 || (temperature > 1 && id != 0)) << temperature << " gave " << id;
  }
}

}  // namespace
}  // namespace coterie
