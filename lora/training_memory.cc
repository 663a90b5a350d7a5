#include "lora/training_memory.h"

#include <algorithm>
#include <cstring>

#include "core/kernels/kernels.h"
#include "core/memory/areas.h"
#include "lora/lora_parameters.h"

namespace coterie {
namespace {

// Rows of logits held at a time: enough that unpacking the head is spread over many.
constexpr int64_t kHeadRows = 112;

class Layouter {
 public:
  Layouter(const ArchSpec& spec, const TrainerOptions& options, const TrainingShape& shape,
           uint8_t* base)
      : spec_(spec),
        shape_(shape),
        plan_(spec, options),
        drops_(options.dropout > 0),
        areas_(base) {}

  int64_t Run(TrainingLayout& at) {
    Tapes(at);
    Shared(at);
    if (shape_.backward) Backward(at);
    Head(at);
    Workers(at);
    return areas_.used();
  }

 private:
  float* Stream() { return areas_.Take<float>(shape_.n_rows * spec_.d_model); }
  ActivationRows Rows(int64_t n_cols) {
    ActivationRows rows{nullptr, n_cols, shape_.is_bf16};
    rows.data = areas_.Take<uint8_t>(shape_.n_rows * n_cols * rows.value_bytes());
    return rows;
  }

  void Attention(int64_t layer, LayerTape& tape) {
    tape.x_mid = Stream();
    tape.q = Rows(spec_.d_q());
    tape.k = Rows(spec_.d_kv());
    tape.v = Rows(spec_.d_kv());
    if (spec_.qk_norm) {
      tape.raw_q = Rows(spec_.d_q());
      tape.raw_k = Rows(spec_.d_kv());
    }
    tape.attended = Rows(spec_.d_q());
    tape.lse = areas_.Take<float>(shape_.n_rows * spec_.n_heads);
    if (spec_.post_norms) {
      tape.raw_o = Stream();
      tape.raw_down = Stream();
    }
    for (int i = 0; i < kLayerLinearCount; ++i) {
      const LoraPair* pair = plan_.Find(layer, static_cast<LayerLinear>(i));
      if (pair != nullptr) tape.h[i] = areas_.Take<float>(shape_.n_rows * pair->rank);
    }
  }

  void FeedForward(LayerTape& tape) {
    tape.gate = Rows(spec_.d_ff);
    tape.up = Rows(spec_.d_ff);
  }

  // Layers below the first adapted one share a tape, and take turns with two places for the
  // stream; so do all if no backward pass follows.
  void Tapes(TrainingLayout& at) {
    const int64_t n = spec_.n_layers;
    const int64_t first = shape_.backward ? plan_.first_layer() : n;
    const Recompute recompute = shape_.recompute;
    at.x.resize(static_cast<size_t>(n + 1));
    at.tapes.resize(static_cast<size_t>(n));
    LayerTape shared;
    const bool any_whole = first > 0 || recompute == Recompute::kFull;
    if (any_whole) Attention(n - 1, shared);
    if (any_whole || first < shape_.gates_kept_from) FeedForward(shared);
    float* turns[2] = {nullptr, nullptr};
    if (first > 0) {
      turns[0] = Stream();
      turns[1] = Stream();
    }
    for (int64_t layer = 0; layer <= n; ++layer) {
      const size_t i = static_cast<size_t>(layer);
      at.x[i] = layer < first || !shape_.backward ? turns[layer % 2] : Stream();
      if (layer == n) break;
      LayerTape& tape = at.tapes[i];
      tape = shared;
      if (layer < first || recompute == Recompute::kFull) continue;
      Attention(layer, tape);
      if (layer >= shape_.gates_kept_from) FeedForward(tape);
    }
  }

