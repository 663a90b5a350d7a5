#include "lora/example_order.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/random_bits.h"
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

void Append(const TrainingExample& example, std::string& bytes) {
  bytes.push_back(static_cast<char>(example.objective));
  for (const float factor : {example.weight, example.preference}) {
    bytes.append(reinterpret_cast<const char*>(&factor), sizeof(factor));
  }
  Append(example.sequence, bytes);
  Append(example.instead, bytes);
}

std::string Fingerprint(const LearningMaterial& material, const ExampleOrderOptions& options) {
  std::string bytes;
  for (const TrainingExample& example : material.examples) Append(example, bytes);
  for (const auto& [index, episode] : material.episodes) {
    absl::StrAppend(&bytes, index, " ", episode.n_answers, " ");
    Append(episode.example, bytes);
  }
  for (const TrainingSequence& sequence : material.replay) Append(sequence, bytes);
  return absl::StrCat("order ", options.n_epochs, " ", options.batch_examples, " ",
                      options.episode_share, " ", options.replay_share, " ", options.seed, " ",
                      absl::Hex(StableHash(bytes)));
}

}  // namespace

ExampleOrder::ExampleOrder(const LearningMaterial& material, const ExampleOrderOptions& options)
    : material_(material), options_(options), fingerprint_(Fingerprint(material, options)) {
  const int64_t n_examples = static_cast<int64_t>(material.examples.size());
  const int64_t batch_answers = std::max<int64_t>(1, options.batch_examples);
  std::vector<size_t> order(material.examples.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::mt19937_64 random(options.seed);
  size_t next = order.size();
  for (int64_t epoch = 0, n_answers = 0; epoch < options.n_epochs; ++epoch) {
    while (n_answers < (epoch + 1) * n_examples) {
      Picked picked;
      picked.epoch = epoch;
      for (int64_t n = 0; n < batch_answers && n_answers < (epoch + 1) * n_examples;) {
        if (next == order.size()) {
          Shuffle(order, random);
          next = 0;
        }
        const size_t i = order[next++];
        const auto episode = material.episodes.find(i);
        const bool after_others =
            episode != material.episodes.end() && UnitInterval(random()) < options.episode_share;
        const int64_t n_more = after_others ? episode->second.n_answers : 1;
        picked.examples.push_back(after_others ? &episode->second.example : &material.examples[i]);
        AddReplay(picked.examples.back()->sequence.tokens.size(), picked);
        n += n_more;
        n_answers += n_more;
      }
      batches_.push_back(std::move(picked));
    }
  }
}

void ExampleOrder::AddReplay(size_t n_tokens, Picked& picked) {
  const std::vector<TrainingSequence>& replay = material_.replay;
  if (replay.empty()) return;
  owed_tokens_ += static_cast<double>(n_tokens) * options_.replay_share /
                  (1 - std::min(0.9, options_.replay_share));
  while (owed_tokens_ >= static_cast<double>(replay[next_replay_].tokens.size())) {
    owed_tokens_ -= static_cast<double>(replay[next_replay_].tokens.size());
    picked.replay.push_back(&replay[next_replay_]);
    next_replay_ = (next_replay_ + 1) % replay.size();
  }
}

std::vector<TrainingExample> ExampleOrder::Batch(int64_t step) const {
  std::vector<TrainingExample> batch;
  const Picked& picked = batches_[static_cast<size_t>(step)];
  for (const TrainingExample* example : picked.examples) batch.push_back(*example);
  for (const TrainingSequence* sequence : picked.replay) {
    TrainingExample general;
    general.sequence = *sequence;
    batch.push_back(std::move(general));
  }
  return batch;
}

}  // namespace coterie
