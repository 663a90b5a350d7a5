#pragma once

// Whether a candidate adapter takes the place of the incumbent. Pure.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"

#include "lora/trainer.h"

namespace coterie {

struct GateOptions {
  int64_t least_cases = 8;           // Fewer held-out cases say nothing.
  double least_gain = 0.02;          // Nats per token that are worth a new version, for certain.
  double largest_forgetting = 0.05;  // Nats per token that general text may lose.
};

// A mean of paired differences, and the 99 % interval of Student's t: one candidate follows
// another, and at 95 % too many that learnt nothing would pass by luck.
struct PairedMean {
  int64_t n = 0;
  double mean = 0;
  double low = 0, high = 0;
};
PairedMean MeanOfDifferences(absl::Span<const double> before, absl::Span<const double> after);

struct GateReport {
  bool promote = false;
  std::string verdict;  // One sentence: "promoted: ..." or "no gain yet: ...".
  PairedMean gain;      // Nats per target token saved on held-out cases: above 0 is better.
  double held_out_before = 0, held_out_after = 0;  // Mean nats per token.
  double forgetting = 0;                           // Nats per token lost on general text.
};

// Held-out cases with the incumbent and with the candidate, and general text with the base alone
// and with the candidate. Cases are paired by position.
GateReport JudgeCandidate(absl::Span<const Trainer::Likelihood> incumbent,
                          absl::Span<const Trainer::Likelihood> candidate,
                          absl::Span<const Trainer::Likelihood> general_base,
                          absl::Span<const Trainer::Likelihood> general_candidate,
                          const GateOptions& options);

}  // namespace coterie
