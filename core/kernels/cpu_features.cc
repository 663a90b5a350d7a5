#include "core/kernels/cpu_features.h"

#if defined(COTERIE_X86_KERNELS)
#include <cpuid.h>
#endif

namespace coterie {

#if defined(COTERIE_X86_KERNELS)

namespace {

// clang 14 does not know these names in __builtin_cpu_supports.
bool HasF16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

bool HasAvx512BF16() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & (1u << 5)) != 0;
}

}  // namespace

bool CanRunAvx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && HasF16c();
}

bool CanRunAvx512() {
  return CanRunAvx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

bool CanRunAvx512BF16() { return CanRunAvx512() && HasAvx512BF16(); }

#else

bool CanRunAvx2() { return false; }
bool CanRunAvx512() { return false; }
bool CanRunAvx512BF16() { return false; }

#endif

}  // namespace coterie
