#pragma once

// What libcoterie_train and its opener agree on.

#include "lora/trainer.h"

namespace coterie {

inline constexpr char kTrainerLibrary[] = "libcoterie_train.so";
inline constexpr char kTrainerFactory[] = "coterie_make_trainer";

// MakeTrainer, as exported by the library under kTrainerFactory with C linkage.
using TrainerFactory = absl::StatusOr<std::unique_ptr<Trainer>> (*)(const Expert&, WorkerPool&,
                                                                    MemoryBudget&,
                                                                    const TrainerOptions&,
                                                                    int64_t max_tokens);

}  // namespace coterie