  void Shared(TrainingLayout& at) {
    const int64_t n = shape_.n_rows;
    const int64_t n_angles = n * spec_.rope_dims / 2;
    at.in = Rows(std::max(spec_.d_model, spec_.d_q()));
    at.act = Rows(std::max(spec_.d_ff, drops_ ? spec_.d_q() : 0));
    at.act.n_cols = spec_.d_ff;
    if (shape_.as_served) {
      const int64_t widest = std::max({spec_.d_model, spec_.d_q(), spec_.d_ff});
      at.quantized = areas_.Take<uint8_t>(QuantizedActivations::Bytes(n, widest));
      if (shape_.backward) {
        at.quantized_beside =
            areas_.Take<uint8_t>(std::max(QuantizedActivations::Bytes(n, spec_.d_ff),
                                          2 * QuantizedActivations::Bytes(n, spec_.d_kv())));
      }
    }
    // What attention needs four of, a feed-forward layer needs two of, and wider.
    const int64_t n_wide = n * std::max(spec_.d_ff, 2 * spec_.d_q());
    const int64_t n_narrow = n * spec_.d_q();
    at.wide_a = areas_.Take<float>(n_wide);
    at.wide_b = areas_.Take<float>(n_wide);
    if (at.wide_a != nullptr) {
      at.wide_c = at.wide_b + n_narrow;
      at.wide_d = at.wide_a + n_narrow;
    }
    at.cos = areas_.Take<float>(n_angles);
    at.sin = areas_.Take<float>(n_angles);
    if (!spec_.windowed.empty()) {
      at.window_cos = areas_.Take<float>(n_angles);
      at.window_sin = areas_.Take<float>(n_angles);
    }
  }

  void Backward(TrainingLayout& at) {
    at.dgate = Rows(spec_.d_ff);
    at.dup = Rows(spec_.d_ff);
    at.dq = Rows(spec_.d_q());
    at.dk = Rows(spec_.d_kv());
    at.dv = Rows(spec_.d_kv());
    at.dx = Stream();
    at.dy = Stream();
    const int64_t h_values = shape_.n_rows * plan_.rank();
    for (float*& dh : at.dh) dh = areas_.Take<float>(h_values);
    at.turned = areas_.Take<float>(2 * kLayerLinearCount * h_values);
  }

  void Head(TrainingLayout& at) {
    at.head_rows = std::min(kHeadRows, shape_.n_rows);
    at.hidden = Stream();
    at.logits = areas_.Take<float>(at.head_rows * spec_.n_vocab);
  }

  void Workers(TrainingLayout& at) {
    const int64_t widest = std::max({spec_.d_model, spec_.d_q(), spec_.d_ff});
    const int64_t row_floats = 3 * kTrainingRowsPerPiece * widest + 2 * widest;
    const int64_t floats = std::max(row_floats, AttentionFloats(spec_, shape_.max_sequence));
    const int64_t rest = std::max({floats * 4, QuantizedActivations::RowBytes(spec_.n_vocab),
                                   MatmulScratchBytes(widest) - TrainingScratchBytes()});
    at.worker_bytes = TrainingScratchBytes() + (rest + 63) / 64 * 64;
    at.workers = areas_.Take<uint8_t>(at.worker_bytes * shape_.n_workers);
  }

  const ArchSpec& spec_;
  const TrainingShape& shape_;
  const LoraPlan plan_;
  const bool drops_;
  Areas areas_;
};

}  // namespace

void ActivationRows::Put(int64_t row, int64_t col, const float* values, int64_t n) const {
  const int64_t at = row * n_cols + col;
  if (is_bf16) {
    TrainingKernels().f32_to_bf16(values, n, static_cast<uint16_t*>(data) + at);
  } else {
    std::memcpy(static_cast<float*>(data) + at, values, static_cast<size_t>(n) * sizeof(float));
  }
}

const float* ActivationRows::Get(int64_t row, int64_t col, int64_t n, float* buffer) const {
  const int64_t at = row * n_cols + col;
  if (!is_bf16) return static_cast<const float*>(data) + at;
  TrainingKernels().bf16_to_f32(static_cast<const uint16_t*>(data) + at, n, buffer);
  return buffer;
}

int64_t LayOutTraining(const ArchSpec& spec, const TrainerOptions& options,
                       const TrainingShape& shape, uint8_t* base, TrainingLayout& layout) {
  return Layouter(spec, options, shape, base).Run(layout);
}

}  // namespace coterie
