#include "lora/training_decoder.h"

#include <algorithm>
#include <cstring>

#include "lora/training_attention.h"

namespace coterie {
namespace {

constexpr int64_t kMaxPairs = ArchSpec::kMaxHeadDim / 2;

}  // namespace

TrainingDecoder::TrainingDecoder(const ArchSpec& spec, const TrainingRows& rows,
                                 const TrainingLayout& layout, const TrainingShape& shape,
                                 LoraParameters* parameters, WorkerPool& pool,
                                 const std::stop_token& stop)
    : spec_(spec),
      rows_(rows),
      at_(layout),
      shape_(shape),
      parameters_(parameters),
      pool_(pool),
      stop_(stop),
      n_rows_(rows.n_rows()),
      n_live_(n_rows_) {
  ComputeRotations(spec.rope_angles, at_.cos, at_.sin);
  if (!spec.windowed.empty()) {
    ComputeRotations(spec.window_rope_angles, at_.window_cos, at_.window_sin);
  }
}

// What is gathered of attention has its place where activations go.
bool TrainingDecoder::IsCut(int64_t layer) const {
  return layer == spec_.n_layers - 1 && rows_.n_loss_rows() < n_rows_ && spec_.d_q() <= spec_.d_ff;
}

void TrainingDecoder::Begin(int64_t layer, bool past_attention) {
  layer_ = layer;
  n_live_ = past_attention && IsCut(layer) ? rows_.n_loss_rows() : n_rows_;
}

void TrainingDecoder::GatherLossRows(const float* from, float* to) const {
  const int64_t d = spec_.d_model;
  for (int64_t i = 0; i < rows_.n_loss_rows(); ++i) {
    std::memcpy(to + i * d, from + rows_.loss_rows[static_cast<size_t>(i)] * d,
                static_cast<size_t>(d) * sizeof(float));
  }
}

// The rows in the loss back to their places, and zeros between them. From the last on, for no row
// is before its place.
void TrainingDecoder::SpreadLossRows(float* values, int64_t n_cols) const {
  const size_t row_bytes = static_cast<size_t>(n_cols) * sizeof(float);
  int64_t next = rows_.n_loss_rows() - 1;
  for (int64_t row = n_rows_ - 1; row >= 0; --row) {
    float* to = values + row * n_cols;
    if (next >= 0 && rows_.loss_rows[static_cast<size_t>(next)] == row) {
      if (next != row) std::memcpy(to, values + next * n_cols, row_bytes);
      --next;
    } else {
      std::memset(to, 0, row_bytes);
    }
  }
}

const LoraPair* TrainingDecoder::PairOf(LayerLinear which) const {
  return parameters_ == nullptr ? nullptr : parameters_->Find(layer_, which);
}

float* TrainingDecoder::RowScratch(int worker) const {
  return reinterpret_cast<float*>(ProductScratch(worker) + TrainingScratchBytes());
}

void TrainingDecoder::ComputeRotations(const RopeAngles& angles, float* cos, float* sin) const {
  for (const TrainingRows::Sequence& sequence : rows_.sequences) {
    const int64_t at = sequence.first * (spec_.rope_dims / 2);
    angles.Rotations(0, sequence.n_tokens, spec_.rope_dims, cos + at, sin + at);
  }
}

void TrainingDecoder::Run(std::vector<Job> jobs) {
  if (stopped_) return;
  int64_t n_pieces = 0;
  for (const Job& job : jobs) n_pieces += job.n_pieces;
  const bool done = pool_.RunBackground(
      n_pieces,
      [&](int64_t piece, int worker) {
        for (const Job& job : jobs) {
          if (piece < job.n_pieces) return job.body(piece, worker);
          piece -= job.n_pieces;
        }
      },
      stop_);
  stopped_ = !done;
}

void TrainingDecoder::ForRows(const std::function<void(int64_t, int64_t, int)>& body) {
  constexpr int64_t kRows = kTrainingRowsPerPiece;
  Run({Job{(n_live_ + kRows - 1) / kRows, [&](int64_t piece, int worker) {
             body(piece * kRows, std::min(n_live_, (piece + 1) * kRows), worker);
           }}});
}

void TrainingDecoder::Embed(const MatrixView& embedding) {
  n_live_ = n_rows_;
  const int64_t d = spec_.d_model;
  ForRows([&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      float* x = at_.x[0] + row * d;
      kernels_.dequantize_row(embedding.type, embedding.row(rows_.tokens[static_cast<size_t>(row)]),
                              d, x);
      if (spec_.embedding_scale == 1) continue;
      for (int64_t i = 0; i < d; ++i) x[i] *= spec_.embedding_scale;
    }
  });
}

