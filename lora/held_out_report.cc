#include "lora/held_out_report.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "core/base/status_macros.h"
#include "lora/served_check.h"

namespace coterie {

std::vector<HeldOutCase> MakeHeldOutCases(const TrainingSet& set, ShownAnswers& shown,
                                          size_t max_cases) {
  std::vector<HeldOutCase> cases;
  for (const TrainingExample& example : set.held_out) {
    if (cases.size() == max_cases) break;
    if (example.objective == Objective::kDiscourage) continue;
    absl::StatusOr<TrainingSequence> after = shown.After(example.id);
    if (after.ok()) cases.push_back({example.sequence, *std::move(after)});
  }
  return cases;
}

absl::StatusOr<HeldOutReport> MeasureHeldOut(const Expert& expert, const LinearDeltaSet& adapter,
                                             absl::Span<const HeldOutCase> cases, WorkerPool& pool,
                                             MemoryBudget& budget, const std::stop_token& stop) {
  HeldOutReport report;
  for (const HeldOutCase& one : cases) {
    for (const auto& [deltas, sequence, mean] :
         {std::tuple(static_cast<const LinearDeltaSet*>(nullptr), &one.plain, &report.base),
          std::tuple(static_cast<const LinearDeltaSet*>(nullptr), &one.shown,
                     &report.base_retrieval),
          std::tuple(&adapter, &one.plain, &report.adapter),
          std::tuple(&adapter, &one.shown, &report.adapter_retrieval)}) {
      COTERIE_ASSIGN_OR_RETURN(const Trainer::Likelihood likelihood,
                               AnsweredLikelihood(expert, deltas, *sequence, pool, budget, stop));
      *mean += likelihood.nll / static_cast<double>(std::max<int64_t>(1, likelihood.n_tokens)) /
               static_cast<double>(cases.size());
    }
  }
  report.n_cases = static_cast<int64_t>(cases.size());
  return report;
}

}  // namespace coterie
