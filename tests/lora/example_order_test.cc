#include "lora/example_order.h"

#include <set>

#include "gtest/gtest.h"

namespace coterie {
namespace {

std::vector<TrainingExample> Examples(int n) {
  std::vector<TrainingExample> examples(static_cast<size_t>(n));
  for (int i = 0; i < n; ++i) {
    examples[static_cast<size_t>(i)].sequence.tokens.assign(10, i);
    examples[static_cast<size_t>(i)].sequence.is_target.assign(10, true);
  }
  return examples;
}

TEST(ExampleOrderTest, EveryEpochSeesEachExampleOnceInAnOrderOfItsOwn) {
  const std::vector<TrainingExample> examples = Examples(21);
  const ExampleOrder order(examples, {}, 2, 4, 0, 7);
  EXPECT_EQ(order.n_steps(), 12);
  std::vector<TokenId> seen[2];
  for (int64_t step = 0; step < order.n_steps(); ++step) {
    for (const TrainingExample& example : order.Batch(examples, {}, step)) {
      seen[order.EpochOf(step)].push_back(example.sequence.tokens[0]);
    }
  }
  EXPECT_EQ(std::set<TokenId>(seen[0].begin(), seen[0].end()).size(), 21u);
  EXPECT_EQ(seen[1].size(), 21u);
  EXPECT_NE(seen[0], seen[1]);
}

TEST(ExampleOrderTest, ReplayTakesItsShareOfTheTokens) {
  const std::vector<TrainingExample> examples = Examples(40);
  std::vector<TrainingSequence> replay(3);
  for (TrainingSequence& one : replay) {
    one.tokens.assign(20, 99);
    one.is_target.assign(20, true);
  }
  const ExampleOrder order(examples, replay, 3, 8, 0.25, 7);
  size_t n_replay = 0, n_all = 0;
  for (int64_t step = 0; step < order.n_steps(); ++step) {
    for (const TrainingExample& example : order.Batch(examples, replay, step)) {
      n_all += example.sequence.tokens.size();
      if (example.sequence.tokens[0] == 99) n_replay += example.sequence.tokens.size();
    }
  }
  EXPECT_NEAR(static_cast<double>(n_replay) / static_cast<double>(n_all), 0.25, 0.02);
}

TEST(ExampleOrderTest, TheFingerprintTellsPlansApart) {
  std::vector<TrainingExample> examples = Examples(5);
  const std::string before = ExampleOrder(examples, {}, 2, 4, 0, 7).fingerprint();
  EXPECT_EQ(ExampleOrder(examples, {}, 2, 4, 0, 7).fingerprint(), before);
  EXPECT_NE(ExampleOrder(examples, {}, 2, 4, 0, 8).fingerprint(), before);
  examples[3].sequence.tokens[4] = 77;
  EXPECT_NE(ExampleOrder(examples, {}, 2, 4, 0, 7).fingerprint(), before);
}

}  // namespace
}  // namespace coterie
