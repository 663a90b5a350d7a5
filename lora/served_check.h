#pragma once

#include <stop_token>

#include "absl/status/statusor.h"

#include "core/memory/memory_budget.h"
#include "core/threads/worker_pool.h"
#include "experts/expert.h"
#include "experts/linear_delta.h"
#include "lora/trainer.h"

namespace coterie {

// The likelihood of a sequence's first targets (within 64 tokens), as the expert serves it with
// these deltas (null: none) and f32 activations: what a trainer's must agree with before its
// adapter is published. Memory is charged while it lasts.
absl::StatusOr<Trainer::Likelihood> ServedLikelihood(const Expert& expert,
                                                     const DeltaSnapshot& deltas,
                                                     const TrainingSequence& sequence,
                                                     WorkerPool& pool, MemoryBudget& budget);

// The likelihood of all targets of a sequence as the expert answers (rounded activations), in
// passes of few tokens that give way to answers. Memory is charged while it lasts. kCancelled if
// `stop` was requested.
absl::StatusOr<Trainer::Likelihood> AnsweredLikelihood(const Expert& expert,
                                                       const LinearDeltaSet* deltas,
                                                       const TrainingSequence& sequence,
                                                       WorkerPool& pool, MemoryBudget& budget,
                                                       const std::stop_token& stop);

// The tokens that ServedLikelihood looks at, as a sequence of their own.
TrainingSequence ServedPart(const TrainingSequence& sequence);

}  // namespace coterie
