#include "lora/trainer.h"

#include "absl/strings/str_cat.h"

#include "lora/cpu_trainer.h"

namespace coterie {

absl::StatusOr<std::unique_ptr<Trainer>> MakeTrainer(const Expert& expert, WorkerPool& pool,
                                                     MemoryBudget& budget,
                                                     const TrainerOptions& options,
                                                     int64_t max_tokens) {
  if (options.device != "cpu") {
    return absl::UnimplementedError(
        absl::StrCat("this build trains on the CPU only; leave the device out or name cpu: device=",
                     options.device));
  }
  return CpuTrainer::Make(expert.spec(), expert.weights(), pool, budget, options, max_tokens);
}

}  // namespace coterie
