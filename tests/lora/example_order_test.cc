#include "lora/example_order.h"

#include <set>

#include "gtest/gtest.h"

namespace coterie {
namespace {

constexpr TokenId kGeneral = 99, kEpisode = 1000;

TrainingSequence Sequence(size_t n_tokens, TokenId token) {
  TrainingSequence sequence;
  sequence.tokens.assign(n_tokens, token);
  sequence.is_target.assign(n_tokens, true);
  return sequence;
}

LearningMaterial Examples(int n) {
  LearningMaterial material;
  for (int i = 0; i < n; ++i) material.examples.emplace_back().sequence = Sequence(10, i);
  return material;
}

// The first token of every sequence, in the order in which they are learnt.
std::vector<TokenId> Learnt(const ExampleOrder& order) {
  std::vector<TokenId> learnt;
  for (int64_t step = 0; step < order.n_steps(); ++step) {
    for (const TrainingExample& one : order.Batch(step)) learnt.push_back(one.sequence.tokens[0]);
  }
  return learnt;
}

TEST(ExampleOrderTest, EveryEpochSeesEachExampleOnceInAnOrderOfItsOwn) {
  const LearningMaterial material = Examples(21);
  const ExampleOrder order(material,
                           {.n_epochs = 2, .batch_examples = 4, .replay_share = 0, .seed = 7});
  EXPECT_EQ(order.n_steps(), 12);
  std::vector<TokenId> seen[2];
  for (int64_t step = 0; step < order.n_steps(); ++step) {
    for (const TrainingExample& example : order.Batch(step)) {
      seen[order.EpochOf(step)].push_back(example.sequence.tokens[0]);
    }
  }
  EXPECT_EQ(std::set<TokenId>(seen[0].begin(), seen[0].end()).size(), 21u);
  EXPECT_EQ(seen[1].size(), 21u);
  EXPECT_NE(seen[0], seen[1]);
}

TEST(ExampleOrderTest, AnEpisodeCountsAsTheAnswersThatItTeaches) {
  LearningMaterial material = Examples(20);
  for (size_t i = 0; i < 20; i += 2) {
    Episode& episode = material.episodes[i];
    episode.example.sequence = Sequence(50, kEpisode + static_cast<TokenId>(i));
    episode.n_answers = 4;
  }
  const ExampleOrder order(
      material,
      {.n_epochs = 5, .batch_examples = 8, .episode_share = 1, .replay_share = 0, .seed = 7});
  int n_answers = 0;
  std::set<TokenId> seen;
  for (const TokenId first : Learnt(order)) {
    n_answers += first >= kEpisode ? 4 : 1;
    seen.insert(first);
  }
  EXPECT_GE(n_answers, 100);
  EXPECT_LT(n_answers, 104);
  EXPECT_EQ(seen.size(), 20u) << "all take their turn, alone or in their episode";
}

TEST(ExampleOrderTest, TheShareOfEpisodesIsHowOftenAnExampleIsLearntInIts) {
  LearningMaterial material = Examples(40);
  for (size_t i = 0; i < 40; ++i) material.episodes[i].example.sequence = Sequence(50, kEpisode);
  for (const double share : {0.0, 0.5, 1.0}) {
    const ExampleOrder order(material, {.n_epochs = 10, .episode_share = share, .replay_share = 0});
    int n_episodes = 0;
    for (const TokenId first : Learnt(order)) n_episodes += first == kEpisode ? 1 : 0;
    EXPECT_NEAR(n_episodes / 400.0, share, share == 0.5 ? 0.1 : 0) << share;
  }
}

TEST(ExampleOrderTest, ReplayTakesItsShareOfTheTokens) {
  LearningMaterial material = Examples(40);
  material.replay.assign(3, Sequence(20, kGeneral));
  const ExampleOrder order(material, {.n_epochs = 3, .replay_share = 0.25, .seed = 7});
  size_t n_replay = 0, n_all = 0;
  for (int64_t step = 0; step < order.n_steps(); ++step) {
    for (const TrainingExample& example : order.Batch(step)) {
      n_all += example.sequence.tokens.size();
      if (example.sequence.tokens[0] == kGeneral) n_replay += example.sequence.tokens.size();
    }
  }
  EXPECT_NEAR(static_cast<double>(n_replay) / static_cast<double>(n_all), 0.25, 0.02);
}

TEST(ExampleOrderTest, TheFingerprintTellsPlansApart) {
  LearningMaterial material = Examples(5);
  const ExampleOrderOptions options;
  const std::string before = ExampleOrder(material, options).fingerprint();
  EXPECT_EQ(ExampleOrder(material, options).fingerprint(), before);
  EXPECT_NE(ExampleOrder(material, {.seed = 8}).fingerprint(), before);
  EXPECT_NE(ExampleOrder(material, {.episode_share = 0.5}).fingerprint(), before);
  LearningMaterial other = material;
  other.examples[3].sequence.tokens[4] = 77;
  EXPECT_NE(ExampleOrder(other, options).fingerprint(), before);
  material.episodes[2].n_answers = 3;
  EXPECT_NE(ExampleOrder(material, options).fingerprint(), before);
}

}  // namespace
}  // namespace coterie
