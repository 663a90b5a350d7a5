#pragma once

// Block sizes shared by the kernels of all instruction sets and by what sizes their scratch. Only
// constants: everything here is also compiled with wider instruction sets than the rest.

#include <cstdint>

namespace coterie {

inline constexpr int kChunk = 256;            // Values read from a weight row at a time.
inline constexpr int kChunkBlocks = 8;        // Blocks of 32 in a chunk: the lanes of a sum.
inline constexpr int kMaxPanels = 2;          // Panels of the 8-bit product at a time.
inline constexpr int kMaxLanes = 16;          // Floats in the widest vector.
inline constexpr int kF32PanelColumns = 512;  // Columns of a dequantised panel.
inline constexpr int kKeyBlock = 64;          // Keys per step of the online softmax.
inline constexpr int kQueryTile = 6;          // Query rows per tile of attention ...
inline constexpr int kQueryGroup = 24;        // ... and of tiles that take in a block together.

constexpr int Log2(int power) { return power <= 1 ? 0 : 1 + Log2(power / 2); }

// At most one block of 32 columns of a panel of n_lanes unpacked rows: the bytes, then two of
// scale, minimum and scale of second halves for each row.
constexpr int64_t PanelBlockBytes(int64_t n_lanes) { return n_lanes * 32 + n_lanes * 4 * 2; }

}  // namespace coterie
