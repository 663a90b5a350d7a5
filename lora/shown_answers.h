#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "core/formats/chat_template.h"
#include "core/formats/tokenizer.h"
#include "lora/example_order.h"
#include "lora/interaction.h"
#include "lora/nearest_texts.h"
#include "lora/trainer.h"
#include "lora/training_set.h"

namespace coterie {

struct ShownAnswersOptions {
  size_t n_examples = 6;             // Shown at most, and
  int64_t max_example_tokens = 512;  // in at most so many tokens more than the question alone.
};

// What a question looks like after the nearest answers of a set's training part, as retrieval shows
// them. `interactions`, the tokenizer and the template outlive it. Thread-compatible.
class ShownAnswers {
 public:
  ShownAnswers(absl::Span<const Interaction> interactions, const TrainingSet& set,
               const Tokenizer& tokenizer, const ChatTemplate* chat_template,
               const ShownAnswersOptions& options);

  // What was wanted of this interaction, after at most n_examples of the others nearest to it (of
  // different questions, under the same system prompt, not rejected); with fewer, or none, where
  // there are no more or the tokens do not suffice. kNotFound for an id that is none of theirs;
  // other errors of TeachReply.
  absl::StatusOr<TrainingSequence> After(const std::string& id);

  // For each interaction of the training part that is imitated and has something to show before it,
  // a conversation of which every answer is to be imitated: the nearest, from none to n_examples of
  // them by a hash of its id and the seed, and its own. Others, and what has more than max_tokens
  // tokens, are not there. By the index of the training part.
  std::map<size_t, Episode> Episodes(int64_t max_tokens, uint64_t seed);

 private:
  struct Taught {
    TrainingSequence sequence;
    size_t n_shown = 0;
  };

  std::vector<Interaction> Nearest(const Interaction& one, size_t n);
  absl::StatusOr<Taught> Teach(const Interaction& one, size_t n, bool teach_shown);

  absl::Span<const Interaction> interactions_;
  const TrainingSet& set_;
  const Tokenizer& tokenizer_;
  const ChatTemplate* template_;
  const ShownAnswersOptions options_;
  std::map<std::string, const Interaction*> by_id_;
  std::map<std::string, NearestTexts> texts_;  // By system prompt.
};

}  // namespace coterie
