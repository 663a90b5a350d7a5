// The backward pass of TrainingDecoder.

#include <algorithm>
#include <cstring>
#include <utility>

#include "lora/training_attention.h"
#include "lora/training_decoder.h"

namespace coterie {
namespace {

MatrixView F32Rows(const float* data, int64_t n_rows, int64_t n_cols) {
  return {TensorType::kF32, n_rows, n_cols, reinterpret_cast<const uint8_t*>(data)};
}

}  // namespace

void TrainingDecoder::WeighLoss(absl::Span<const float> weights) {
  const int64_t d = spec_.d_model;
  for (size_t i = 0; i < weights.size(); ++i) {
    const int64_t at = static_cast<int64_t>(i) * d;
    for (int64_t c = 0; c < d; ++c) at_.dx[at + c] = weights[i] * at_.hidden[at + c];
  }
  if (!IsCut(spec_.n_layers - 1)) SpreadLossRows(at_.dx, d);
}

void TrainingDecoder::BeginBackward(int64_t layer, const LayerWeights& w) {
  if (shape_.recompute == Recompute::kFull) {
    NormQkvRopeAppend(layer, w);
    Attend(layer);
    ProjectResidual(layer, w);
  }
  if (layer < shape_.gates_kept_from) NormGateUpActivate(layer, w);
  const bool lost_raw_down = shape_.recompute == Recompute::kFull && w.post_ffn_norm != nullptr;
  if (lost_raw_down) DownResidual(layer, w);
}

// The backward side of AddToStream: the gradient of its input goes to d_in. What passes by the
// product stays in dx.
void TrainingDecoder::BackwardResidual(const LinearWeights& linear, const float* norm,
                                       LayerLinear which, const ActivationRows& in,
                                       const float* raw, float* d_in) {
  const int64_t d = spec_.d_model;
  ActivationRows dy_rows = at_.in;
  dy_rows.n_cols = d;
  const float* dy = norm == nullptr ? at_.dx : at_.dy;
  const Return part{&linear, which, &dy_rows, at_.quantized};
  ForRows([&](int64_t begin, int64_t end, int worker) {
    for (int64_t row = begin; row < end; ++row) {
      if (norm != nullptr) {
        std::memset(at_.dy + row * d, 0, static_cast<size_t>(d) * sizeof(float));
        training_.rms_norm_backward(raw + row * d, norm, at_.dx + row * d, d, spec_.norm_epsilon,
                                    at_.dy + row * d);
      }
    }
    PutGradient(part, dy + begin * d, begin, end);
    ShrinkBackward(which, dy + begin * d, begin, end, worker);
  });
  std::vector<Job> jobs = {ReturnJob({part}, d_in)};
  AddGradientJobs(which, in.View(n_live_), F32Rows(dy, n_live_, d), jobs);
  Run(std::move(jobs));
}

void TrainingDecoder::BackwardDownResidual(int64_t layer, const LayerWeights& w) {
  Begin(layer, /*past_attention=*/true);
  const LayerTape& tape = at_.tapes[static_cast<size_t>(layer)];
  // The activation is not on the tape: made again from gate and up.
  const auto activate = spec_.gating == Gating::kSilu ? kernels_.silu_mul : kernels_.gelu_tanh_mul;
  const int64_t d_ff = spec_.d_ff;
  ForRows([&](int64_t begin, int64_t end, int worker) {
    float* buffer = RowScratch(worker);
    for (int64_t row = begin; row < end; ++row) {
      const float* gate = tape.gate.Get(row, 0, d_ff, buffer);
      const float* up = tape.up.Get(row, 0, d_ff, buffer + d_ff);
      activate(gate, up, d_ff, buffer + 2 * d_ff);
      Drop(LayerLinear::kDown, row, 0, d_ff, buffer + 2 * d_ff);
      at_.act.Put(row, 0, buffer + 2 * d_ff, d_ff);
    }
  });
  BackwardResidual(w.down, w.post_ffn_norm, LayerLinear::kDown, at_.act, tape.raw_down, at_.wide_a);
}

// dx += what comes back through a norm of x from dy.
void TrainingDecoder::NormBackward(const float* norm, const float* x, const float* dy) {
  const int64_t d = spec_.d_model;
  ForRows([&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      training_.rms_norm_backward(x + row * d, norm, dy + row * d, d, spec_.norm_epsilon,
                                  at_.dx + row * d);
    }
  });
}

