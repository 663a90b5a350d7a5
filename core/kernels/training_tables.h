#pragma once

// The tables behind TrainingKernels(), one per instruction set; see isa_tables.h.

#include "core/kernels/training_kernels.h"

namespace coterie {

const TrainingKernelTable& ScalarTrainingKernels();
#if defined(COTERIE_X86_KERNELS)
const TrainingKernelTable& Avx2TrainingKernels();
const TrainingKernelTable& Avx512TrainingKernels();
const TrainingKernelTable& Avx512BF16TrainingKernels();
#endif

}  // namespace coterie
