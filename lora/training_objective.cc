#include "lora/training_objective.h"

#include <algorithm>
#include <cmath>

namespace coterie {
namespace {

double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

bool Imitates(Objective objective) {
  return objective == Objective::kImitate || objective == Objective::kPrefer;
}

}  // namespace

bool NeedsReference(Objective objective) { return objective != Objective::kImitate; }

BatchTotals BatchTotals::Of(absl::Span<const TrainingExample> batch, double preference_weight) {
  BatchTotals totals;
  totals.preference_weight = preference_weight;
  for (const TrainingExample& example : batch) {
    const std::vector<bool>& targets = example.sequence.is_target;
    if (Imitates(example.objective)) {
      totals.n_imitated_tokens += std::count(targets.begin(), targets.end(), true);
    }
    if (NeedsReference(example.objective)) ++totals.n_terms;
  }
  return totals;
}

ExampleLoss LossOf(const TrainingExample& example, const ExampleLikelihood& likelihood,
                   const BatchTotals& totals, double beta) {
  ExampleLoss out;
  const double weight = static_cast<double>(example.weight);
  if (Imitates(example.objective)) {
    const double share = weight / static_cast<double>(totals.n_imitated_tokens);
    out.loss += share * likelihood.nll;
    out.by_nll += share;
  }
  if (!NeedsReference(example.objective)) return out;
  const double share = totals.preference_weight * weight * static_cast<double>(example.preference) /
                       static_cast<double>(totals.n_terms);
  const double ratio = likelihood.base_nll - likelihood.nll;
  if (example.objective == Objective::kPrefer) {
    const double margin = beta * (ratio - (likelihood.instead_base_nll - likelihood.instead_nll));
    // log(1 + e^-m) without overflow.
    out.loss += share * (std::max(-margin, 0.0) + std::log1p(std::exp(-std::fabs(margin))));
    const double pull = share * beta * Sigmoid(-margin);
    out.by_nll += pull;
    out.by_instead_nll -= pull;
    return out;
  }
  const double s = Sigmoid(beta * ratio);
  const double sign = example.objective == Objective::kEncourage ? 1 : -1;
  out.loss += share * (sign > 0 ? 1 - s : s);
  out.by_nll += sign * share * beta * s * (1 - s);
  return out;
}

}  // namespace coterie