void TrainingDecoder::NormInto(const float* norm, const float* x,
                               absl::Span<const LinearWeights* const> linears,
                               absl::Span<const LayerLinear> targets) {
  const int64_t d = spec_.d_model;
  const Reads reads = ReadsOf(linears);
  ActivationRows in = at_.in;
  in.n_cols = d;
  ForRows([&](int64_t begin, int64_t end, int worker) {
    float* normed = RowScratch(worker);
    for (int64_t row = begin; row < end; ++row) {
      kernels_.rms_norm(x + row * d, norm, d, spec_.norm_epsilon, normed + (row - begin) * d);
    }
    PutInput(reads, in, normed, begin, end);
    DropRows(targets.front(), begin, end, d, normed);
    for (const LayerLinear which : targets) Shrink(which, normed, begin, end, worker);
  });
}

void TrainingDecoder::Rotate(float* head, int64_t row, bool back) const {
  const int64_t n_pairs = spec_.rope_dims / 2;
  const bool windowed = spec_.IsWindowed(layer_);
  const float* cos = (windowed ? at_.window_cos : at_.cos) + row * n_pairs;
  const float* sin = (windowed ? at_.window_sin : at_.sin) + row * n_pairs;
  float turned[kMaxPairs];
  if (back) {
    for (int64_t i = 0; i < n_pairs; ++i) turned[i] = -sin[i];
    sin = turned;
  }
  (spec_.rope == RopeKind::kAdjacent ? kernels_.rope_adjacent : kernels_.rope_halves)(head, n_pairs,
                                                                                      cos, sin);
}

void TrainingDecoder::PrepareHeads(const ActivationRows& raw, const ActivationRows& to,
                                   const float* norm, int64_t n_heads, float* values, int64_t row,
                                   float* buffer) const {
  const int64_t head_dim = spec_.head_dim;
  for (int64_t h = 0; h < n_heads; ++h) {
    float* head = values + h * head_dim;
    if (norm != nullptr) {
      raw.Put(row, h * head_dim, head, head_dim);
      const float* kept = raw.Get(row, h * head_dim, head_dim, buffer);
      kernels_.rms_norm(kept, norm, head_dim, spec_.norm_epsilon, head);
    }
    Rotate(head, row, /*back=*/false);
  }
  to.Put(row, 0, values, n_heads * head_dim);
}

void TrainingDecoder::NormQkvRopeAppend(int64_t layer, const LayerWeights& w) {
  Begin(layer, /*past_attention=*/false);
  const LayerTape& tape = at_.tapes[static_cast<size_t>(layer)];
  NormInto(w.attention_norm, at_.x[static_cast<size_t>(layer)], {&w.q, &w.k, &w.v},
           {LayerLinear::kQ, LayerLinear::kK, LayerLinear::kV});
  ActivationRows in = at_.in;
  in.n_cols = spec_.d_model;
  Run(ProductJobs({{&w.q, LayerLinear::kQ, &in, at_.wide_a},
                   {&w.k, LayerLinear::kK, &in, at_.wide_b},
                   {&w.v, LayerLinear::kV, &in, at_.wide_c}}));
  ForRows([&](int64_t begin, int64_t end, int worker) {
    for (int64_t row = begin; row < end; ++row) {
      float* buffer = RowScratch(worker);
      PrepareHeads(tape.raw_q, tape.q, w.q_norm, spec_.n_heads, at_.wide_a + row * spec_.d_q(), row,
                   buffer);
      PrepareHeads(tape.raw_k, tape.k, w.k_norm, spec_.n_kv_heads, at_.wide_b + row * spec_.d_kv(),
                   row, buffer);
      tape.v.Put(row, 0, at_.wide_c + row * spec_.d_kv(), spec_.d_kv());
    }
  });
}

void TrainingDecoder::Attend(int64_t layer) {
  Begin(layer, /*past_attention=*/false);
  const LayerTape& tape = at_.tapes[static_cast<size_t>(layer)];
  Run({Job{static_cast<int64_t>(rows_.sequences.size()) * spec_.n_heads,
           [&](int64_t piece, int worker) {
             const TrainingRows::Sequence& sequence =
                 rows_.sequences[static_cast<size_t>(piece / spec_.n_heads)];
             AttendForward({&spec_, layer, sequence.first, sequence.n_tokens, piece % spec_.n_heads,
                            ProductScratch(worker)},
                           tape);
           }}});
}

// Where the projection reads what attention made, or the gradient of its adapter does: on the tape,
// or where some of it is gathered or dropped.
ActivationRows TrainingDecoder::Attended(const LayerTape& tape, bool for_gradient) const {
  const bool is_dropped = for_gradient && rows_.dropout.is_on();
  if (!IsCut(layer_) && !is_dropped) return tape.attended;
  return {at_.act.data, spec_.d_q(), at_.act.is_bf16};
}

