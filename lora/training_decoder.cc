#include "lora/training_decoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "experts/decoder.h"
#include "lora/training_attention.h"

namespace coterie {
namespace {

// Outputs that one piece of a forward product makes.
constexpr int64_t kOutputsPerPiece = 2 * kTrainingAlign;

constexpr int64_t kMaxPairs = ArchSpec::kMaxHeadDim / 2;

// Few pieces of whole blocks are split by rows too, so that all workers have some.
constexpr int64_t kRowsWorthSplitting = 128;

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

// The product of some rows with w: of outputs [begin, end) forward, of columns backward.
void TrainingDecoder::Multiply(Direction direction, const MatrixView& w, int64_t begin, int64_t end,
                               const ActivationRows& x, int64_t first_row, int64_t n_rows,
                               const ProductOutput& y, uint8_t* scratch) const {
  const bool back = direction == Direction::kBackward;
  const int64_t at = first_row * x.n_cols;
  if (x.is_bf16) {
    (back ? training_.backward_bf16 : training_.forward_bf16)(
        w, begin, end, {static_cast<const uint16_t*>(x.data) + at, n_rows, x.n_cols}, y, scratch);
  } else {
    (back ? training_.backward_f32 : training_.forward_f32)(
        w, begin, end, {static_cast<const float*>(x.data) + at, n_rows, x.n_cols}, y, scratch);
  }
}

bool TrainingDecoder::IsAsServed(const LinearWeights& linear) const {
  return shape_.as_served && Traits(linear.w.type).block_values > 1;
}

bool TrainingDecoder::IsBackwardQ8(const LinearWeights& linear) const {
  return IsAsServed(linear) && linear.w.n_rows % kActivationBlock == 0;
}

// Rows [begin, end) of a gradient, from `values` [end - begin, part.dy->n_cols].
void TrainingDecoder::PutGradient(const Return& part, const float* values, int64_t begin,
                                  int64_t end) const {
  const int64_t n = part.dy->n_cols;
  if (IsBackwardQ8(*part.linear)) {
    const auto all = QuantizedActivations::In(part.quantized, n_live_, n);
    kernels_.quantize_activations(values, n, all.Rows(begin, end));
  }
  for (int64_t row = begin; row < end; ++row) part.dy->Put(row, 0, values + (row - begin) * n, n);
}

TrainingDecoder::Reads TrainingDecoder::ReadsOf(
    absl::Span<const LinearWeights* const> linears) const {
  Reads reads;
  for (const LinearWeights* linear : linears) {
    (IsAsServed(*linear) ? reads.quantized : reads.rounded) = true;
  }
  return reads;
}

// Rows [begin, end) of a product's input, from `values` [end - begin, rows.n_cols].
void TrainingDecoder::PutInput(const Reads& reads, const ActivationRows& rows, const float* values,
                               int64_t begin, int64_t end) const {
  if (reads.quantized) {
    const auto all = QuantizedActivations::In(at_.quantized, n_live_, rows.n_cols);
    kernels_.quantize_activations(values, rows.n_cols, all.Rows(begin, end));
  }
  if (!reads.rounded) return;
  for (int64_t row = begin; row < end; ++row) {
    rows.Put(row, 0, values + (row - begin) * rows.n_cols, rows.n_cols);
  }
}

void TrainingDecoder::MultiplyPiece(const Product& product, int64_t begin, int64_t end,
                                    int worker) const {
  const MatrixView& w = product.linear->w;
  uint8_t* scratch = ProductScratch(worker);
  if (IsAsServed(*product.linear)) {
    kernels_.matmul_q8(w, begin, end, QuantizedActivations::In(at_.quantized, n_live_, w.n_cols),
                       product.y, w.n_rows, scratch);
  } else {
    Multiply(Direction::kForward, w, begin, end, *product.in, 0, n_live_,
             {product.y, w.n_rows, false}, scratch);
  }
  if (const LoraPair* pair = PairOf(product.which)) {
    const float* h = at_.tapes[static_cast<size_t>(layer_)].h[static_cast<int>(product.which)];
    training_.backward_f32(parameters_->Bt(*pair), begin, end, {h, n_live_, pair->rank},
                           {product.y, w.n_rows, true}, scratch);
  }
  for (int64_t row = 0; row < n_live_; ++row) {
    float* y = product.y + row * w.n_rows + begin;
    if (product.linear->bias != nullptr) kernels_.add(product.linear->bias + begin, end - begin, y);
    if (product.plus != nullptr) {
      kernels_.add(product.plus + row * w.n_rows + begin, end - begin, y);
    }
  }
}

std::vector<TrainingDecoder::Job> TrainingDecoder::ProductJobs(
    absl::Span<const Product> products) const {
  std::vector<Job> jobs;
  for (const Product& product : products) {
    const int64_t n_outputs = product.linear->w.n_rows;
    jobs.push_back({(n_outputs + kOutputsPerPiece - 1) / kOutputsPerPiece,
                    [this, product, n_outputs](int64_t piece, int worker) {
                      const int64_t begin = piece * kOutputsPerPiece;
                      MultiplyPiece(product, begin, std::min(n_outputs, begin + kOutputsPerPiece),
                                    worker);
                    }});
  }
  return jobs;
}

void TrainingDecoder::MultiplyBackward(const Return& part, int64_t begin, int64_t end,
                                       int64_t first_row, int64_t end_row, float* dx, bool add,
                                       int worker) const {
  const MatrixView& w = part.linear->w;
  const int64_t n = end_row - first_row;
  uint8_t* scratch = ProductScratch(worker);
  ProductOutput y{dx + first_row * w.n_cols, w.n_cols, add};
  if (const LoraPair* pair = PairOf(part.which)) {
    const float* dh = at_.dh[static_cast<int>(part.which)] + first_row * pair->rank;
    training_.backward_f32(parameters_->A(*pair), begin, end, {dh, n, pair->rank}, y, scratch);
    y.add = true;
  }
  if (IsBackwardQ8(*part.linear)) {
    const auto dy = QuantizedActivations::In(part.quantized, n_live_, w.n_rows);
    training_.backward_q8(w, begin, end, dy.Rows(first_row, end_row), y, scratch);
    return;
  }
  Multiply(Direction::kBackward, w, begin, end, *part.dy, first_row, n, y, scratch);
}

TrainingDecoder::Job TrainingDecoder::ReturnJob(std::vector<Return> parts, float* dx) const {
  const int64_t n_cols = parts.front().linear->w.n_cols;
  bool has_long_blocks = false;
  for (const Return& part : parts) {
    has_long_blocks |= Traits(part.linear->w.type).block_values > kTrainingAlign;
  }
  const int64_t align = has_long_blocks ? kBlockColumns : kTrainingAlign;
  int64_t cols = std::max(align, kBlockColumns);
  if (n_cols / cols < 4 * pool_.n_workers()) cols = align;
  const int64_t n_slices = (n_cols + cols - 1) / cols;
  const bool split_rows =
      n_slices < 4 * pool_.n_workers() && has_long_blocks && n_live_ >= kRowsWorthSplitting;
  const int64_t n_parts = split_rows ? pool_.n_workers() : 1;
  const int64_t rows = (n_live_ + n_parts - 1) / n_parts;
  return {n_slices * n_parts, [this, parts = std::move(parts), dx, cols, n_cols, n_parts, rows](
                                  int64_t piece, int worker) {
            const int64_t begin = piece / n_parts * cols;
            const int64_t end = std::min(n_cols, begin + cols);
            const int64_t first_row = piece % n_parts * rows;
            const int64_t end_row = std::min(n_live_, first_row + rows);
            bool add = false;
            for (const Return& part : parts) {
              MultiplyBackward(part, begin, end, first_row, end_row, dx, add, worker);
              add = true;
            }
          }};
}

// gradient [rank, rows.n_cols] += sum over rows of factors [rank, n_rows] times the row. Factors
// are as Turn leaves them.
TrainingDecoder::Job TrainingDecoder::GradientJob(const MatrixView& rows, const float* factors,
                                                  int64_t rank, float* gradient) {
  const int64_t n_cols = rows.n_cols;
  return {(n_cols + kBlockColumns - 1) / kBlockColumns, [=, this](int64_t piece, int worker) {
            const int64_t begin = piece * kBlockColumns;
            const int64_t end = std::min(n_cols, begin + kBlockColumns);
            const ProductOutput to{gradient, n_cols, true};
            if (shape_.is_bf16) {
              training_.backward_bf16(
                  rows, begin, end, {reinterpret_cast<const uint16_t*>(factors), rank, 2 * n_live_},
                  to, ProductScratch(worker));
            } else {
              training_.backward_f32(rows, begin, end, {factors, rank, n_live_}, to,
                                     ProductScratch(worker));
            }
          }};
}

// to [rank, n_rows] = h [n_rows, rank] turned. In bf16 each row of values stands in the first half
// of its row of floats, with a zero where a last pair has but one.
void TrainingDecoder::Turn(const float* h, int64_t rank, float* to) const {
  training_.transpose(h, n_live_, rank, rank, to, n_live_);
  if (!shape_.is_bf16) return;
  for (int64_t r = 0; r < rank; ++r) {
    uint16_t* narrow = reinterpret_cast<uint16_t*>(to + r * n_live_);
    training_.f32_to_bf16(to + r * n_live_, n_live_, narrow);
    narrow[n_live_] = 0;
  }
}

void TrainingDecoder::AddGradientJobs(LayerLinear which, const MatrixView& input,
                                      const MatrixView& dy, std::vector<Job>& jobs) {
  const LoraPair* pair = PairOf(which);
  if (pair == nullptr) return;
  const int i = static_cast<int>(which);
  float* turned_dh = at_.turned + 2 * i * pair->rank * shape_.n_rows;
  float* turned_h = turned_dh + pair->rank * shape_.n_rows;
  Turn(at_.dh[i], pair->rank, turned_dh);
  Turn(at_.tapes[static_cast<size_t>(layer_)].h[i], pair->rank, turned_h);
  jobs.push_back(GradientJob(input, turned_dh, pair->rank, parameters_->gradient_a(*pair)));
  jobs.push_back(GradientJob(dy, turned_h, pair->rank, parameters_->gradient_bt(*pair)));
}

void TrainingDecoder::Shrink(LayerLinear which, const float* x, int64_t begin, int64_t end,
                             int worker) const {
  const LoraPair* pair = PairOf(which);
  if (pair == nullptr) return;
  float* h = at_.tapes[static_cast<size_t>(layer_)].h[static_cast<int>(which)] + begin * pair->rank;
  training_.forward_f32(parameters_->A(*pair), 0, pair->rank, {x, end - begin, pair->shape.in},
                        {h, pair->rank, false}, ProductScratch(worker));
  for (int64_t i = 0; i < (end - begin) * pair->rank; ++i) h[i] *= parameters_->scale();
}

void TrainingDecoder::ShrinkBackward(LayerLinear which, const float* dy, int64_t begin, int64_t end,
                                     int worker) const {
  const LoraPair* pair = PairOf(which);
  if (pair == nullptr) return;
  float* dh = at_.dh[static_cast<int>(which)] + begin * pair->rank;
  training_.forward_f32(parameters_->Bt(*pair), 0, pair->rank, {dy, end - begin, pair->shape.out},
                        {dh, pair->rank, false}, ProductScratch(worker));
  for (int64_t i = 0; i < (end - begin) * pair->rank; ++i) dh[i] *= parameters_->scale();
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

// Where the projection reads what attention made.
ActivationRows TrainingDecoder::Attended(const LayerTape& tape) const {
  if (!IsCut(layer_)) return tape.attended;
  return {at_.act.data, spec_.d_q(), at_.act.is_bf16};
}

// What attention made, as the projection reads it, or as the gradient of its adapter does.
void TrainingDecoder::PutAttended(const LayerTape& tape, const LinearWeights& o,
                                  bool for_gradient) {
  const bool cut = IsCut(layer_);
  Reads reads = ReadsOf({&o});
  if (for_gradient) reads = {.rounded = true, .quantized = false};
  reads.rounded &= cut;  // Else it is.
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
    PutInput(reads, Attended(tape), x, begin, end);
    if (!for_gradient) Shrink(LayerLinear::kO, x, begin, end, worker);
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
  AddToStream(w.o, w.post_attention_norm, LayerLinear::kO, Attended(tape), stream, tape.raw_o,
              tape.x_mid);
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
