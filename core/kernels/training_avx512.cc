// The "avx512" table of training products. This file has compiler flags of its own: it must not
// instantiate inline functions that other files share, not even of the standard library, or the
// linker may keep this copy.

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include <cfloat>

#include "core/kernels/kernel_shapes.h"
#include "core/kernels/kernels.h"
#include "core/kernels/training_tables.h"

// The vectors first: everything after is written over them.
// clang-format off
#include "core/kernels/vector_avx512.inl"
#include "core/kernels/block_types.inl"
#include "core/kernels/block_readers_avx512.inl"
#include "core/kernels/block_readers_x86.inl"
#include "core/kernels/dequantize.inl"
#include "core/kernels/vector_math.inl"
#include "core/kernels/panel_q8.inl"
#include "core/kernels/matmul_training.inl"
#include "core/kernels/matmul_training_q8.inl"
#include "core/kernels/elementwise_training.inl"
#include "core/kernels/training_table.inl"
// clang-format on

namespace coterie {
namespace {

constexpr TrainingKernelTable kTable = MakeTrainingTable("avx512", nullptr, nullptr);

}  // namespace

const TrainingKernelTable& Avx512TrainingKernels() { return kTable; }

}  // namespace coterie
