#pragma once

// The compute kernels and their choice at run time. Kernels are pure functions of spans and shapes:
// no allocation, no globals, no errors, thread-safe; callers split rows over the worker pool and
// give scratch (64-byte aligned, one per thread). All matrices are row-major; activations are f32
// [n_tokens, n_features] with a stride in values. NaN and Inf among the weights of a row reach the
// results of that row only.

#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"

#include "core/kernels/tensor_type.h"

namespace coterie {

inline constexpr int kActivationBlock = 32;

// A block of 32 activations rounded to 8 bits, x ~ scale * value with values in [-127, 127], and
// sums of it, for weight types with a minimum or an offset.
struct ActivationBlock {
  int8_t values[kActivationBlock];
  float scale;
  float sum;  // scale * sum(values)
  // Minus sum(values) of the block and of its first half: times the offset of a weight type, what
  // its dot products begin with.
  int32_t offset;
  int32_t first_offset;
};

// Activations [n_tokens, n_cols] rounded to 8 bits, with a scale per token and block of 32 columns.
// A view; Bytes() says how much memory backs it.
//
// Sums of products run over eight lanes (block mod 8), and the blocks of a token lie lane after
// lane, so that what a lane reads is one stream: of each lane first the block of a last chunk of
// fewer than eight blocks, if it has one there, then those of whole chunks in rising order.
struct QuantizedActivations {
  int64_t n_tokens = 0;
  int64_t n_cols = 0;  // A multiple of 32.
  int64_t stride = 0;  // Bytes from a token to the next; a multiple of 4.
  ActivationBlock* blocks = nullptr;

  // Of one token.
  static int64_t RowBytes(int64_t n_cols);
  // Of all, and the slack behind them that kernels may read (and ignore).
  static int64_t Bytes(int64_t n_tokens, int64_t n_cols);
  // Lays them out in `memory` (64-byte aligned, at least Bytes()), or, with a stride of at least
  // RowBytes(), among what else is there.
  static QuantizedActivations In(uint8_t* memory, int64_t n_tokens, int64_t n_cols,
                                 int64_t stride = 0);
  // Those of tokens [begin, end).
  QuantizedActivations Rows(int64_t begin, int64_t end) const;

  int64_t n_blocks() const { return n_cols / kActivationBlock; }
  // Where among a token's blocks that of columns from 32 * block on lies ...
  int64_t PlaceOf(int64_t block) const;
  // ... and which block lies there.
  int64_t BlockAt(int64_t place) const;
  ActivationBlock* At(int64_t token, int64_t place) const {
    return reinterpret_cast<ActivationBlock*>(reinterpret_cast<uint8_t*>(blocks) + token * stride) +
           place;
  }
};

// Weights [n_rows, n_cols] in 4 bits, in an order that each KernelTable has for itself. A view;
// Bytes() says how much memory backs it.
struct NibblePanels {
  int64_t n_rows = 0;
  int64_t n_cols = 0;  // A multiple of 32.
  uint8_t* data = nullptr;

