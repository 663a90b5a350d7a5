#pragma once

// What a batch is to minimise, and how much each token's likelihood weighs in it.
//
// With N the target tokens of all kImitate and kPrefer examples and M the other terms of a batch:
//   loss = sum of weight * nll of the tokens of those / N  +  preference_weight * sum of weight *
//   term / M
// where a term is, with r the log-likelihood of the targets less the base's (reference):
//   kPrefer      -log sigmoid(beta (r of sequence - r of instead))     ln 2 before the first step
//   kEncourage   1 - sigmoid(beta r)                                   1/2
//   kDiscourage  sigmoid(beta r)                                       1/2

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

#include "lora/trainer.h"

namespace coterie {

// Sums over the batch that every example's part is divided by.
struct BatchTotals {
  int64_t n_imitated_tokens = 0;
  int64_t n_terms = 0;
  double preference_weight = 1;

  static BatchTotals Of(absl::Span<const TrainingExample> batch, double preference_weight);
};

// Summed negative log-likelihoods of an example's targets, with the adapter and of the base alone.
struct ExampleLikelihood {
  double nll = 0, base_nll = 0;
  double instead_nll = 0, instead_base_nll = 0;  // kPrefer only.
};

// An example's part of the loss, and its derivative by the nll of each target token of its sequence
// and of `instead`.
struct ExampleLoss {
  double loss = 0;
  double by_nll = 0;
  double by_instead_nll = 0;
};
ExampleLoss LossOf(const TrainingExample& example, const ExampleLikelihood& likelihood,
                   const BatchTotals& totals, double beta);

// Whether the example's loss needs likelihoods of the base.
bool NeedsReference(Objective objective);

}  // namespace coterie
