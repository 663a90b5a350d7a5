#pragma once

// What examples and an adapter are each worth on cases that training did not see.

#include <cstdint>
#include <stop_token>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "core/formats/chat_template.h"
#include "core/formats/tokenizer.h"
#include "core/memory/memory_budget.h"
#include "core/threads/worker_pool.h"
#include "experts/expert.h"
#include "experts/linear_delta.h"
#include "lora/interaction.h"
#include "lora/trainer.h"
#include "lora/training_set.h"

namespace coterie {

// One held-out answer, asked plainly, and asked after the nearest answers of the training part.
struct HeldOutCase {
  TrainingSequence plain;
  TrainingSequence shown;
};

struct HeldOutCaseOptions {
  size_t max_cases = 16;             // The first by the order of the set.
  size_t n_examples = 6;             // Shown at most, of the training part only, and
  int64_t max_example_tokens = 512;  // in at most so many tokens more.
};

// Cases of the interactions that `set` holds out, without those that were rejected and those that
// the template refuses.
std::vector<HeldOutCase> MakeHeldOutCases(absl::Span<const Interaction> interactions,
                                          const TrainingSet& set, const Tokenizer& tokenizer,
                                          const ChatTemplate* chat_template,
                                          const HeldOutCaseOptions& options);

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
