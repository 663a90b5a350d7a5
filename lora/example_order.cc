#include "lora/example_order.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"

#include "lora/stable_hash.h"

namespace coterie {
namespace {

// Fisher and Yates, by a generator that is the same everywhere: std::shuffle's use of it is not.
void Shuffle(std::vector<size_t>& order, std::mt19937_64& random) {
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
}

// All that a sequence is, as bytes.
void Append(const TrainingSequence& sequence, std::string& bytes) {
  for (const auto* ids : {&sequence.tokens, &sequence.labels}) {
    bytes.append(reinterpret_cast<const char*>(ids->data()), ids->size() * sizeof(TokenId));
  }
  for (const bool is_target : sequence.is_target) bytes.push_back(is_target ? '1' : '0');
}

}  // namespace

ExampleOrder::ExampleOrder(absl::Span<const TrainingExample> examples,
                           absl::Span<const TrainingSequence> replay, int64_t n_epochs,
                           int64_t batch_examples, double replay_share, uint64_t seed) {
  const size_t batch = static_cast<size_t>(std::max<int64_t>(1, batch_examples));
  steps_per_epoch_ = static_cast<int64_t>((examples.size() + batch - 1) / batch);
  std::vector<size_t> order(examples.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::mt19937_64 random(seed);
  size_t next_replay = 0;
  double owed_tokens = 0;  // Of replay, carried from batch to batch.
  for (int64_t epoch = 0; epoch < n_epochs; ++epoch) {
    Shuffle(order, random);
    for (size_t begin = 0; begin < order.size(); begin += batch) {
      Picked picked;
      for (size_t i = begin; i < std::min(order.size(), begin + batch); ++i) {
        picked.examples.push_back(order[i]);
        owed_tokens += static_cast<double>(examples[order[i]].sequence.tokens.size()) *
                       replay_share / (1 - std::min(0.9, replay_share));
      }
      while (!replay.empty() &&
             owed_tokens >= static_cast<double>(replay[next_replay].tokens.size())) {
        owed_tokens -= static_cast<double>(replay[next_replay].tokens.size());
        picked.replay.push_back(next_replay);
        next_replay = (next_replay + 1) % replay.size();
      }
      batches_.push_back(std::move(picked));
    }
  }
  std::string bytes;
  for (const TrainingExample& example : examples) {
    bytes.push_back(static_cast<char>(example.objective));
    for (const float factor : {example.weight, example.preference}) {
      bytes.append(reinterpret_cast<const char*>(&factor), sizeof(factor));
    }
    Append(example.sequence, bytes);
    Append(example.instead, bytes);
  }
  for (const TrainingSequence& sequence : replay) Append(sequence, bytes);
  fingerprint_ = absl::StrCat("order ", n_epochs, " ", batch, " ", replay_share, " ", seed, " ",
                              absl::Hex(StableHash(bytes)));
}

std::vector<TrainingExample> ExampleOrder::Batch(absl::Span<const TrainingExample> examples,
                                                 absl::Span<const TrainingSequence> replay,
                                                 int64_t step) const {
  std::vector<TrainingExample> batch;
  const Picked& picked = batches_[static_cast<size_t>(step)];
  for (const size_t i : picked.examples) batch.push_back(examples[i]);
  for (const size_t i : picked.replay) {
    TrainingExample general;
    general.sequence = replay[i];
    batch.push_back(std::move(general));
  }
  return batch;
}

}  // namespace coterie
