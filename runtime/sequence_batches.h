#pragma once

#include <map>
#include <memory>

#include "core/memory/memory_budget.h"
#include "core/threads/mutex.h"
#include "core/threads/worker_pool.h"
#include "experts/base_source.h"
#include "experts/head_screens.h"
#include "experts/sequence_batch.h"

namespace coterie {

// The batch of each base that is being answered from: it begins with the first answer and ends with
// the last. Thread-safe; outlives the batches.
class SequenceBatches {
 public:
  // The screens, which outlive it, may be null.
  SequenceBatches(WorkerPool& pool, MemoryBudget& budget, SequenceBatchOptions options,
                  HeadScreens* screens)
      : pool_(pool), budget_(budget), options_(options), screens_(screens) {}

  // The caller holds a lease on the base, whose model `expert` is, for as long as the batch.
  std::shared_ptr<SequenceBatch> Of(const BaseId& base, const Expert& expert);

  // Of all batches, those that ended included.
  SequenceBatchStats Stats() const;

 private:
  WorkerPool& pool_;
  MemoryBudget& budget_;
  const SequenceBatchOptions options_;
  HeadScreens* const screens_;

  mutable Mutex mutex_;
  std::map<BaseId, std::weak_ptr<SequenceBatch>> batches_ ABSL_GUARDED_BY(mutex_);
  SequenceBatchStats ended_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace coterie
