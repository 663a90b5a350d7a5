// The "avx2" table. This file has compiler flags of its own: it must not instantiate inline
// functions that other files share, not even of the standard library, or the linker may keep this
// copy.

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include <cfloat>

#include "core/kernels/isa_tables.h"
#include "core/kernels/kernel_shapes.h"
#include "core/kernels/kernels.h"

// The vectors first: everything after is written over them.
// clang-format off
#include "core/kernels/vector_avx2.inl"
#include "core/kernels/block_types.inl"
#include "core/kernels/block_readers_avx2.inl"
#include "core/kernels/block_readers_x86.inl"
#include "core/kernels/dequantize.inl"
#include "core/kernels/vector_math.inl"
#include "core/kernels/elementwise.inl"
#include "core/kernels/panel_q8.inl"
#include "core/kernels/matmul_q8_rows.inl"
#include "core/kernels/matmul_q8.inl"
#include "core/kernels/nibble_panels.inl"
#include "core/kernels/matmul_f32.inl"
#include "core/kernels/low_rank.inl"
#include "core/kernels/attention.inl"
#include "core/kernels/kernel_table.inl"
// clang-format on

namespace coterie {
namespace {

constexpr KernelTable kTable = MakeKernelTable("avx2");

}  // namespace

const KernelTable& Avx2Kernels() { return kTable; }

}  // namespace coterie
