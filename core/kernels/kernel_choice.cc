#include <cstdio>
#include <cstdlib>

#include "core/kernels/isa_tables.h"
#include "core/kernels/kernels.h"

#if defined(COTERIE_X86_KERNELS)
#include <cpuid.h>
#endif

namespace coterie {
namespace {

#if defined(COTERIE_X86_KERNELS)
// clang 14 does not know this name in __builtin_cpu_supports.
bool HasF16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

bool CanRunAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && HasF16c();
}

bool CanRunAvx512() {
  return CanRunAvx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}
#endif

std::vector<const KernelTable*> FindRunnable() {
  std::vector<const KernelTable*> tables = {&ScalarKernels()};
#if defined(COTERIE_X86_KERNELS)
  __builtin_cpu_init();
  if (CanRunAvx2()) tables.push_back(&Avx2Kernels());
  if (CanRunAvx512()) tables.push_back(&Avx512Kernels());
#endif
  return tables;
}

const KernelTable& Choose() {
  const std::vector<const KernelTable*>& tables = RunnableKernels();
  const char* wanted = std::getenv("COTERIE_ISA");
  if (wanted == nullptr || *wanted == '\0') return *tables.back();
  for (const KernelTable* table : tables) {
    if (table->isa == wanted) return *table;
  }
  std::fprintf(stderr, "coterie: this CPU cannot run COTERIE_ISA=%s; using %.*s\n", wanted,
               static_cast<int>(tables.back()->isa.size()), tables.back()->isa.data());
  return *tables.back();
}

}  // namespace

const KernelTable& Kernels() {
  static const KernelTable& chosen = Choose();
  return chosen;
}

const std::vector<const KernelTable*>& RunnableKernels() {
  static const auto* const tables = new std::vector<const KernelTable*>(FindRunnable());
  return *tables;
}

}  // namespace coterie
