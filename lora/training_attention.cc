#include "lora/training_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/kernels/kernels.h"

namespace coterie {
namespace {

constexpr int64_t kTile = 64;

// A head's rows as contiguous f32 and room for two tiles of scores.
struct Buffers {
  Buffers(const AttentionHead& head, int64_t head_dim)
      : products(head.scratch),
        q(reinterpret_cast<float*>(head.scratch + TrainingScratchBytes())),
        k(q + head.n_tokens * head_dim),
        v(k + head.n_tokens * head_dim),
        dout(v + head.n_tokens * head_dim),
        shift(dout + head.n_tokens * head_dim),
        pull(shift + head.n_tokens),
        scores(pull + head.n_tokens),
        dscores(scores + kTile * head.n_tokens),
        turned(dscores + kTile * head.n_tokens) {}

  uint8_t* products;
  float* q;        // [n_tokens, head_dim], times the query scale
  float* k;        // [n_tokens, head_dim]
  float* v;        // [n_tokens, head_dim]
  float* dout;     // [n_tokens, head_dim]
  float* shift;    // [n_tokens]
  float* pull;     // [n_tokens]
  float* scores;   // [kTile, n_tokens]
  float* dscores;  // [kTile, n_tokens]
  float* turned;   // [n_tokens, kTile]
};

void Gather(const ActivationRows& rows, const AttentionHead& head, int64_t col, int64_t head_dim,
            float* to) {
  for (int64_t t = 0; t < head.n_tokens; ++t) {
    float* row = to + t * head_dim;
    const float* from = rows.Get(head.first_row + t, col, head_dim, row);
    if (from != row) std::memcpy(row, from, static_cast<size_t>(head_dim) * sizeof(float));
  }
}

MatrixView Matrix(const float* data, int64_t n_rows, int64_t n_cols) {
  return {TensorType::kF32, n_rows, n_cols, reinterpret_cast<const uint8_t*>(data)};
}

// The first key that token t sees.
int64_t FirstKey(const AttentionHead& head, int64_t t) {
  return head.spec->IsWindowed(head.layer) ? std::max<int64_t>(0, t - head.spec->window + 1) : 0;
}

// One past the last token that sees key k.
int64_t EndOfSight(const AttentionHead& head, int64_t k) {
  return head.spec->IsWindowed(head.layer) ? std::min(head.n_tokens, k + head.spec->window)
                                           : head.n_tokens;
}

void GatherInputs(const AttentionHead& head, const LayerTape& tape, const Buffers& at) {
  const int64_t head_dim = head.spec->head_dim;
  const int64_t kv_head = head.head / (head.spec->n_heads / head.spec->n_kv_heads);
  Gather(tape.q, head, head.head * head_dim, head_dim, at.q);
  Gather(tape.k, head, kv_head * head_dim, head_dim, at.k);
  Gather(tape.v, head, kv_head * head_dim, head_dim, at.v);
  for (int64_t i = 0; i < head.n_tokens * head_dim; ++i) at.q[i] *= head.spec->query_scale;
}

}  // namespace

int64_t AttentionFloats(const ArchSpec& spec, int64_t max_sequence) {
  return max_sequence * (4 * spec.head_dim + 2 + 3 * kTile) + 64;
}

void AttendForward(const AttentionHead& head, const LayerTape& tape) {
  const TrainingKernelTable& kernels = TrainingKernels();
  const int64_t head_dim = head.spec->head_dim, n = head.n_tokens;
  const Buffers at(head, head_dim);
  GatherInputs(head, tape, at);
  for (int64_t t0 = 0; t0 < n; t0 += kTile) {
    const int64_t n_queries = std::min(kTile, n - t0);
    const int64_t first = FirstKey(head, t0) / kTile * kTile;
    const int64_t n_keys = t0 + n_queries - first;
    kernels.forward_f32(Matrix(at.k + first * head_dim, n_keys, head_dim), 0, n_keys,
                        {at.q + t0 * head_dim, n_queries, head_dim}, {at.scores, n_keys, false},
                        at.products);
    for (int64_t t = 0; t < n_queries; ++t) {
      float* row = at.scores + t * n_keys;
      const int64_t begin = FirstKey(head, t0 + t) - first;
      const int64_t end = t0 + t + 1 - first;
      std::fill(row, row + begin, 0.0f);
      std::fill(row + end, row + n_keys, 0.0f);
      tape.lse[(head.first_row + t0 + t) * head.spec->n_heads + head.head] =
          kernels.softmax_lse(row + begin, end - begin);
    }
    float* out = at.dout;  // Not used for gradients here.
    kernels.backward_f32(Matrix(at.v + first * head_dim, n_keys, head_dim), 0, head_dim,
                         {at.scores, n_queries, n_keys}, {out, head_dim, false}, at.products);
    for (int64_t t = 0; t < n_queries; ++t) {
      tape.attended.Put(head.first_row + t0 + t, head.head * head_dim, out + t * head_dim,
                        head_dim);
    }
  }
}

void AttendBackward(const AttentionHead& head, const LayerTape& tape, const float* d_attended,
                    float* dq, float* dk, float* dv) {
  const TrainingKernelTable& kernels = TrainingKernels();
  const int64_t head_dim = head.spec->head_dim, n = head.n_tokens, d_q = head.spec->d_q();
  const Buffers at(head, head_dim);
  GatherInputs(head, tape, at);
  const int64_t col = head.head * head_dim;
  const int64_t origin = head.first_row * d_q + col;
  for (int64_t t = 0; t < n; ++t) {
    const int64_t row = head.first_row + t;
    float* dout = at.dout + t * head_dim;
    std::memcpy(dout, d_attended + row * d_q + col, static_cast<size_t>(head_dim) * sizeof(float));
    const float* out = tape.attended.Get(row, col, head_dim, at.turned);
    float pull = 0;
    for (int64_t i = 0; i < head_dim; ++i) pull += dout[i] * out[i];
    at.pull[t] = pull;
    at.shift[t] = tape.lse[row * head.spec->n_heads + head.head];
    std::memset(dq + origin + t * d_q, 0, static_cast<size_t>(head_dim) * sizeof(float));
  }
  for (int64_t k0 = 0; k0 < n; k0 += kTile) {
    const int64_t n_keys = std::min(kTile, n - k0);
    const int64_t n_queries = EndOfSight(head, k0 + n_keys - 1) - k0;
    const MatrixView queries = Matrix(at.q + k0 * head_dim, n_queries, head_dim);
    const MatrixView douts = Matrix(at.dout + k0 * head_dim, n_queries, head_dim);
    // Scores and all that follows stand here with a row for each key.
    kernels.forward_f32(queries, 0, n_queries, {at.k + k0 * head_dim, n_keys, head_dim},
                        {at.scores, n_queries, false}, at.products);
    kernels.forward_f32(douts, 0, n_queries, {at.v + k0 * head_dim, n_keys, head_dim},
                        {at.dscores, n_queries, false}, at.products);
    for (int64_t k = 0; k < n_keys; ++k) {
      float* p = at.scores + k * n_queries;
      const int64_t end = EndOfSight(head, k0 + k) - k0;
      kernels.exp_minus(p + k, at.shift + k0 + k, end - k, p + k);
      std::fill(p, p + k, 0.0f);
      std::fill(p + end, p + n_queries, 0.0f);
      float* ds = at.dscores + k * n_queries;
      kernels.softmax_backward(p, ds, at.pull + k0, n_queries, ds);
    }
    kernels.backward_f32(douts, 0, head_dim, {at.scores, n_keys, n_queries},
                         {dv + origin + k0 * d_q, d_q, false}, at.products);
    kernels.backward_f32(queries, 0, head_dim, {at.dscores, n_keys, n_queries},
                         {dk + origin + k0 * d_q, d_q, false}, at.products);
    kernels.transpose(at.dscores, n_keys, n_queries, n_queries, at.turned, n_keys);
    kernels.backward_f32(Matrix(at.k + k0 * head_dim, n_keys, head_dim), 0, head_dim,
                         {at.turned, n_queries, n_keys}, {dq + origin + k0 * d_q, d_q, true},
                         at.products);
  }
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t i = 0; i < head_dim; ++i) dq[origin + t * d_q + i] *= head.spec->query_scale;
  }
}

}  // namespace coterie
