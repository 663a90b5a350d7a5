#include "lora/trainer.h"

#include "absl/strings/str_cat.h"

#include "lora/cpu_trainer.h"
#include "lora/trainer_library.h"

namespace coterie {

absl::StatusOr<std::unique_ptr<Trainer>> MakeTrainer(const Expert& expert, WorkerPool& pool,
                                                     MemoryBudget& budget,
                                                     const TrainerOptions& options,
                                                     int64_t max_tokens) {
  if (IsTorchDevice(options.device)) {
    return MakeTorchTrainer(expert.spec(), expert.weights(), pool, budget, options, max_tokens);
  }
  if (options.device != "cpu") {
    return absl::InvalidArgumentError(
        absl::StrCat("no such device to train on: device=", options.device,
                     "; leave it out for the CPU, or name cuda"));
  }
  return CpuTrainer::Make(expert.spec(), expert.weights(), pool, budget, options, max_tokens);
}

}  // namespace coterie
