#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/types/span.h"

namespace coterie {

// How well a router does on labelled prompts. Shares are in [0, 1].
struct Evaluation {
  int64_t n = 0;
  double accuracy = 0.0;
  // Mean over the labels that occur of the harmonic mean of precision and recall.
  double macro_f1 = 0.0;
  // Sent to a specialist that is the wrong one. A prompt sent to the general domain by mistake is
  // an error of accuracy, but somebody able answers it.
  double wrong_expert_rate = 0.0;
  // Of the first domain's probability, before abstention (router/calibration.h).
  double ece = 0.0;
  double abstained_rate = 0.0;
  std::map<std::string, double> recall_by_label;
};

// One prompt: its label, what the router acted on, and what it ranked first.
struct EvaluatedPrompt {
  std::string label;
  std::string domain;        // After abstention.
  std::string first_domain;  // Before.
  double probability = 0.0;  // Of first_domain.
  bool abstained = false;
};

// Requires at least one prompt.
Evaluation Evaluate(absl::Span<const EvaluatedPrompt> prompts);

}  // namespace coterie
