// Parity with a float32 reference (transformers on the weights dequantised from the same file):
// tests/data/golden/*.json. Bars: ids equal; mean negative log-likelihood of all tokens of the file
// within 0.01 nats with f32 activations and 0.03 with 8-bit ones, and with f32 ones that of every
// prompt as well; the greedy token equal wherever the reference's margin between the two largest
// logits is over 0.5. (8-bit rounding is noise: a prompt of nine unlikely tokens moves by 0.14.)

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "core/threads/worker_pool.h"
#include "experts/expert.h"
#include "tests/model_files.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

struct Case {
  std::string model;
  Activations activations;
  double nll_tolerance;
};

class GoldenTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    std::ifstream file(std::string(COTERIE_TEST_DATA) + "/golden/" + GetParam().model +
                       ".dev.json");
    golden_ = nlohmann::json::parse(file);
    auto expert = Expert::Open(testing::ModelFile(GetParam().model));
    ASSERT_THAT(expert, testing::IsOk());
    expert_ = *expert;
  }

  // Logits after every token, [n_tokens, n_vocab].
  std::vector<float> Logits(const std::vector<TokenId>& ids) {
    const int64_t n = static_cast<int64_t>(ids.size());
    KvCache kv(expert_->spec(), n);
    DecoderScratch scratch(expert_->spec(), n, n, pool_.n_workers());
    const SequenceSlice slice{&kv, ids, LogitRows::kAll};
    EXPECT_THAT(expert_->Forward({&slice, 1}, GetParam().activations, pool_, scratch),
                testing::IsOk());
    return {scratch.logits().begin(), scratch.logits().end()};
  }

  absl::Span<const float> Row(const std::vector<float>& logits, int64_t row) const {
    const size_t n_vocab = static_cast<size_t>(expert_->spec().n_vocab);
    return {logits.data() + static_cast<size_t>(row) * n_vocab, n_vocab};
  }

  static double NegativeLogLikelihood(absl::Span<const float> row, TokenId id) {
    const double largest = *std::max_element(row.begin(), row.end());
    double sum = 0;
    for (const float logit : row) sum += std::exp(logit - largest);
    return std::log(sum) + largest - row[static_cast<size_t>(id)];
  }

  nlohmann::json golden_;
  std::shared_ptr<const Expert> expert_;
  WorkerPool pool_;
};

TEST_P(GoldenTest, IdsEqualTheReference) {
  for (const auto& row : golden_["rows"]) {
    const auto ids = expert_->tokenizer().Encode(row["prompt"].get<std::string>(),
                                                 /*add_special=*/true, /*parse_special=*/true);
    ASSERT_THAT(ids, testing::IsOk());
    EXPECT_EQ(*ids, row["ids"].get<std::vector<TokenId>>()) << row["prompt"];
  }
}

TEST_P(GoldenTest, LikelihoodIsThatOfTheReference) {
  double sum_of_differences = 0;
  double n_predicted = 0;
  double worst = 0;
  for (const auto& row : golden_["rows"]) {
    const auto ids = row["ids"].get<std::vector<TokenId>>();
    if (ids.size() < 2) continue;
    const std::vector<float> logits = Logits(ids);
    double sum = 0;
    for (size_t t = 0; t + 1 < ids.size(); ++t) {
      sum += NegativeLogLikelihood(Row(logits, static_cast<int64_t>(t)), ids[t + 1]);
    }
    const double n = static_cast<double>(ids.size() - 1);
    const double difference = sum / n - row["mean_nll"].get<double>();
    if (GetParam().activations == Activations::kF32) {
      EXPECT_LE(std::abs(difference), GetParam().nll_tolerance) << row["prompt"];
    }
    sum_of_differences += difference * n;
    n_predicted += n;
    worst = std::max(worst, std::abs(difference));
  }
  EXPECT_LE(std::abs(sum_of_differences / n_predicted), GetParam().nll_tolerance);
  std::cout << "mean difference " << sum_of_differences / n_predicted << " nats over "
            << n_predicted << " tokens, worst prompt " << worst << "\n";
}

TEST_P(GoldenTest, GreedyTokenIsThatOfTheReferenceWhereItsMarginIsClear) {
  int n_clear = 0;
  for (const auto& row : golden_["rows"]) {
    auto ids = row["ids"].get<std::vector<TokenId>>();
    const auto greedy = row["greedy_ids"].get<std::vector<TokenId>>();
    const size_t n_prompt = ids.size();
    ids.insert(ids.end(), greedy.begin(), greedy.end() - 1);
    const std::vector<float> logits = Logits(ids);
    for (size_t i = 0; i < greedy.size(); ++i) {
      if (row["greedy_margin"][i].get<double>() <= 0.5) continue;
      const absl::Span<const float> last = Row(logits, static_cast<int64_t>(n_prompt + i - 1));
      const TokenId best =
          static_cast<TokenId>(std::max_element(last.begin(), last.end()) - last.begin());
      EXPECT_EQ(best, greedy[i]) << row["prompt"] << ", token " << i;
      ++n_clear;
    }
  }
  std::cout << n_clear << " tokens with a clear margin\n";
  EXPECT_GT(n_clear, 100) << "the golden file has clear margins";
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenTest,
                         ::testing::Values(Case{"smollm2-135m", Activations::kF32, 0.01},
                                           Case{"smollm2-135m", Activations::kInt8, 0.03},
                                           Case{"qwen2.5-coder-0.5b", Activations::kF32, 0.01},
                                           Case{"qwen2.5-coder-0.5b", Activations::kInt8, 0.03},
                                           Case{"gemma-3-270m", Activations::kF32, 0.01},
                                           Case{"gemma-3-270m", Activations::kInt8, 0.03}),
                         [](const auto& info) {
                           std::string name = info.param.model;
                           std::replace_if(
                               name.begin(), name.end(), [](char c) { return !std::isalnum(c); },
                               '_');
                           return name +
                                  (info.param.activations == Activations::kF32 ? "_f32" : "_int8");
                         });

}  // namespace
}  // namespace coterie
