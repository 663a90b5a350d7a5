#include "runtime/sequence_batches.h"

#include <utility>
#include <vector>

namespace coterie {

std::shared_ptr<SequenceBatch> SequenceBatches::Of(const BaseId& base, const Expert& expert) {
  MutexLock lock(mutex_);
  std::weak_ptr<SequenceBatch>& known = batches_[base];
  if (std::shared_ptr<SequenceBatch> batch = known.lock()) return batch;
  std::shared_ptr<SequenceBatch> batch(
      new SequenceBatch(expert, pool_, budget_, options_, Activations::kInt8, screens_),
      [this](SequenceBatch* ended) {
        const SequenceBatchStats stats = ended->Stats();
        delete ended;
        MutexLock lock(mutex_);
        ended_ += stats;
      });
  known = batch;
  return batch;
}

SequenceBatchStats SequenceBatches::Stats() const {
  SequenceBatchStats stats;
  std::vector<std::shared_ptr<SequenceBatch>> running;
  {
    MutexLock lock(mutex_);
    stats = ended_;
    for (const auto& [base, batch] : batches_) {
      if (auto alive = batch.lock()) running.push_back(std::move(alive));
    }
  }
  for (const auto& batch : running) stats += batch->Stats();
  return stats;
}

}  // namespace coterie
