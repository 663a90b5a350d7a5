#pragma once

// The trainer on LibTorch stands in a shared library of its own, libcoterie_train, which is opened
// when it is first asked for: nothing else of coterie links or maps LibTorch.

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "core/memory/memory_budget.h"
#include "core/threads/worker_pool.h"
#include "experts/arch_spec.h"
#include "experts/decoder_weights.h"
#include "lora/trainer.h"

namespace coterie {

// Raised with every change of what crosses between the two libraries, their C++ types included.
inline constexpr int64_t kTrainerLibraryVersion = 1;

// The one symbol that the library exports besides its version.
struct TrainerLibraryArguments {
  const ArchSpec* spec = nullptr;
  const DecoderWeights* weights = nullptr;
  WorkerPool* pool = nullptr;
  MemoryBudget* budget = nullptr;
  const TrainerOptions* options = nullptr;
  int64_t max_tokens = 0;
};
using TrainerLibraryVersion = int64_t();
using TrainerLibraryMake = void(const TrainerLibraryArguments& arguments,
                                absl::StatusOr<std::unique_ptr<Trainer>>* trainer);

// Whether a device belongs to the library: "cuda", "cuda:1", or "torch:cpu", which tests use.
bool IsTorchDevice(absl::string_view device);

// Makes a trainer for such a device. Besides MakeTrainer's errors kUnimplemented where there is no
// library or it is of another version, saying what to install.
absl::StatusOr<std::unique_ptr<Trainer>> MakeTorchTrainer(const ArchSpec& spec,
                                                          const DecoderWeights& weights,
                                                          WorkerPool& pool, MemoryBudget& budget,
                                                          const TrainerOptions& options,
                                                          int64_t max_tokens);

}  // namespace coterie
