#pragma once

// The tables behind Kernels(), one per instruction set. Each is compiled in its own source file
// with its own compiler flags: call into a table only after the CPU was asked.

#include "core/kernels/kernels.h"

namespace coterie {

const KernelTable& ScalarKernels();  // "scalar": portable C++.
#if defined(COTERIE_X86_KERNELS)
const KernelTable& Avx2Kernels();    // "avx2": AVX2, FMA, F16C.
const KernelTable& Avx512Kernels();  // "avx512-vnni": AVX-512 F, BW, DQ, VL, VNNI.
#endif

}  // namespace coterie