  static int64_t Bytes(int64_t n_rows, int64_t n_cols);
};

// How far a row x lies from its rounded self q, and how long it is, in a weighted Euclidean norm.
struct RowRounding {
  float error = 0;  // sqrt(sum_c (metric[c] * (x[c] - q[c]))^2)
  float norm = 0;   // sqrt(sum_c (metric[c] * x[c])^2)
};

// Keys of a KV head lie in tiles of kKeyTile, turned: [n_kv / kKeyTile][head_dim][kKeyTile], so
// that attention reads the same dimension of neighbouring keys side by side, and a tile as one
// stream. Memory for them is a whole number of tiles.
inline constexpr int64_t kKeyTile = 64;
constexpr int64_t WholeKeyTiles(int64_t n_keys) {
  return (n_keys + kKeyTile - 1) / kKeyTile * kKeyTile;
}

// One KV head and the query heads that share it, for a run of tokens of one sequence.
struct AttentionArgs {
  const float* q = nullptr;  // q[t * q_stride + h * head_dim + i]
  int64_t q_stride = 0;
  int64_t n_tokens = 0;
  int64_t n_heads = 0;  // Query heads that read this KV head.
  int64_t head_dim = 0;
  const uint16_t* k = nullptr;  // f16, in tiles
  const uint16_t* v = nullptr;  // f16 [n_kv, head_dim], contiguous
  int64_t n_kv = 0;
  int64_t first_position = 0;  // Token t stands at first_position + t and sees keys up to itself,
  bool causal = true;          // or, if not causal, all n_kv keys.
  int64_t window = 0;          // > 0: only the last `window` keys, itself included.
  float scale = 1.0f;          // Multiplies q . k.
  float* out = nullptr;        // out[t * out_stride + h * head_dim + i]
  int64_t out_stride = 0;
  float* scratch = nullptr;  // AttentionScratchFloats() floats
};

// Scratch of one attention call, in floats.
int64_t AttentionScratchFloats(int64_t n_tokens, int64_t n_heads, int64_t head_dim, int64_t n_kv);

// Scratch of one matmul call (a panel of unpacked weight rows), in bytes, for any type and shape
// with this many columns.
int64_t MatmulScratchBytes(int64_t n_cols);

// Callers give matmuls ranges of rows; ranges that begin at a multiple of this are fastest.
inline constexpr int64_t kMatmulRowAlign = 16;

// The kernels of one instruction set. Every function gives bit for bit the same result for one
// token as for the same token in a batch of any size, and the matmuls for any split of the rows.
// Only dequantize_row promises equal bits across instruction sets. Error bounds are held by
// tests/core/kernels.
struct KernelTable {
  absl::string_view isa;  // "scalar", "avx2", "avx512-vnni"

  // src: n_values of `type`, a whole number of blocks. Bit-equal on every ISA and to
  // gguf.quants.dequantize of PyPI `gguf`.
  void (*dequantize_row)(TensorType type, const uint8_t* src, int64_t n_values, float* dst);

  // Rounds x [out.n_tokens, out.n_cols] to 8 bits, to the nearest of 255 steps per block of 32.
  // What is not finite becomes 0, and so does a block that is below 1e-30 throughout.
  void (*quantize_activations)(const float* x, int64_t x_stride, const QuantizedActivations& out);

  // y[t * y_stride + r] = sum_c w[r, c] * x[t, c] for row_begin <= r < row_end, with 8-bit
  // activations and integer dot products. w is of a quantised type (any but F32, F16, BF16) with
  // w.n_cols == x.n_cols. Up to 8 tokens read the rows in place, one after another; more unpack
  // panels of rows. Both use scratch (MatmulScratchBytes).
  //   Error  3e-6 * sum_c |w x| against exact arithmetic on the rounded activations.
  void (*matmul_q8)(const MatrixView& w, int64_t row_begin, int64_t row_end,
                    const QuantizedActivations& x, float* y, int64_t y_stride, uint8_t* scratch);

  // The same of one token and of the n_rows rows listed: y[i] is, bit for bit, what matmul_q8 gives
  // for rows[i].
  void (*matmul_q8_rows)(const MatrixView& w, const int32_t* rows, int64_t n_rows,
                         const QuantizedActivations& x, float* y, uint8_t* scratch);

  // Rounds x [n_cols] to a row of 4 bits, in blocks of 32 columns with an f16 scale as Q4_0 has
  // them: each value to the nearest of 16 steps. Measures what that changed, column c weighed by
  // metric[c]: relative error 1e-4, and NaN or infinite where x is not finite. Rows of one whole
  // group of kMatmulRowAlign are not rounded by two threads at a time.
  RowRounding (*round_to_nibbles)(const float* x, const float* metric, int64_t row,
                                  const NibblePanels& panels);
  // As matmul_q8 of one token, with such rows; row_begin is a multiple of kMatmulRowAlign.
  void (*multiply_nibbles)(const NibblePanels& panels, int64_t row_begin, int64_t row_end,
                           const QuantizedActivations& x, float* y);

