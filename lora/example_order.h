#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"

#include "lora/trainer.h"

namespace coterie {

// Which examples each step of a training sees: every epoch in an order of its own, with general
// text beside them. Decided by the seed alone. Immutable.
class ExampleOrder {
 public:
  ExampleOrder(absl::Span<const TrainingExample> examples,
               absl::Span<const TrainingSequence> replay, int64_t n_epochs, int64_t batch_examples,
               double replay_share, uint64_t seed);

  int64_t n_steps() const { return static_cast<int64_t>(batches_.size()); }
  int64_t EpochOf(int64_t step) const { return step / steps_per_epoch_; }

  std::vector<TrainingExample> Batch(absl::Span<const TrainingExample> examples,
                                     absl::Span<const TrainingSequence> replay, int64_t step) const;

  // One line that says what all batches are, content included.
  const std::string& fingerprint() const { return fingerprint_; }

 private:
  struct Picked {
    std::vector<size_t> examples, replay;
  };

  int64_t steps_per_epoch_ = 1;
  std::vector<Picked> batches_;
  std::string fingerprint_;
};

}  // namespace coterie
