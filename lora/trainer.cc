#include "lora/trainer.h"

#include <iterator>

#include "absl/strings/str_cat.h"

#include "lora/cpu_trainer.h"
#include "lora/trainer_library.h"

namespace coterie {
namespace {

constexpr absl::string_view kPrecisionNames[] = {"auto", "f32", "bf16"};

}  // namespace

absl::string_view PrecisionName(TrainingPrecision precision) {
  return kPrecisionNames[static_cast<size_t>(precision)];
}

absl::StatusOr<TrainingPrecision> PrecisionFromName(absl::string_view name) {
  for (size_t i = 0; i < std::size(kPrecisionNames); ++i) {
    if (kPrecisionNames[i] == name) return static_cast<TrainingPrecision>(i);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("a precision is auto, f32 or bf16, not \"", name, "\""));
}

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
