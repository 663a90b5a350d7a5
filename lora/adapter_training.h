#pragma once

// One training of one adapter, from examples to a verdict.

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "core/memory/memory_budget.h"
#include "core/threads/worker_pool.h"
#include "experts/expert.h"
#include "lora/example_order.h"
#include "lora/promotion_gate.h"
#include "lora/trainer.h"

namespace coterie {

struct AdapterTrainingPlan {
  LearningMaterial material;
  std::vector<TrainingSequence> held_out;  // Cases that training never sees,
  std::vector<TrainingSequence> probe;     // and general text that is not replayed.
  // The adapter that serves now, rows as served; empty: the base alone.
  std::vector<LinearDelta> incumbent;

  TrainerOptions options;  // total_steps is set by the training.
  ExampleOrderOptions order;
  int64_t pass_tokens = 0;  // Of a pass; 0: as many as the longest example and a batch need.
  GateOptions gate;

  // Where to keep a checkpoint, and to go on from if one is there; empty: nowhere. Removed at the
  // end. Its adapter and optimiser go on bit for bit.
  std::string checkpoint_path;
};

struct TrainingProgress {
  enum class Phase : uint8_t {
    kMeasuring,
    kTraining,
    kJudging,
    kPaused,  // Others have its memory; it goes on when there is room.
  };
  Phase phase = Phase::kMeasuring;
  int64_t step = 0, n_steps = 0;
  int64_t epoch = 0;  // From 0.
  double loss = 0;
  double tokens_per_second = 0;
  double seconds_left = 0;
  int64_t memory_bytes = 0;
};

struct AdapterTrainingResult {
  std::vector<LinearDelta> deltas;  // The candidate, rows as served.
  // Nats per token between the trainer's and the served likelihood of a probe.
  double served_difference = 0;
  GateReport gate;
  std::vector<StepReport> steps;
  double seconds = 0;  // Of training; without measuring.
  double tokens_per_second = 0;
  int64_t memory_bytes = 0;
  Recompute recompute = Recompute::kNone;
  bool is_bf16 = false;
};

// Trains an adapter anew on all examples and judges it. Before the verdict, the served pass must
// give a probe the likelihood that the trainer gives it: kInternal "self-check failed: served".
// Deterministic: the same plan on the same base gives the same bytes (same build, instruction set
// and number of threads). Work gives way to answers on the pool. progress may be null.
//   kInvalidArgument    no examples, or one that cannot be learnt from
//   kCancelled          `cancel` was requested; the checkpoint is kept
//   other               as of MakeTrainer and Trainer::Step
absl::StatusOr<AdapterTrainingResult> TrainAdapter(
    const Expert& expert, WorkerPool& pool, MemoryBudget& budget, const AdapterTrainingPlan& plan,
    const std::function<void(const TrainingProgress&)>& progress, std::stop_token cancel);

}  // namespace coterie
