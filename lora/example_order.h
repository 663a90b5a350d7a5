#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lora/trainer.h"

namespace coterie {

// An example with others before it in the same conversation, which are learnt with it.
struct Episode {
  TrainingExample example;
  int64_t n_answers = 1;  // To learn, its own included.
};

// What a training learns from.
struct LearningMaterial {
  std::vector<TrainingExample> examples;  // Each alone,
  std::map<size_t, Episode> episodes;     // some of them (by index) also after others,
  std::vector<TrainingSequence> replay;   // and general text mixed in against forgetting.
};

struct ExampleOrderOptions {
  int64_t n_epochs = 3;        // Of as many answers as there are examples.
  int64_t batch_examples = 8;  // Answers of a step, or a few more.
  double episode_share = 0;    // How often an example that has an episode is learnt in it.
  double replay_share = 0.15;  // Of the tokens of a batch, as far as there is replay.
  uint64_t seed = 0;
};

// Which examples each step of a training sees: all of them in an order of its own, then all again
// in another, with general text beside them. Decided by material and options alone. Immutable; the
// material outlives it.
class ExampleOrder {
 public:
  ExampleOrder(const LearningMaterial& material, const ExampleOrderOptions& options);

  int64_t n_steps() const { return static_cast<int64_t>(batches_.size()); }
  int64_t EpochOf(int64_t step) const { return batches_[static_cast<size_t>(step)].epoch; }

  std::vector<TrainingExample> Batch(int64_t step) const;

  // One line that says what all batches are, content included.
  const std::string& fingerprint() const { return fingerprint_; }

 private:
  struct Picked {
    int64_t epoch = 0;
    std::vector<const TrainingExample*> examples;
    std::vector<const TrainingSequence*> replay;
  };

  // General text that falls due after so many more tokens of examples.
  void AddReplay(size_t n_tokens, Picked& picked);

  const LearningMaterial& material_;
  const ExampleOrderOptions options_;
  std::vector<Picked> batches_;
  size_t next_replay_ = 0;
  double owed_tokens_ = 0;  // Of replay, carried from batch to batch.
  std::string fingerprint_;
};

}  // namespace coterie
