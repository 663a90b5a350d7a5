#pragma once

// From domains to an expert: which one answers, and why in numbers. Pure functions of data, so that
// every decision can be logged and replayed.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "router/domain_scores.h"

namespace coterie {

// What dispatch knows of one expert.
struct ExpertRow {
  std::string name;
  std::map<std::string, double> quality;  // Domain to quality in [0, 1]; a missing domain is 0.
  std::map<std::string, double> answer_seconds;  // Domain to the time of an answer; 0: unknown.
  int64_t bytes = 0;                             // What loading it charges.
  double load_ms = 0.0;                          // Expected time to load; 0 if not known yet.
  bool fits = true;                              // False: larger than the budget can ever hold.
};

using ExpertTable = std::vector<ExpertRow>;

// The experts that could answer now, without a load.
struct Residency {
  std::vector<std::string> experts;

  bool Contains(absl::string_view name) const;
};

// What dispatch remembers of a conversation; zero-initialised at its start.
struct ConversationState {
  std::string last_expert;        // Who answered last; empty at the start.
  int n_residency_decisions = 0;  // Turns in which being resident decided.
};

struct DispatchOptions {
  // How much probability a resident expert is worth over one that must be loaded in full_price_ms
  // or more; less for a quicker load. 0.2 to 0.4 saves loads at no loss of accuracy where topics
  // persist (docs/router.md).
  double residency_bonus = 0.3;
  double full_price_ms = 1000.0;
  // From this probability of the first domain on, residency does not count.
  double confident = 0.8;
  // Residency decides at most this often in one conversation: where topics change with every
  // prompt, the bonus costs accuracy.
  int max_residency_decisions = 4;
  // What the expert that answered last is worth over the others.
  double sticky_bonus = 0.1;
  // How much quality (the share of answers that are right) one second of waiting for an answer is
  // worth. 0: quality alone decides.
  double second_price = 0.01;
};

// Why an expert got its score. Bonuses are in units of score.
struct ExpertScore {
  std::string expert;
  double expected_quality = 0.0;  // sum over domains of probability * quality
  double expected_seconds = 0.0;  // sum over domains of probability * answer_seconds
  double time_cost = 0.0;         // expected_seconds * second_price
  double residency_bonus = 0.0;
  double sticky_bonus = 0.0;
  bool fits = true;

  double total() const { return expected_quality - time_cost + residency_bonus + sticky_bonus; }
};

enum class DecidedBy : uint8_t {
  kQuality,     // The best expected quality; neither time nor a bonus changed the choice.
  kSpeed,       // A better one takes too long for what it is better.
  kResidency,   // Without the residency bonus another expert would have been chosen.
  kSticky,      // Without the bonus of the expert that answered last another would have been.
  kAbstention,  // The router abstained: the best expert of the general domain.
  kOnlyFit,     // A better one can never fit the budget.
};

// Stable lower-case name: "quality", "speed", "residency", "sticky", "abstention", "only_fit".
absl::string_view DecidedByName(DecidedBy decided_by);

struct Choice {
  std::string expert;
  std::string reason;  // One sentence for people.
  DecidedBy decided_by = DecidedBy::kQuality;
  std::vector<ExpertScore> scores;  // Best first; experts that cannot fit come last.
};

// Chooses the expert with the largest total score among those that fit:
//
//   score(e) = sum_d p(d) * (quality(e, d) - second_price * answer_seconds(e, d))
//              + residency(e) + sticky(e)
//
// Bonuses are given in probability and scaled by the spread of the table (the largest difference in
// quality that two experts which fit show in one domain), so that they mean the same for any scale
// of qualities. Ties go to a resident expert, then to the earlier row.
//
// After an abstention the general domain counts as certain and residency does not count: a resident
// specialist is the wrong expert for a prompt that nobody understood. The expert of the last turn
// keeps its bonus, for "make it shorter" is about what it said. If no expert has any quality in the
// general domain, the probabilities decide after all.
//
//   kInvalidArgument     the table is empty, a name is empty or appears twice, a number is not
//                        finite or out of range, or there are no scores.
//   kResourceExhausted   no expert fits; the message names the smallest with its bytes.
absl::StatusOr<Choice> Dispatch(const DomainScores& scores, const ExpertTable& table,
                                const Residency& residency, const ConversationState& conversation,
                                const DispatchOptions& options = {});

// The conversation after a choice has been acted on.
ConversationState Advanced(ConversationState conversation, const Choice& choice);

}  // namespace coterie