void TrainingDecoder::BackwardNormGateUpActivate(int64_t layer, const LayerWeights& w) {
  Begin(layer, /*past_attention=*/true);
  const LayerTape& tape = at_.tapes[static_cast<size_t>(layer)];
  const int64_t d = spec_.d_model, d_ff = spec_.d_ff;
  const auto back = spec_.gating == Gating::kSilu ? training_.silu_mul_backward
                                                  : training_.gelu_tanh_mul_backward;
  ActivationRows in = at_.in;
  in.n_cols = d;
  const Return gate_part{&w.gate, LayerLinear::kGate, &at_.dgate, at_.quantized};
  const Return up_part{&w.up, LayerLinear::kUp, &at_.dup, at_.quantized_beside};
  ForRows([&](int64_t begin, int64_t end, int worker) {
    float* dgate = RowScratch(worker);
    float* dup = dgate + kTrainingRowsPerPiece * d_ff;
    float* buffer = dup + kTrainingRowsPerPiece * d_ff;
    for (int64_t row = begin; row < end; ++row) {
      const float* gate = tape.gate.Get(row, 0, d_ff, buffer);
      const float* up = tape.up.Get(row, 0, d_ff, buffer + d_ff);
      const int64_t at = (row - begin) * d_ff;
      back(gate, up, at_.wide_a + row * d_ff, d_ff, dgate + at, dup + at, buffer + 2 * d_ff);
      kernels_.rms_norm(tape.x_mid + row * d, w.ffn_norm, d, spec_.norm_epsilon, buffer);
      Drop(LayerLinear::kGate, row, 0, d, buffer);
      in.Put(row, 0, buffer, d);
    }
    PutGradient(gate_part, dgate, begin, end);
    PutGradient(up_part, dup, begin, end);
    ShrinkBackward(LayerLinear::kGate, dgate, begin, end, worker);
    ShrinkBackward(LayerLinear::kUp, dup, begin, end, worker);
  });
  std::vector<Job> jobs = {ReturnJob({gate_part, up_part}, at_.dy)};
  AddGradientJobs(LayerLinear::kGate, in.View(n_live_), at_.dgate.View(n_live_), jobs);
  AddGradientJobs(LayerLinear::kUp, in.View(n_live_), at_.dup.View(n_live_), jobs);
  Run(std::move(jobs));
  NormBackward(w.ffn_norm, tape.x_mid, at_.dy);
}

void TrainingDecoder::BackwardProjectResidual(int64_t layer, const LayerWeights& w) {
  Begin(layer, /*past_attention=*/true);
  const LayerTape& tape = at_.tapes[static_cast<size_t>(layer)];
  PutAttended(tape, w.o, /*for_gradient=*/true);
  BackwardResidual(w.o, w.post_attention_norm, LayerLinear::kO,
                   Attended(tape, /*for_gradient=*/true), tape.raw_o, at_.wide_a);
  if (!IsCut(layer)) return;
  SpreadLossRows(at_.wide_a, spec_.d_q());
  SpreadLossRows(at_.dx, spec_.d_model);
}

void TrainingDecoder::BackwardAttend(int64_t layer) {
  Begin(layer, /*past_attention=*/false);
  const LayerTape& tape = at_.tapes[static_cast<size_t>(layer)];
  Run({Job{static_cast<int64_t>(rows_.sequences.size()) * spec_.n_heads,
           [&](int64_t piece, int worker) {
             const TrainingRows::Sequence& sequence =
                 rows_.sequences[static_cast<size_t>(piece / spec_.n_heads)];
             AttendBackward({&spec_, layer, sequence.first, sequence.n_tokens,
                             piece % spec_.n_heads, ProductScratch(worker)},
                            tape, at_.wide_a, at_.wide_b, at_.wide_c, at_.wide_d);
           }}});
}

