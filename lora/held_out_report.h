#pragma once

// What examples and an adapter are each worth on cases that training did not see.

#include <cstdint>
#include <stop_token>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "core/memory/memory_budget.h"
#include "core/threads/worker_pool.h"
#include "experts/expert.h"
#include "experts/linear_delta.h"
#include "lora/interaction.h"
#include "lora/shown_answers.h"
#include "lora/trainer.h"
#include "lora/training_set.h"

namespace coterie {

// One held-out answer, asked plainly, and asked after the nearest answers of the training part.
struct HeldOutCase {
  TrainingSequence plain;
  TrainingSequence shown;
};

// At most max_cases of the examples that `set` holds out, in its order, without those that were
// rejected and those that the template refuses. `shown`: answers of the training part.
std::vector<HeldOutCase> MakeHeldOutCases(const TrainingSet& set, ShownAnswers& shown,
                                          size_t max_cases);

// Mean nats per target token of the cases as the expert answers; smaller is better.
struct HeldOutReport {
  int64_t n_cases = 0;  // 0: nothing was measured.
  double base = 0, base_retrieval = 0;
  double adapter = 0, adapter_retrieval = 0;
};

// Gives way to answers; memory is charged while it lasts. Errors of AnsweredLikelihood.
absl::StatusOr<HeldOutReport> MeasureHeldOut(const Expert& expert, const LinearDeltaSet& adapter,
                                             absl::Span<const HeldOutCase> cases, WorkerPool& pool,
                                             MemoryBudget& budget, const std::stop_token& stop);

}  // namespace coterie
