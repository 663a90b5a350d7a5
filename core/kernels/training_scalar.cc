// The "scalar" table of training products. This file has compiler flags of its own: it must not
// instantiate inline functions that other files share, not even of the standard library, or the
// linker may keep this copy.

#include <math.h>
#include <string.h>

#include <cfloat>

#include "core/kernels/kernel_shapes.h"
#include "core/kernels/kernels.h"
#include "core/kernels/training_tables.h"

// The vectors first: everything after is written over them.
// clang-format off
#include "core/kernels/vector_scalar.inl"
#include "core/kernels/block_types.inl"
#include "core/kernels/block_readers_scalar.inl"
#include "core/kernels/dequantize.inl"
#include "core/kernels/vector_math.inl"
#include "core/kernels/matmul_training.inl"
#include "core/kernels/elementwise_training.inl"
// clang-format on

namespace coterie {
namespace {

constexpr TrainingKernelTable kTable = {
    .isa = "scalar",
    .forward_f32 = Forward<F32Product>,
    .backward_f32 = Backward<F32Product>,
    .forward_bf16 = nullptr,
    .backward_bf16 = nullptr,
    .f32_to_bf16 = F32ToBF16,
    .bf16_to_f32 = BF16ToF32,
    .rms_norm_backward = RmsNormBackward,
    .silu_mul_backward = SiluMulBackward,
    .gelu_tanh_mul_backward = GeluTanhMulBackward,
    .softmax_lse = SoftmaxLse,
    .exp_minus = ExpMinus,
    .softmax_backward = SoftmaxBackward,
    .transpose = Transpose,
};

}  // namespace

const TrainingKernelTable& ScalarTrainingKernels() { return kTable; }

}  // namespace coterie
