#include "core/kernels/cpu_features.h"
#include "core/kernels/kernels.h"
#include "core/kernels/training_kernels.h"
#include "core/kernels/training_tables.h"

namespace coterie {
namespace {

std::vector<const TrainingKernelTable*> FindRunnable() {
  std::vector<const TrainingKernelTable*> tables = {&ScalarTrainingKernels()};
#if defined(COTERIE_X86_KERNELS)
  if (CanRunAvx2()) tables.push_back(&Avx2TrainingKernels());
  if (CanRunAvx512()) tables.push_back(&Avx512TrainingKernels());
  if (CanRunAvx512BF16()) tables.push_back(&Avx512BF16TrainingKernels());
#endif
  return tables;
}

// The best that goes with the kernels in use: COTERIE_ISA forces a lower one of both.
const TrainingKernelTable& Choose() {
  const std::vector<const TrainingKernelTable*>& tables = RunnableTrainingKernels();
  const bool is_forced = &Kernels() != RunnableKernels().back();
  if (!is_forced) return *tables.back();
  for (const TrainingKernelTable* table : tables) {
    if (table->isa == Kernels().isa) return *table;
  }
  return *tables.front();
}

}  // namespace

// A panel of 512 elements of 64 columns, and 16 rows of 1024 values on their way into it. The
// panels of the 8-bit product and the rows for them fill as much, and the sums of a tile 512 bytes
// more.
int64_t TrainingScratchBytes() { return (512 * 64 + 16 * 1024) * 4 + 1024; }

const TrainingKernelTable& TrainingKernels() {
  static const TrainingKernelTable& chosen = Choose();
  return chosen;
}

const std::vector<const TrainingKernelTable*>& RunnableTrainingKernels() {
  static const auto* const tables = new std::vector<const TrainingKernelTable*>(FindRunnable());
  return *tables;
}

}  // namespace coterie
