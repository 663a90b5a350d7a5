#include <cstdio>
#include <cstdlib>

#include "core/kernels/cpu_features.h"
#include "core/kernels/isa_tables.h"
#include "core/kernels/kernels.h"

namespace coterie {
namespace {

std::vector<const KernelTable*> FindRunnable() {
  std::vector<const KernelTable*> tables = {&ScalarKernels()};
#if defined(COTERIE_X86_KERNELS)
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
