// How much memory the kernels ask their callers for. The sizes hold for every instruction set.

#include "core/kernels/kernel_shapes.h"
#include "core/kernels/kernels.h"

namespace coterie {
namespace {

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace

int64_t QuantizedActivations::Bytes(int64_t n_tokens, int64_t n_cols) {
  const int64_t floats = n_cols / 32 + n_cols / 16;
  return RoundUp(n_tokens * (n_cols + floats * static_cast<int64_t>(sizeof(float))), 64) + kChunk;
}

QuantizedActivations QuantizedActivations::In(uint8_t* memory, int64_t n_tokens, int64_t n_cols) {
  QuantizedActivations out;
  out.n_tokens = n_tokens;
  out.n_cols = n_cols;
  out.values = reinterpret_cast<int8_t*>(memory);
  out.scales = reinterpret_cast<float*>(memory + n_tokens * n_cols);
  out.sums = out.scales + n_tokens * (n_cols / 32);
  return out;
}

QuantizedActivations QuantizedActivations::Rows(int64_t begin, int64_t end) const {
  QuantizedActivations rows = *this;
  rows.n_tokens = end - begin;
  rows.values += begin * n_cols;
  rows.scales += begin * (n_cols / kActivationBlock);
  rows.sums += begin * (n_cols / (kActivationBlock / 2));
  return rows;
}

int64_t MatmulScratchBytes(int64_t n_cols) {
  const int64_t padded = RoundUp(n_cols, kChunk);
  const int64_t q8_bytes = kMaxLanes * padded                                // Unpacked rows,
                           + padded / 32 * PanelBlockBytes(kMaxLanes, true)  // then the panel,
                           + kTokenTile * padded / 32 * 4;                   // then sums of a tile.
  const int64_t f32_bytes = 2 * kMaxLanes * kF32PanelColumns * static_cast<int64_t>(sizeof(float));
  return (q8_bytes > f32_bytes ? q8_bytes : f32_bytes) + 64;
}

int64_t AttentionScratchFloats(int64_t n_tokens, int64_t n_heads, int64_t head_dim, int64_t n_kv) {
  (void)n_kv;
  const int64_t padded = RoundUp(head_dim, kMaxLanes);
  return 2 * kKeyBlock * padded                 // Keys (by dimension) and values of one block.
         + kMaxLanes * padded                   // Keys on their way to being transposed.
         + kQueryTile * kKeyBlock               // Scores.
         + 2 * RoundUp(n_tokens * n_heads, 16)  // Running maxima and sums.
         + 16;
}

}  // namespace coterie