// What attention made, as the projection reads it, or as the gradient of its adapter does.
void TrainingDecoder::PutAttended(const LayerTape& tape, const LinearWeights& o,
                                  bool for_gradient) {
  const bool cut = IsCut(layer_);
  const ActivationRows attended = Attended(tape, for_gradient);
  Reads reads = ReadsOf({&o});
  if (for_gradient) reads = {.rounded = true, .quantized = false};
  reads.rounded &= attended.data != tape.attended.data;  // Else it is.
  if (!reads.rounded && !reads.quantized && (for_gradient || PairOf(LayerLinear::kO) == nullptr)) {
    return;
  }
  ForRows([&](int64_t begin, int64_t end, int worker) {
    float* x = RowScratch(worker);
    for (int64_t row = begin; row < end; ++row) {
      float* to = x + (row - begin) * spec_.d_q();
      const int64_t at = cut ? rows_.loss_rows[static_cast<size_t>(row)] : row;
      const float* from = tape.attended.Get(at, 0, spec_.d_q(), to);
      if (from != to) std::memcpy(to, from, static_cast<size_t>(spec_.d_q()) * sizeof(float));
    }
    if (for_gradient) DropRows(LayerLinear::kO, begin, end, spec_.d_q(), x);
    PutInput(reads, attended, x, begin, end);
    if (for_gradient) return;
    DropRows(LayerLinear::kO, begin, end, spec_.d_q(), x);
    Shrink(LayerLinear::kO, x, begin, end, worker);
  });
}

// to = from + W in, normed first where there is a norm; `raw` then keeps W in.
void TrainingDecoder::AddToStream(const LinearWeights& linear, const float* norm, LayerLinear which,
                                  const ActivationRows& in, const float* from, float* raw,
                                  float* to) {
  const int64_t d = spec_.d_model;
  if (norm == nullptr) {
    Run(ProductJobs({{&linear, which, &in, to, from}}));
    return;
  }
  Run(ProductJobs({{&linear, which, &in, raw}}));
  ForRows([&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      kernels_.rms_norm(raw + row * d, norm, d, spec_.norm_epsilon, to + row * d);
      kernels_.add(from + row * d, d, to + row * d);
    }
  });
}

void TrainingDecoder::ProjectResidual(int64_t layer, const LayerWeights& w) {
  Begin(layer, /*past_attention=*/true);
  const LayerTape& tape = at_.tapes[static_cast<size_t>(layer)];
  PutAttended(tape, w.o, /*for_gradient=*/false);
  const float* stream = at_.x[static_cast<size_t>(layer)];
  if (IsCut(layer)) {
    GatherLossRows(stream, at_.hidden);
    stream = at_.hidden;
  }
  AddToStream(w.o, w.post_attention_norm, LayerLinear::kO, Attended(tape, /*for_gradient=*/false),
              stream, tape.raw_o, tape.x_mid);
}

void TrainingDecoder::NormGateUpActivate(int64_t layer, const LayerWeights& w) {
  Begin(layer, /*past_attention=*/true);
  const LayerTape& tape = at_.tapes[static_cast<size_t>(layer)];
  const int64_t d_ff = spec_.d_ff;
  NormInto(w.ffn_norm, tape.x_mid, {&w.gate, &w.up}, {LayerLinear::kGate, LayerLinear::kUp});
  ActivationRows in = at_.in;
  in.n_cols = spec_.d_model;
  Run(ProductJobs({{&w.gate, LayerLinear::kGate, &in, at_.wide_a},
                   {&w.up, LayerLinear::kUp, &in, at_.wide_b}}));
  const auto activate = spec_.gating == Gating::kSilu ? kernels_.silu_mul : kernels_.gelu_tanh_mul;
  const Reads reads = ReadsOf({&w.down});
  ForRows([&](int64_t begin, int64_t end, int worker) {
    float* act = RowScratch(worker);
    float* buffer = act + kTrainingRowsPerPiece * d_ff;
    for (int64_t row = begin; row < end; ++row) {
      // What the backward pass will see is what goes on from here.
      tape.gate.Put(row, 0, at_.wide_a + row * d_ff, d_ff);
      tape.up.Put(row, 0, at_.wide_b + row * d_ff, d_ff);
      const float* gate = tape.gate.Get(row, 0, d_ff, buffer);
      const float* up = tape.up.Get(row, 0, d_ff, buffer + d_ff);
      activate(gate, up, d_ff, act + (row - begin) * d_ff);
    }
    PutInput(reads, at_.act, act, begin, end);
    DropRows(LayerLinear::kDown, begin, end, d_ff, act);
    Shrink(LayerLinear::kDown, act, begin, end, worker);
  });
}

void TrainingDecoder::DownResidual(int64_t layer, const LayerWeights& w) {
  Begin(layer, /*past_attention=*/true);
  const LayerTape& tape = at_.tapes[static_cast<size_t>(layer)];
  AddToStream(w.down, w.post_ffn_norm, LayerLinear::kDown, at_.act, tape.x_mid, tape.raw_down,
              at_.x[static_cast<size_t>(layer + 1)]);
}

}  // namespace coterie
