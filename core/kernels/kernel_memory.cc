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
  constexpr int64_t kBlockBytes = 2 * sizeof(float) + 2 * sizeof(int32_t);
  return RoundUp(n_cols + n_cols / kActivationBlock * kBlockBytes, 64);
}

int64_t QuantizedActivations::Bytes(int64_t n_tokens, int64_t n_cols) {
  return n_tokens * RowBytes(n_cols) + kChunk;
}

QuantizedActivations QuantizedActivations::In(uint8_t* memory, int64_t n_tokens, int64_t n_cols,
                                              int64_t stride) {
  QuantizedActivations out;
  out.n_tokens = n_tokens;
  out.n_cols = n_cols;
  out.stride = stride > 0 ? stride : RowBytes(n_cols);
  out.values = reinterpret_cast<int8_t*>(memory);
  out.PlaceBlocks(memory + n_cols);
  return out;
}

void QuantizedActivations::PlaceBlocks(uint8_t* memory) {
  const int64_t n_blocks = n_cols / kActivationBlock;
  scales = reinterpret_cast<float*>(memory);
  sums = scales + n_blocks;
  offsets = reinterpret_cast<int32_t*>(sums + n_blocks);
  first_offsets = offsets + n_blocks;
}

QuantizedActivations QuantizedActivations::Rows(int64_t begin, int64_t end) const {
  QuantizedActivations rows = *this;
  rows.n_tokens = end - begin;
  rows.values += begin * stride;
  rows.scales = At(scales, begin, 0);
  rows.sums = At(sums, begin, 0);
  rows.offsets = At(offsets, begin, 0);
  rows.first_offsets = At(first_offsets, begin, 0);
  return rows;
}

QuantizedActivations QuantizedActivations::From(int64_t begin) const {
  const int64_t block = begin / kActivationBlock;
  QuantizedActivations rest = *this;
  rest.values += begin;
  rest.scales += block;
  rest.sums += block;
  rest.offsets += block;
  rest.first_offsets += block;
  return rest;
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
