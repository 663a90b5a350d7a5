#pragma once

// Where a training pass keeps things: what the backward pass needs of each layer, and working
// memory that layers share. One buffer, laid out once for a number of rows.

#include <cstdint>
#include <vector>

#include "core/kernels/tensor_type.h"
#include "core/kernels/training_kernels.h"
#include "core/memory/aligned_buffer.h"
#include "experts/arch_spec.h"
#include "experts/linear_delta.h"
#include "lora/trainer.h"

namespace coterie {

// Rows of activations in the precision of the products that read them.
struct ActivationRows {
  void* data = nullptr;
  int64_t n_cols = 0;
  bool is_bf16 = false;

  int64_t value_bytes() const { return is_bf16 ? 2 : 4; }
  // Rounds n values to the row from `col` on.
  void Put(int64_t row, int64_t col, const float* values, int64_t n) const;
  // n values of the row as f32: in place, or in `buffer`.
  const float* Get(int64_t row, int64_t col, int64_t n, float* buffer) const;
  // All rows as a matrix to multiply with.
  MatrixView View(int64_t n_rows) const {
    return {is_bf16 ? TensorType::kBF16 : TensorType::kF32, n_rows, n_cols,
            static_cast<const uint8_t*>(data)};
  }
};

// What the backward pass needs of one layer.
struct LayerTape {
  float* x_mid = nullptr;            // [n_rows, d_model], the stream after attention
  ActivationRows q, k, v;            // [n_rows, d_q], [n_rows, d_kv] twice: as attention reads them
  ActivationRows raw_q, raw_k;       // Before the norms of their heads, where there are norms.
  ActivationRows attended;           // [n_rows, d_q]
  float* lse = nullptr;              // [n_rows, n_heads], log sum exp of the scores
  ActivationRows gate, up;           // [n_rows, d_ff]
  float* raw_o = nullptr;            // [n_rows, d_model], before a norm that comes after it;
  float* raw_down = nullptr;         // null where there is none
  float* h[kLayerLinearCount] = {};  // [n_rows, rank], scale * A x; null where not adapted
};

struct TrainingLayout {
  std::vector<float*> x;         // [n_layers + 1]: the stream before each layer, and after the last
  std::vector<LayerTape> tapes;  // [n_layers]; layers may share theirs, see Recompute

  ActivationRows in;   // [n_rows, max(d_model, d_q)], input of a product
  ActivationRows act;  // [n_rows, d_ff]; room for [n_rows, d_q] where adapters' inputs are dropped
  // Rounded to 8 bits, where products run as served:
  uint8_t* quantized = nullptr;         // [n_rows, widest input]
  uint8_t* quantized_beside = nullptr;  // [n_rows, d_ff], or [n_rows, d_kv] twice
  ActivationRows dgate, dup;            // [n_rows, d_ff]
  ActivationRows dq, dk, dv;            // [n_rows, d_q], [n_rows, d_kv] twice
  float* wide_a = nullptr;              // [n_rows, max(d_ff, 2 d_q)]
  float* wide_b = nullptr;              // [n_rows, max(d_ff, 2 d_q)]
  float* wide_c = nullptr;              // [n_rows, d_q]
  float* wide_d = nullptr;              // [n_rows, d_q]
  float* dx = nullptr;                  // [n_rows, d_model], gradient of the stream
  float* dy = nullptr;                  // [n_rows, d_model]
  float* dh[kLayerLinearCount] = {};    // [n_rows, rank]
  float* turned = nullptr;              // [2 * kLayerLinearCount, rank, n_rows]
  float* cos = nullptr;                 // [n_rows, rope_dims / 2], and those of windowed layers
  float* sin = nullptr;
  float* window_cos = nullptr;
  float* window_sin = nullptr;

  float* logits = nullptr;  // [head_rows, n_vocab]
  float* hidden = nullptr;  // [n_rows, d_model]: of loss rows: the stream, then its gradient
  int64_t head_rows = 0;    // Rows whose logits are held at a time.

  uint8_t* workers = nullptr;  // worker_bytes for each
  int64_t worker_bytes = 0;
};

struct TrainingShape {
  int64_t n_rows = 0;        // Of all sequences of a pass.
  int64_t max_sequence = 0;  // Longest of them.
  int n_workers = 1;
  bool is_bf16 = false;
  bool as_served = false;  // Forward products with quantised weights round inputs to 8 bits.
  bool backward = true;    // Else only likelihoods are wanted.
  Recompute recompute = Recompute::kNone;
  // The first layer that keeps its gate and up until the backward pass; those before it compute
  // them again. 0 with kNone, n_layers with kFull.
  int64_t gates_kept_from = 0;
};

// Lays everything out from `base`, or measures with a null one. Returns the bytes.
int64_t LayOutTraining(const ArchSpec& spec, const TrainerOptions& options,
                       const TrainingShape& shape, uint8_t* base, TrainingLayout& layout);

// Floats that one piece of attention works in: see lora/training_attention.h.
int64_t AttentionFloats(const ArchSpec& spec, int64_t max_sequence);

// Rows that one piece of a row-wise phase takes.
inline constexpr int64_t kTrainingRowsPerPiece = 32;

}  // namespace coterie
