#pragma once

// The encoder's activations, laid out in one buffer.

#include <cstdint>

#include "core/kernels/kernels.h"
#include "router/encoder.h"

namespace coterie {

// Views into the scratch of one encoder, for up to shape.max_tokens tokens.
struct Encoder::Scratch {
  float* x = nullptr;          // [n_tokens, d_model]: the residual stream.
  float* y = nullptr;          // [n_tokens, d_model]
  float* attended = nullptr;   // [n_tokens, d_model]
  float* qkv = nullptr;        // [n_tokens, 3 * d_model]
  float* hidden = nullptr;     // [n_tokens, d_ff]
  uint16_t* keys = nullptr;    // f16 [n_heads, n_tokens, head_dim]
  uint16_t* values = nullptr;  // f16 [n_heads, n_tokens, head_dim]
  uint8_t* quantized = nullptr;
  uint8_t* workers = nullptr;  // Per worker: scratch of one matmul, then of one attention call.
  int64_t matmul_bytes = 0;
  int64_t worker_bytes = 0;

  uint8_t* matmul_of(int worker) const { return workers + worker * worker_bytes; }
  float* attention_of(int worker) const {
    return reinterpret_cast<float*>(matmul_of(worker) + matmul_bytes);
  }

  // Bytes for n_workers, counted by laying out nothing.
  static int64_t Bytes(const EncoderShape& shape, int64_t n_workers) {
    Scratch s;
    return s.LayOut(nullptr, shape) + n_workers * s.worker_bytes;
  }
  static Scratch In(uint8_t* memory, const EncoderShape& shape) {
    Scratch s;
    s.LayOut(memory, shape);
    return s;
  }

 private:
  static int64_t Aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

  int64_t LayOut(uint8_t* memory, const EncoderShape& shape) {
    int64_t used = 0;
    const auto take = [&](auto*& view, int64_t bytes) {
      // Without memory only the sizes are wanted.
      if (memory != nullptr) view = reinterpret_cast<decltype(view + 0)>(memory + used);
      used += Aligned(bytes);
    };
    const int64_t n = shape.max_tokens, row = shape.d_model * static_cast<int64_t>(sizeof(float));
    take(x, n * row);
    take(y, n * row);
    take(attended, n * row);
    take(qkv, 3 * n * row);
    take(hidden, n * shape.d_ff * static_cast<int64_t>(sizeof(float)));
    take(keys, WholeKeyTiles(n) * row / 2);
    take(values, n * row / 2);
    const int64_t widest = shape.d_model > shape.d_ff ? shape.d_model : shape.d_ff;
    take(quantized, QuantizedActivations::Bytes(n, widest));
    matmul_bytes = Aligned(MatmulScratchBytes(widest));
    worker_bytes = matmul_bytes + Aligned(AttentionScratchFloats(n, 1, shape.head_dim(), n) *
                                          static_cast<int64_t>(sizeof(float)));
    if (memory != nullptr) workers = memory + used;
    return used;
  }
};

}  // namespace coterie
