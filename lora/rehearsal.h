#pragma once

#include <cstdint>
#include <stop_token>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "core/memory/memory_budget.h"
#include "core/threads/worker_pool.h"
#include "experts/expert.h"
#include "lora/trainer.h"

namespace coterie {

// What an adapter is to go on saying of general text: the base's own words. The labels of a passage
// are drawn, at each place, from what the base expects there, not from how the passage goes on: the
// gradient is then that of the divergence from the base, zero in the mean for an adapter that
// changes nothing, and the passage's style is not learnt.
//
// Gives the passages in order, again and again with other labels, until they are of n_tokens tokens
// together. Deterministic by the seed (same build, instruction set and number of threads). The work
// gives way to answers, and its memory is charged while it lasts.
//   kCancelled   `stop` was requested
//   other        of the budget and the pass
absl::StatusOr<std::vector<TrainingSequence>> Rehearse(const Expert& expert,
                                                       absl::Span<const TrainingSequence> passages,
                                                       int64_t n_tokens, uint64_t seed,
                                                       WorkerPool& pool, MemoryBudget& budget,
                                                       const std::stop_token& stop);

}  // namespace coterie
