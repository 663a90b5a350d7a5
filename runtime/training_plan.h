#pragma once

#include <stop_token>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "core/memory/memory_budget.h"
#include "core/threads/worker_pool.h"
#include "experts/expert.h"
#include "lora/adapter_training.h"
#include "lora/interaction.h"
#include "lora/training_set.h"
#include "runtime/training.h"

namespace coterie {

// Everything that a training of one adapter begins with.
struct TrainingMaterial {
  TrainingSet set;           // Its examples are in the plan.
  AdapterTrainingPlan plan;  // Without an incumbent and a place for checkpoints.
};

// Makes examples, what is rehearsed and what is measured with, from interactions in the order in
// which they are learnt from.
//   kInvalidArgument      a share that is none
//   kFailedPrecondition   there is nothing to learn from
//   other                 of ReplaySource for the file that the request names, and of Rehearse
absl::StatusOr<TrainingMaterial> PrepareTraining(const Expert& expert,
                                                 const ChatTemplate* chat_template,
                                                 absl::Span<const Interaction> interactions,
                                                 const TrainingRequest& request, WorkerPool& pool,
                                                 MemoryBudget& budget, const std::stop_token& stop);

}  // namespace coterie