// The backward side of PrepareHeads, in place.
void TrainingDecoder::BackwardHeads(const ActivationRows& raw, const float* norm, int64_t n_heads,
                                    float* d, int64_t row, float* buffer) const {
  const int64_t head_dim = spec_.head_dim;
  for (int64_t h = 0; h < n_heads; ++h) {
    float* head = d + h * head_dim;
    Rotate(head, row, /*back=*/true);
    if (norm == nullptr) continue;
    const float* x = raw.Get(row, h * head_dim, head_dim, buffer);
    float* dx = buffer + head_dim;
    std::memset(dx, 0, static_cast<size_t>(head_dim) * sizeof(float));
    training_.rms_norm_backward(x, norm, head, head_dim, spec_.norm_epsilon, dx);
    std::memcpy(head, dx, static_cast<size_t>(head_dim) * sizeof(float));
  }
}

void TrainingDecoder::BackwardNormQkvRope(int64_t layer, const LayerWeights& w) {
  Begin(layer, /*past_attention=*/false);
  const LayerTape& tape = at_.tapes[static_cast<size_t>(layer)];
  const int64_t d = spec_.d_model, d_q = spec_.d_q(), d_kv = spec_.d_kv();
  const int64_t head_dim = spec_.head_dim, group = spec_.n_heads / spec_.n_kv_heads;
  const float* x = at_.x[static_cast<size_t>(layer)];
  ActivationRows in = at_.in;
  in.n_cols = d;
  uint8_t* beside_k = shape_.as_served
                          ? at_.quantized_beside + QuantizedActivations::Bytes(n_live_, d_kv)
                          : nullptr;
  const std::vector<Return> parts = {{&w.q, LayerLinear::kQ, &at_.dq, at_.quantized},
                                     {&w.k, LayerLinear::kK, &at_.dk, at_.quantized_beside},
                                     {&w.v, LayerLinear::kV, &at_.dv, beside_k}};
  ForRows([&](int64_t begin, int64_t end, int worker) {
    float* dk = RowScratch(worker);
    float* dv = dk + kTrainingRowsPerPiece * d_kv;
    float* buffer = dv + kTrainingRowsPerPiece * d_kv;
    for (int64_t row = begin; row < end; ++row) {
      // Each query head has its own part of the gradient of the keys and values that it shares.
      float* dk_row = dk + (row - begin) * d_kv;
      float* dv_row = dv + (row - begin) * d_kv;
      for (int64_t h = 0; h < spec_.n_heads; ++h) {
        const bool is_first = h % group == 0;
        for (int64_t i = 0; i < head_dim; ++i) {
          const int64_t to = h / group * head_dim + i, from = row * d_q + h * head_dim + i;
          dk_row[to] = at_.wide_c[from] + (is_first ? 0 : dk_row[to]);
          dv_row[to] = at_.wide_d[from] + (is_first ? 0 : dv_row[to]);
        }
      }
      float* dq_row = at_.wide_b + row * d_q;
      BackwardHeads(tape.raw_q, w.q_norm, spec_.n_heads, dq_row, row, buffer);
      BackwardHeads(tape.raw_k, w.k_norm, spec_.n_kv_heads, dk_row, row, buffer);
      kernels_.rms_norm(x + row * d, w.attention_norm, d, spec_.norm_epsilon, buffer);
      Drop(LayerLinear::kQ, row, 0, d, buffer);
      in.Put(row, 0, buffer, d);
    }
    PutGradient(parts[0], at_.wide_b + begin * d_q, begin, end);
    PutGradient(parts[1], dk, begin, end);
    PutGradient(parts[2], dv, begin, end);
    ShrinkBackward(LayerLinear::kQ, at_.wide_b + begin * d_q, begin, end, worker);
    ShrinkBackward(LayerLinear::kK, dk, begin, end, worker);
    ShrinkBackward(LayerLinear::kV, dv, begin, end, worker);
  });
  // Below the first adapted layer nobody needs a gradient.
  const bool goes_on = layer > parameters_->first_layer();
  std::vector<Job> jobs;
  if (goes_on) {
    jobs.push_back(ReturnJob(parts, at_.dy));
  }
  AddGradientJobs(LayerLinear::kQ, in.View(n_live_), at_.dq.View(n_live_), jobs);
  AddGradientJobs(LayerLinear::kK, in.View(n_live_), at_.dk.View(n_live_), jobs);
  AddGradientJobs(LayerLinear::kV, in.View(n_live_), at_.dv.View(n_live_), jobs);
  Run(std::move(jobs));
  if (goes_on) NormBackward(w.attention_norm, x, at_.dy);
}

}  // namespace coterie
