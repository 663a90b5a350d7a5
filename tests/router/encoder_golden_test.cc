// The default router against the logits that its training script computed in float32
// (router/training/export_gguf.py writes both files).

#include <algorithm>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "nlohmann/json.hpp"

#include "core/threads/worker_pool.h"
#include "router/calibration.h"
#include "router/encoder.h"
#include "router/prompt_text.h"
#include "router/router.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::testing::HasSubstr;

constexpr double kLargestDifference = 0.06;  // In probability; measured: see docs/router.md.
constexpr double kClearMargin = 0.5;         // In logits.

struct GoldenCase {
  std::string prompt;
  std::vector<double> logits;
};

class EncoderGoldenTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::ifstream in(COTERIE_TEST_DATA "/router/golden.json");
    const nlohmann::json golden = nlohmann::json::parse(in, nullptr, /*allow_exceptions=*/false);
    ASSERT_FALSE(golden.is_discarded());
    version_ = golden["version"].get<std::string>();
    temperature_ = golden["temperature"].get<double>();
    for (const auto& item : golden["cases"]) {
      cases_.push_back(
          {item["prompt"].get<std::string>(), item["logits"].get<std::vector<double>>()});
    }
    ASSERT_GE(cases_.size(), 40u);
    COTERIE_ASSERT_OK_AND_ASSIGN(router_, Router::Load(COTERIE_DEFAULT_ROUTER, &pool_));
  }

  WorkerPool pool_{2};
  std::string version_;
  double temperature_ = 1.0;
  std::vector<GoldenCase> cases_;
  std::unique_ptr<const Router> router_;
};

TEST_F(EncoderGoldenTest, EightBitWeightsHardlyChangeTheProbabilities) {
  EXPECT_EQ(router_->version(), version_);
  double largest = 0.0;
  for (const GoldenCase& item : cases_) {
    const std::vector<double> expected = Probabilities(item.logits, temperature_);
    COTERIE_ASSERT_OK_AND_ASSIGN(const DomainScores scores, router_->Classify(item.prompt));
    std::vector<double> sorted = item.logits;
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    const auto first = std::max_element(expected.begin(), expected.end()) - expected.begin();
    if (sorted[0] - sorted[1] > kClearMargin) {
      EXPECT_EQ(scores.ranked[0].domain, router_->domains()[first]) << item.prompt;
    }
    for (size_t d = 0; d < expected.size(); ++d) {
      const double got = scores.ProbabilityOf(router_->domains()[d]);
      largest = std::max(largest, std::abs(got - expected[d]));
      EXPECT_NEAR(got, expected[d], kLargestDifference) << item.prompt;
    }
  }
  RecordProperty("largest_difference", std::to_string(largest));
}

TEST_F(EncoderGoldenTest, TheNumberOfWorkersDoesNotMatter) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto alone, Router::Load(COTERIE_DEFAULT_ROUTER));
  for (const GoldenCase& item : cases_) {
    COTERIE_ASSERT_OK_AND_ASSIGN(const DomainScores a, router_->Classify(item.prompt));
    COTERIE_ASSERT_OK_AND_ASSIGN(const DomainScores b, alone->Classify(item.prompt));
    EXPECT_EQ(a.ranked[0].probability, b.ranked[0].probability) << item.prompt;
  }
}

TEST_F(EncoderGoldenTest, ConcurrentPromptsGetTheirOwnAnswers) {
  std::vector<DomainScores> expected;
  for (const GoldenCase& item : cases_) expected.push_back(*router_->Classify(item.prompt));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = t; i < cases_.size(); i += 2) {
        const auto scores = router_->Classify(cases_[i].prompt);
        ASSERT_TRUE(scores.ok());
        EXPECT_EQ(scores->ranked[0].probability, expected[i].ranked[0].probability);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(EncoderGoldenTest, EveryDomainIsReached) {
  std::set<std::string> reached;
  for (const GoldenCase& item : cases_) {
    reached.insert(router_->Classify(item.prompt)->ranked[0].domain);
  }
  EXPECT_EQ(reached.size(), DefaultDomains().size());
}

TEST_F(EncoderGoldenTest, OddPromptsAreClassified) {
  const std::vector<std::string> prompts = {std::string(1 << 20, 'a'), std::string(5000, '?'),
                                            "\xff", "[SEP]", std::string("a\0b", 3)};
  for (const std::string& prompt : prompts) COTERIE_EXPECT_OK(router_->Classify(prompt));
}

TEST_F(EncoderGoldenTest, ACorrectionActsAtOnceAndIsKeptByTheFile) {
  const std::string prompt = "play something calm";
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto corrected, router_->Correct(prompt, "writing"));
  COTERIE_ASSERT_OK_AND_ASSIGN(const DomainScores after, corrected->Classify(prompt));
  EXPECT_EQ(after.ranked[0].domain, "writing");
  const std::string path = ::testing::TempDir() + "/corrected_router.gguf";
  COTERIE_ASSERT_OK(corrected->Save(path));
  {
    COTERIE_ASSERT_OK_AND_ASSIGN(const auto loaded, Router::Load(path, &pool_));
    COTERIE_ASSERT_OK_AND_ASSIGN(const DomainScores kept, loaded->Classify(prompt));
    EXPECT_EQ(kept.ranked[0].domain, "writing");
    EXPECT_NEAR(kept.ranked[0].probability, after.ranked[0].probability, 1e-4);
  }
  std::remove(path.c_str());
}

TEST_F(EncoderGoldenTest, TheEstimateCoversWhatTheRouterHolds) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const int64_t estimate,
                               Router::EstimateBytes(COTERIE_DEFAULT_ROUTER, pool_.n_workers()));
  EXPECT_GE(estimate, router_->memory_bytes());
  EXPECT_LT(estimate, 64 << 20);
}

TEST_F(EncoderGoldenTest, AFileWithoutATensorIsRefusedByName) {
  std::ifstream in(COTERIE_DEFAULT_ROUTER, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(in), {}};
  const std::string name = "blk.3.ffn_up.weight";
  const size_t at = bytes.find(name);
  ASSERT_NE(at, std::string::npos);
  bytes[at] = 'x';
  const std::string path = ::testing::TempDir() + "/router_without_tensor.gguf";
  std::ofstream(path, std::ios::binary) << bytes;
  EXPECT_THAT(Router::Load(path), testing::StatusIs(absl::StatusCode::kDataLoss, HasSubstr(name)));
  std::remove(path.c_str());
}

}  // namespace
}  // namespace coterie
