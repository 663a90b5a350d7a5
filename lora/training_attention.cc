#include "lora/training_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "core/kernels/kernels.h"

namespace coterie {
namespace {

constexpr int64_t kTile = 64;

// Products in bf16 sum over pairs.
constexpr int64_t Even(int64_t n) { return (n + 1) / 2 * 2; }

// The products of one head in one precision: Value is float, or uint16_t for bf16. Matrices of
// values may have a row of zeros more than they have tokens, so that what is summed over is even.
template <typename Value>
struct HeadProducts {
  static constexpr bool kIsBF16 = std::is_same_v<Value, uint16_t>;

  const TrainingKernelTable& kernels = TrainingKernels();
  uint8_t* scratch;

  static MatrixView Matrix(const Value* data, int64_t n_rows, int64_t n_cols) {
    return {kIsBF16 ? TensorType::kBF16 : TensorType::kF32, n_rows, n_cols,
            reinterpret_cast<const uint8_t*>(data)};
  }

  // y [n_tokens, w.n_rows] = x w^T.
  void TimesRows(const MatrixView& w, const Value* x, int64_t n_tokens, float* y,
                 int64_t y_stride) const {
    const ProductInput<Value> in{x, n_tokens, w.n_cols};
    if constexpr (kIsBF16) {
      kernels.forward_bf16(w, 0, w.n_rows, in, {y, y_stride, false}, scratch);
    } else {
      kernels.forward_f32(w, 0, w.n_rows, in, {y, y_stride, false}, scratch);
    }
  }
  // y [n_tokens, w.n_cols] = x w, with x_stride values between rows of x.
  void TimesColumns(const MatrixView& w, const Value* x, int64_t n_tokens, int64_t x_stride,
                    const ProductOutput& y) const {
    const ProductInput<Value> in{x, n_tokens, x_stride};
    if constexpr (kIsBF16) {
      kernels.backward_bf16(w, 0, w.n_cols, in, y, scratch);
    } else {
      kernels.backward_f32(w, 0, w.n_cols, in, y, scratch);
    }
  }
  // Rounds in place; rows keep their stride in bytes.
  const Value* Round(float* x, int64_t n) const {
    if constexpr (kIsBF16) kernels.f32_to_bf16(x, n, reinterpret_cast<uint16_t*>(x));
    return reinterpret_cast<const Value*>(x);
  }
};

// A head's rows as contiguous values and room for two tiles of scores.
template <typename Value>
struct Buffers {
  Buffers(const AttentionHead& head, int64_t head_dim)
      : n_padded(Even(head.n_tokens)),
        floats(reinterpret_cast<float*>(head.scratch + TrainingScratchBytes())),
        q(Take<Value>(n_padded * head_dim)),
        k(Take<Value>(n_padded * head_dim)),
        v(Take<Value>(n_padded * head_dim)),
        dout(Take<Value>(n_padded * head_dim)),
        shift(Take<float>(head.n_tokens)),
        pull(Take<float>(head.n_tokens)),
        scores(Take<float>(kTile * n_padded)),
        dscores(Take<float>(kTile * n_padded)),
        turned(Take<float>(n_padded * kTile)),
        out(turned) {}

  template <typename T>
  T* Take(int64_t n) {
    T* taken = reinterpret_cast<T*>(floats);
    floats += n;
    return taken;
  }