  // matmul_q8 with f32 activations x [n_tokens, w.n_cols] and any type of w.
  //   Error  3e-6 * sum_c |w x|.
  void (*matmul_f32)(const MatrixView& w, int64_t row_begin, int64_t row_end, const float* x,
                     int64_t n_tokens, int64_t x_stride, float* y, int64_t y_stride,
                     uint8_t* scratch);

  // The two halves of a low-rank product y += scale * B (A x), with f32 activations. a: A, F16
  // [rank, n_cols]; u[t * u_stride + r] = scale * sum_c a[r, c] * x[t, c].
  //   Error  3e-6 * scale * sum_c |a x|.
  void (*low_rank_narrow)(const MatrixView& a, const float* x, int64_t n_tokens, int64_t x_stride,
                          float scale, float* u, int64_t u_stride);
  // b: B transposed, F16 [rank, n_out]; y[t * y_stride + r] += sum_k b[k, r] * u[t, k] for
  // row_begin <= r < row_end.
  //   Error  1e-6 * (|y| + sum_k |b u|).
  void (*low_rank_widen)(const MatrixView& b, int64_t row_begin, int64_t row_end, const float* u,
                         int64_t n_tokens, int64_t u_stride, float* y, int64_t y_stride);

  // y = x / sqrt(mean(x^2) + epsilon) * weight, one row of n.
  void (*rms_norm)(const float* x, const float* weight, int64_t n, float epsilon, float* y);

  // y = (x - mean) / sqrt(var + epsilon) * weight + bias, one row of n.
  void (*layer_norm)(const float* x, const float* weight, const float* bias, int64_t n,
                     float epsilon, float* y);

  // Softmax in place; n >= 1. -Inf becomes 0. Relative error 3e-6.
  void (*softmax)(float* x, int64_t n);

  // y = silu(gate) * up, elementwise. Relative error 1e-6.
  void (*silu_mul)(const float* gate, const float* up, int64_t n, float* y);

  // y = gelu(x), the exact form with erf (BERT). In place allowed. Error 1e-6 relative + 2e-6.
  void (*gelu_erf)(const float* x, int64_t n, float* y);

  // y = gelu_tanh(gate) * up (Gemma). Error 5e-6 relative + 1e-6.
  void (*gelu_tanh_mul)(const float* gate, const float* up, int64_t n, float* y);

  // y += x.
  void (*add)(const float* x, int64_t n, float* y);

  // Rotates the first 2 * n_pairs values of one head in place by angles given as cos and sin
  // [n_pairs]: adjacent pairs (2i, 2i + 1), the GGUF "NORM" order of llama files ...
  void (*rope_adjacent)(float* x, int64_t n_pairs, const float* cos, const float* sin);
  // ... or halves (i, i + n_pairs), the "NEOX" order of qwen2 and gemma.
  void (*rope_halves)(float* x, int64_t n_pairs, const float* cos, const float* sin);

  // Rounds to f16, to nearest even.
  void (*f32_to_f16)(const float* x, int64_t n, uint16_t* y);

  // Rounds a key to f16, to nearest even, and puts it at `position` among others.
  void (*put_key)(const float* key, int64_t head_dim, int64_t position, uint16_t* keys);

  // Softmax(q k^T * scale + mask) v with an online softmax in f32. Keys and values are read once a
  // call, whatever the number of tokens and heads. A token that sees no key gives zeros.
  // All n_kv keys and values must be finite, those that a token does not see included.
  void (*attend)(const AttentionArgs& args);
};

// The table in use: the best the CPU can run, or the one that COTERIE_ISA names (scalar, avx2,
// avx512-vnni) if the CPU can run it; an unknown or unusable name is reported on stderr once and
// ignored. Chosen once per process.
const KernelTable& Kernels();

// All tables this CPU can run, slowest first: tests run on every one.
const std::vector<const KernelTable*>& RunnableKernels();

}  // namespace coterie
