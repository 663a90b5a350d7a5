// How much memory the kernels ask their callers for. The sizes hold for every instruction set.

#include "core/kernels/kernel_shapes.h"
#include "core/kernels/kernels.h"

namespace coterie {
namespace {

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace

int64_t QuantizedActivations::RowBytes(int64_t n_cols) {
  return RoundUp(n_cols / kActivationBlock * static_cast<int64_t>(sizeof(ActivationBlock)), 64);
}

int64_t QuantizedActivations::Bytes(int64_t n_tokens, int64_t n_cols) {
  return n_tokens * RowBytes(n_cols) + kChunk;
}

QuantizedActivations QuantizedActivations::In(uint8_t* memory, int64_t n_tokens, int64_t n_cols,
                                              int64_t stride) {
  return {n_tokens, n_cols, stride > 0 ? stride : RowBytes(n_cols),
          reinterpret_cast<ActivationBlock*>(memory)};
}

QuantizedActivations QuantizedActivations::Rows(int64_t begin, int64_t end) const {
  return {end - begin, n_cols, stride, At(begin, 0)};
}

int64_t QuantizedActivations::PlaceOf(int64_t block) const {
  return LaneOrder(n_blocks()).Place(block % kChunkBlocks, block / kChunkBlocks);
}

int64_t QuantizedActivations::BlockAt(int64_t place) const {
  const LaneOrder order(n_blocks());
  int64_t lane = 0;
  while (place >= order.Begin(lane + 1)) ++lane;
  return order.ChunkAt(lane, place - order.Begin(lane)) * kChunkBlocks + lane;
}

int64_t NibblePanels::Bytes(int64_t n_rows, int64_t n_cols) {
  return RoundUp(n_rows, kMaxLanes) * (n_cols / 32) * (16 + static_cast<int64_t>(sizeof(uint16_t)));
}

int64_t MatmulScratchBytes(int64_t n_cols) {
  const int64_t padded = RoundUp(n_cols, kChunk);
  const int64_t q8_bytes = kMaxLanes * padded  // Unpacked rows, then the panels.
                           + kMaxPanels * (padded / 32) * PanelBlockBytes(kMaxLanes);
  const int64_t f32_bytes = 2 * kMaxLanes * kF32PanelColumns * static_cast<int64_t>(sizeof(float));
  return (q8_bytes > f32_bytes ? q8_bytes : f32_bytes) + 64;
}

int64_t AttentionScratchFloats(int64_t n_tokens, int64_t n_heads, int64_t head_dim, int64_t n_kv) {
  (void)n_kv;
  const int64_t padded = RoundUp(head_dim, kMaxLanes);
  return 2 * kKeyBlock * padded                 // Keys (by dimension) and values of one block.
         + kQueryGroup * kKeyBlock              // Scores.
         + 2 * RoundUp(n_tokens * n_heads, 16)  // Running maxima and sums.
         + 16;
}

}  // namespace coterie