  int64_t n_padded;
  float* floats;   // The next that are free.
  Value* q;        // [n_padded, head_dim], times the query scale; as the following, 0 at the end
  Value* k;        // [n_padded, head_dim]
  Value* v;        // [n_padded, head_dim]
  Value* dout;     // [n_padded, head_dim]
  float* shift;    // [n_tokens]
  float* pull;     // [n_tokens]
  float* scores;   // [kTile, n_padded]
  float* dscores;  // [kTile, n_padded]
  float* turned;   // [n_padded, kTile]
  float* out;      // [kTile, head_dim]; not beside turned
};

// Copies columns of a head, times `scale`, and pads them.
template <typename Value>
void Gather(const ActivationRows& rows, const AttentionHead& head, int64_t col, float scale,
            Value* to) {
  const int64_t head_dim = head.spec->head_dim;
  const HeadProducts<Value> products{.scratch = nullptr};
  float buffer[ArchSpec::kMaxHeadDim];
  for (int64_t t = 0; t < head.n_tokens; ++t) {
    const int64_t at = (head.first_row + t) * rows.n_cols + col;
    Value* row = to + t * head_dim;
    if (scale == 1) {
      std::memcpy(row, static_cast<const Value*>(rows.data) + at,
                  static_cast<size_t>(head_dim) * sizeof(Value));
      continue;
    }
    const float* from = rows.Get(head.first_row + t, col, head_dim, buffer);
    for (int64_t i = 0; i < head_dim; ++i) buffer[i] = from[i] * scale;
    std::memcpy(row, products.Round(buffer, head_dim),
                static_cast<size_t>(head_dim) * sizeof(Value));
  }
  std::fill(to + head.n_tokens * head_dim, to + Even(head.n_tokens) * head_dim, Value{0});
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

template <typename Value>
void GatherInputs(const AttentionHead& head, const LayerTape& tape, const Buffers<Value>& at) {
  const int64_t head_dim = head.spec->head_dim;
  const int64_t kv_head = head.head / (head.spec->n_heads / head.spec->n_kv_heads);
  Gather(tape.q, head, head.head * head_dim, head.spec->query_scale, at.q);
  Gather(tape.k, head, kv_head * head_dim, 1, at.k);
  Gather(tape.v, head, kv_head * head_dim, 1, at.v);
}

template <typename Value>
void Forward(const AttentionHead& head, const LayerTape& tape) {
  const int64_t head_dim = head.spec->head_dim, n = head.n_tokens;
  const Buffers<Value> at(head, head_dim);
  const HeadProducts<Value> products{.scratch = head.scratch};
  constexpr int64_t kPerFloat = sizeof(float) / sizeof(Value);
  GatherInputs(head, tape, at);
  for (int64_t t0 = 0; t0 < n; t0 += kTile) {
    const int64_t n_queries = std::min(kTile, n - t0);
    const int64_t first = FirstKey(head, t0) / kTile * kTile;
    const int64_t n_keys = Even(t0 + n_queries - first);
    products.TimesRows(products.Matrix(at.k + first * head_dim, n_keys, head_dim),
                       at.q + t0 * head_dim, n_queries, at.scores, n_keys);
    for (int64_t t = 0; t < n_queries; ++t) {
      float* row = at.scores + t * n_keys;
      const int64_t begin = FirstKey(head, t0 + t) - first;
      const int64_t end = t0 + t + 1 - first;
      std::fill(row, row + begin, 0.0f);
      std::fill(row + end, row + n_keys, 0.0f);
      tape.lse[(head.first_row + t0 + t) * head.spec->n_heads + head.head] =
          products.kernels.softmax_lse(row + begin, end - begin);
      products.Round(row, n_keys);
    }
    products.TimesColumns(products.Matrix(at.v + first * head_dim, n_keys, head_dim),
                          reinterpret_cast<const Value*>(at.scores), n_queries, kPerFloat * n_keys,
                          {at.out, head_dim, false});
    for (int64_t t = 0; t < n_queries; ++t) {
      tape.attended.Put(head.first_row + t0 + t, head.head * head_dim, at.out + t * head_dim,
                        head_dim);
    }
  }
}

// Copies the gradient of what was attended, and finds what the softmax subtracts from its own.
template <typename Value>
void GatherGradients(const AttentionHead& head, const LayerTape& tape, const float* d_attended,
                     const Buffers<Value>& at) {
  const int64_t head_dim = head.spec->head_dim, d_q = head.spec->d_q();
  const int64_t col = head.head * head_dim;
  const HeadProducts<Value> products{.scratch = nullptr};
  float dout[ArchSpec::kMaxHeadDim], buffer[ArchSpec::kMaxHeadDim];
  for (int64_t t = 0; t < head.n_tokens; ++t) {
    const int64_t row = head.first_row + t;
    std::memcpy(dout, d_attended + row * d_q + col, static_cast<size_t>(head_dim) * sizeof(float));
    const float* out = tape.attended.Get(row, col, head_dim, buffer);
    float pull = 0;
    for (int64_t i = 0; i < head_dim; ++i) pull += dout[i] * out[i];
    at.pull[t] = pull;
    at.shift[t] = tape.lse[row * head.spec->n_heads + head.head];
    std::memcpy(at.dout + t * head_dim, products.Round(dout, head_dim),
                static_cast<size_t>(head_dim) * sizeof(Value));
  }
  std::fill(at.dout + head.n_tokens * head_dim, at.dout + at.n_padded * head_dim, Value{0});
}

// Probabilities of a tile, a row for each key, in the place of the scores; and the gradients of
// scores in the place of those of probabilities.
template <typename Value>
void SoftmaxOfTile(const AttentionHead& head, int64_t k0, int64_t n_keys, int64_t n_queries,
                   const HeadProducts<Value>& products, const Buffers<Value>& at) {
  for (int64_t k = 0; k < n_keys; ++k) {
    float* p = at.scores + k * n_queries;
    float* ds = at.dscores + k * n_queries;
    const int64_t end = EndOfSight(head, k0 + k) - k0;
    products.kernels.exp_minus(p + k, at.shift + k0 + k, end - k, p + k);
    products.kernels.softmax_backward(p + k, ds + k, at.pull + k0 + k, end - k, ds + k);
    for (float* row : {p, ds}) {
      std::fill(row, row + k, 0.0f);
      std::fill(row + end, row + n_queries, 0.0f);
    }
  }
}

template <typename Value>
void Backward(const AttentionHead& head, const LayerTape& tape, const float* d_attended, float* dq,
              float* dk, float* dv) {
  const int64_t head_dim = head.spec->head_dim, n = head.n_tokens, d_q = head.spec->d_q();
  const Buffers<Value> at(head, head_dim);
  const HeadProducts<Value> products{.scratch = head.scratch};
  GatherInputs(head, tape, at);
  GatherGradients(head, tape, d_attended, at);
  const int64_t origin = head.first_row * d_q + head.head * head_dim;
  for (int64_t t = 0; t < n; ++t) {
    std::memset(dq + origin + t * d_q, 0, static_cast<size_t>(head_dim) * sizeof(float));
  }
  for (int64_t k0 = 0; k0 < n; k0 += kTile) {
    const int64_t n_keys = std::min(kTile, n - k0);
    const int64_t n_seeing = EndOfSight(head, k0 + n_keys - 1) - k0;
    const int64_t n_queries = Even(n_seeing), n_turned = Even(n_keys);
    const MatrixView queries = products.Matrix(at.q + k0 * head_dim, n_queries, head_dim);
    const MatrixView douts = products.Matrix(at.dout + k0 * head_dim, n_queries, head_dim);
    // Scores and all that follows stand here with a row for each key.
    products.TimesRows(queries, at.k + k0 * head_dim, n_keys, at.scores, n_queries);
    products.TimesRows(douts, at.v + k0 * head_dim, n_keys, at.dscores, n_queries);
    SoftmaxOfTile(head, k0, n_keys, n_queries, products, at);
    products.kernels.transpose(at.dscores, n_keys, n_seeing, n_queries, at.turned, n_turned);
    for (int64_t t = 0; n_turned > n_keys && t < n_seeing; ++t)
      at.turned[t * n_turned + n_keys] = 0;
    const Value* p = products.Round(at.scores, n_keys * n_queries);
    const Value* ds = products.Round(at.dscores, n_keys * n_queries);
    const Value* turned = products.Round(at.turned, n_seeing * n_turned);
    products.TimesColumns(douts, p, n_keys, n_queries, {dv + origin + k0 * d_q, d_q, false});
    products.TimesColumns(queries, ds, n_keys, n_queries, {dk + origin + k0 * d_q, d_q, false});
    products.TimesColumns(products.Matrix(at.k + k0 * head_dim, n_turned, head_dim), turned,
                          n_seeing, n_turned, {dq + origin + k0 * d_q, d_q, true});
  }
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t i = 0; i < head_dim; ++i) dq[origin + t * d_q + i] *= head.spec->query_scale;
  }
}

}  // namespace

int64_t AttentionFloats(const ArchSpec& spec, int64_t max_sequence) {
  return Even(max_sequence) * (4 * spec.head_dim + 2 + 3 * kTile) + kTile * spec.head_dim;
}

void AttendForward(const AttentionHead& head, const LayerTape& tape) {
  (tape.q.is_bf16 ? Forward<uint16_t> : Forward<float>)(head, tape);
}

void AttendBackward(const AttentionHead& head, const LayerTape& tape, const float* d_attended,
                    float* dq, float* dk, float* dv) {
  (tape.q.is_bf16 ? Backward<uint16_t> : Backward<float>)(head, tape, d_attended, dq, dk, dv);
}

}  // namespace coterie
