#pragma once

// Four floats in one register on every CPU, for loops outside the kernels: a fixed width keeps sums
// in one order everywhere. Comparisons give 0 or -1 per lane; `mask ? a : b` chooses by lane.

#include <cstdint>
#include <cstring>

namespace coterie {

using Lanes = float __attribute__((vector_size(16)));
using IntLanes = int32_t __attribute__((vector_size(16)));
inline constexpr int kLaneCount = 4;

inline Lanes LoadLanes(const float* x) {
  Lanes lanes;
  std::memcpy(&lanes, x, sizeof(lanes));
  return lanes;
}

}  // namespace coterie
