#pragma once

// Block sizes shared by the kernels of all instruction sets and by what sizes their scratch. Only
// whole numbers: everything here is also compiled with wider instruction sets than the rest.

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

// The order of blocks within a lane (block mod 8) of a sum: first that of a last chunk of fewer
// than eight blocks, if the lane has one there, then those of whole chunks in rising order.
struct LaneOrder {
  constexpr explicit LaneOrder(int64_t n_blocks)
      : n_whole(n_blocks / kChunkBlocks), n_last(n_blocks % kChunkBlocks) {}

  constexpr bool HasLast(int64_t lane) const { return lane < n_last; }
  constexpr int64_t Length(int64_t lane) const { return n_whole + HasLast(lane); }
  // Blocks of the lanes before.
  constexpr int64_t Begin(int64_t lane) const {
    return lane * n_whole + (lane < n_last ? lane : n_last);
  }
  // As the how manieth of a lane its block of a chunk comes, and which chunk's comes there.
  constexpr int64_t Step(int64_t lane, int64_t chunk) const {
    return chunk == n_whole ? 0 : chunk + HasLast(lane);
  }
  // Where the block of a lane and chunk lies among all.
  constexpr int64_t Place(int64_t lane, int64_t chunk) const {
    return Begin(lane) + Step(lane, chunk);
  }
  constexpr int64_t ChunkAt(int64_t lane, int64_t step) const {
    return !HasLast(lane) ? step : step == 0 ? n_whole : step - 1;
  }

  int64_t n_whole;  // Chunks.
  int64_t n_last;   // Blocks of the last chunk, if it is not whole; else 0.
};

// At most one block of 32 columns of a panel of n_lanes unpacked rows: the bytes, then two of
// scale, minimum and scale of second halves for each row.
constexpr int64_t PanelBlockBytes(int64_t n_lanes) { return n_lanes * 32 + n_lanes * 4 * 2; }

}  // namespace coterie
