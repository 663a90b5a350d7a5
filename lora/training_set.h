#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "core/formats/chat_template.h"
#include "core/formats/tokenizer.h"
#include "lora/interaction.h"
#include "lora/trainer.h"

namespace coterie {

struct TrainingSetOptions {
  double held_out_share = 0.2;   // About so many conversations are kept from training.
  float accepted_weight = 0.3f;  // An accepted answer was likely already; it only anchors.
  float edited_weight = 1;
  float rejected_weight = 0.5f;
  int64_t max_tokens = 1024;  // Of one sequence; longer ones are left out.
  uint64_t seed = 0;          // Of the order.
};

struct LeftOut {
  std::string id;
  std::string reason;
};

// What one expert can learn from, in the order in which to learn it.
struct TrainingSet {
  std::vector<TrainingExample> train;
  std::vector<TrainingExample> held_out;
  std::vector<LeftOut> left_out;
  int64_t through_change = 0;  // The largest Interaction::change seen: InteractionLog::MarkTrained.
};

// Makes examples of interactions with a verdict; those without are passed over.
//   accepted   kImitate the reply
//   edited     kPrefer the edit to the reply, weighted by how much was edited, and imitate it;
//   kImitate it alone where the
//              reply cannot be learnt from
//   rejected   kDiscourage the reply
// A reply that was cut off does not teach to end there; an edit does.
//
// Held out are whole conversations, by a hash of what the oldest interaction of each began with:
// interactions of one conversation name, or whose first or last question differ only in case,
// punctuation, white space and digits, are one. So a conversation stays on its side while the log
// grows, unless two that were apart turn out to be one.
//
// Of interactions that teach the same sequence only the one with the latest feedback counts. What
// is left out stands in left_out with a reason: sequences too long, repeated, or that the template
// refuses. The order depends on seed and ids alone: taking an interaction away leaves the others in
// their order. Same interactions and options, same result.
TrainingSet BuildTrainingSet(absl::Span<const Interaction> interactions, const Tokenizer& tokenizer,
                             const ChatTemplate* chat_template,
                             const TrainingSetOptions& options = {});

// The share of a text that was changed to make the other, [0, 1]: Levenshtein distance over the
// longer length, of at most the first 2000 bytes that differ.
double EditShare(absl::string_view before, absl::string_view after);

// Lower case, digits as 0, everything else that is ASCII and no letter as one space.
std::string NormalisedText(absl::string_view text);

}  // namespace coterie
