#include "core/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace coterie {

void CheckFailed(const char* file, int line, const char* condition, const char* invariant) {
  std::fprintf(stderr, "%s:%d: broken invariant: %s (%s)\n", file, line, invariant, condition);
  std::abort();
}

}  // namespace coterie
