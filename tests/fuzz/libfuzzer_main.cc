// The entry of libFuzzer for the target that COTERIE_FUZZ_TARGET names.

#include <algorithm>
#include <cstring>

#include "core/base/check.h"
#include "tests/fuzz/targets.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto* const target = [] {
    for (const auto& known : coterie::testing::FuzzTargets()) {
      if (std::strcmp(known.name, COTERIE_FUZZ_TARGET) == 0) return &known;
    }
    COTERIE_CHECK(false, "the program is built for a target that exists");
    return static_cast<const coterie::testing::FuzzTarget*>(nullptr);
  }();
  target->run({reinterpret_cast<const char*>(data), size});
  return 0;
}
