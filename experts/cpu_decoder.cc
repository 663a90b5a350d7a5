#include "experts/cpu_decoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/base/check.h"
#include "core/memory/areas.h"

namespace coterie {
namespace {

// Tokens of one sequence that one piece of an attention phase handles.
constexpr int64_t kAttentionTile = 32;

// Rows of tokens per piece in phases that work on whole rows.
constexpr int64_t kRowsPerPiece = 4;

bool IsFloat(TensorType type) { return Traits(type).block_values == 1; }

// Asks for the part of B that adds to rows [begin, end) of a product: it arrives while W is read.
void Prefetch(const MatrixView& b, int64_t begin, int64_t end) {
  constexpr int64_t kLine = 64 / sizeof(uint16_t);
  for (int64_t k = 0; k < b.n_rows; ++k) {
    const uint16_t* row = reinterpret_cast<const uint16_t*>(b.row(k));
    for (int64_t at = begin; at < end; at += kLine) __builtin_prefetch(row + at, 0, 2);
  }
}

}  // namespace

SequenceSlice SequenceSlice::First(int64_t n) const {
  SequenceSlice first = *this;
  first.tokens = tokens.first(static_cast<size_t>(n));
  if (n < n_tokens() && logits == LogitRows::kLast) first.logits = LogitRows::kNone;
  return first;
}

int64_t CpuDecoder::Place(const ArchSpec& spec, int64_t n_rows, int64_t n_logit_rows, int n_workers,
                          int64_t max_rank, uint8_t* base, Layout& at) {
  Areas areas(base);
  const int64_t widest = std::max({spec.d_model, spec.d_q(), spec.d_ff});
  at.x = areas.Take<float>(n_rows * spec.d_model);
  at.normed = areas.Take<float>(n_rows * spec.d_model);
  at.q = areas.Take<float>(n_rows * spec.d_q());
  at.k = areas.Take<float>(n_rows * spec.d_kv());
  at.v = areas.Take<float>(n_rows * spec.d_kv());
  at.attended = areas.Take<float>(n_rows * spec.d_q());
  at.gate = areas.Take<float>(n_rows * spec.d_ff);
  at.up = areas.Take<float>(n_rows * spec.d_ff);
  at.projected = areas.Take<float>(n_rows * spec.d_model);
  const int64_t n_angles = n_rows * spec.rope_dims / 2;
  at.rotations = {areas.Take<float>(n_angles), areas.Take<float>(n_angles)};
  if (!spec.windowed.empty()) {
    at.window_rotations = {areas.Take<float>(n_angles), areas.Take<float>(n_angles)};
  }
  at.logits = areas.Take<float>(n_logit_rows * spec.n_vocab);
  at.narrow = areas.Take<float>(kMaxProducts * n_rows * max_rank);
  at.quantized = areas.Take<uint8_t>(QuantizedActivations::Bytes(n_rows, widest));
  const int64_t attention_floats =
      AttentionScratchFloats(std::min(n_rows, kAttentionTile), spec.n_heads / spec.n_kv_heads,
                             spec.head_dim, spec.context_tokens);
  const int64_t worker_bytes =
      (std::max(MatmulScratchBytes(widest), attention_floats * 4) + 63) / 64 * 64;
  at.workers = {areas.Take<uint8_t>(worker_bytes * n_workers), worker_bytes};
  return areas.used();
}

int64_t DecoderScratch::Bytes(const ArchSpec& spec, int64_t max_tokens, int64_t max_logit_rows,
                              int n_workers, int64_t max_rank, int64_t max_scored_tokens) {
  const auto bytes_of = [&](int64_t n_rows, int64_t n_logit_rows) {
    CpuDecoder::Layout measured;
    return CpuDecoder::Place(spec, n_rows, n_logit_rows, n_workers, max_rank, nullptr, measured);
  };
  return std::max(bytes_of(max_tokens, max_logit_rows),
                  bytes_of(max_scored_tokens, max_scored_tokens));
}

DecoderScratch::DecoderScratch(const ArchSpec& spec, int64_t max_tokens, int64_t max_logit_rows,
                               int n_workers, int64_t max_rank, int64_t max_scored_tokens)
    : max_tokens_(max_tokens),
      max_logit_rows_(max_logit_rows),
      n_workers_(n_workers),
      max_rank_(max_rank),
      max_scored_tokens_(max_scored_tokens),
      buffer_(Bytes(spec, max_tokens, max_logit_rows, n_workers, max_rank, max_scored_tokens)) {}

void DecoderScratch::KeepLogits(absl::Span<const float> row) {
  std::memcpy(buffer_.data(), row.data(), row.size() * sizeof(float));
  logits_ = {buffer_.as<float>(), row.size()};
}

CpuDecoder::CpuDecoder(const ArchSpec& spec, absl::Span<const SequenceSlice> slices,
                       Activations activations, WorkerPool& pool, DecoderScratch& scratch,
                       HeadScreen* screen)
    : spec_(spec),
      kernels_(Kernels()),
      slices_(slices),
      activations_(activations),
      pool_(pool),
      screen_(screen) {
  int64_t n_logit_rows = 0;
  for (const SequenceSlice& slice : slices) {
    const int64_t n_tokens = static_cast<int64_t>(slice.tokens.size());
    const int64_t n_logits = slice.logits == LogitRows::kAll    ? n_tokens
                             : slice.logits == LogitRows::kLast ? 1
                                                                : 0;
    slice_of_row_.insert(slice_of_row_.end(), slice.tokens.size(), rows_of_.size());
    rows_of_.push_back({n_rows_, n_tokens, n_logits, 0});
    n_rows_ += n_tokens;
    n_logit_rows += n_logits;
    if (slice.delta != nullptr) max_rank_ = std::max(max_rank_, slice.delta->max_rank());
  }
  COTERIE_CHECK(scratch.Holds(n_rows_, n_logit_rows) && pool.n_workers() <= scratch.n_workers_ &&
                    max_rank_ <= scratch.max_rank_,
                "a batch fits its scratch");
  // Laid out for the rows at hand, so that a short pass touches few pages.
  Place(spec, n_rows_, n_logit_rows, scratch.n_workers_, max_rank_, scratch.buffer_.data(), at_);
  scratch.logits_ = {at_.logits, static_cast<size_t>(n_logit_rows * spec.n_vocab)};
  CutAttentionTiles();
  ComputeRotations(spec.rope_angles, at_.rotations);
  if (!spec.windowed.empty()) ComputeRotations(spec.window_rope_angles, at_.window_rotations);
}

void CpuDecoder::CutAttentionTiles() {
  tiles_.clear();
  for (size_t s = 0; s < slices_.size(); ++s) {
    const int64_t position = slices_[s].kv->n_tokens() + rows_of_[s].n_skipped;
    for (int64_t begin = 0; begin < rows_of_[s].n; begin += kAttentionTile) {
      const int64_t n = std::min(kAttentionTile, rows_of_[s].n - begin);
      tiles_.push_back({s, begin, n, position + begin + n});
    }
  }
  // The longest pieces of work are handed out first, so that workers end together.
  std::stable_sort(tiles_.begin(), tiles_.end(),
                   [](const AttentionTile& a, const AttentionTile& b) { return a.n_kv > b.n_kv; });
}

void CpuDecoder::KeepLogitRows() {
  const auto is_whole = [](const SliceRows& rows) { return rows.n == rows.n_logits; };
  if (std::all_of(rows_of_.begin(), rows_of_.end(), is_whole)) return;
  int64_t n_kept = 0;
  for (SliceRows& rows : rows_of_) {
    const int64_t n_dropped = rows.n - rows.n_logits;
    const auto move = [&](float* values, int64_t n_cols) {
      std::memmove(values + n_kept * n_cols, values + (rows.first + n_dropped) * n_cols,
                   static_cast<size_t>(rows.n_logits * n_cols) * sizeof(float));
    };
    move(at_.x, spec_.d_model);
    move(at_.q, spec_.d_q());
    rows = {n_kept, rows.n_logits, rows.n_logits, n_dropped};
    n_kept += rows.n;
  }
  n_rows_ = n_kept;
  CutAttentionTiles();
}

void CpuDecoder::ComputeRotations(const RopeAngles& angles, const Rotations& rotations) {
  const int64_t n_pairs = spec_.rope_dims / 2;
  for (size_t s = 0; s < slices_.size(); ++s) {
    const int64_t at = rows_of_[s].first * n_pairs;
    angles.Rotations(slices_[s].kv->n_tokens(), static_cast<int64_t>(slices_[s].tokens.size()),
                     spec_.rope_dims, rotations.cos + at, rotations.sin + at);
  }
}

void CpuDecoder::ForRowRanges(int64_t n_rows,
                              absl::FunctionRef<void(int64_t begin, int64_t end)> body) {
  pool_.Run((n_rows + kRowsPerPiece - 1) / kRowsPerPiece, [&](int64_t piece, int) {
    body(piece * kRowsPerPiece, std::min(n_rows, (piece + 1) * kRowsPerPiece));
  });
}

void CpuDecoder::ForRows(int64_t n_rows, absl::FunctionRef<void(int64_t)> body) {
  if (n_rows <= kRowsPerPiece) {
    for (int64_t row = 0; row < n_rows; ++row) body(row);
    return;
  }
  ForRowRanges(n_rows, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) body(row);
  });
}

void CpuDecoder::NormRows(const float* norm, const float* x, int64_t n_rows, float* y) {
  const int64_t d = spec_.d_model;
  ForRows(n_rows, [&](int64_t row) {
    kernels_.rms_norm(x + row * d, norm, d, spec_.norm_epsilon, y + row * d);
  });
}

template <typename Body>
void CpuDecoder::ForDeltas(const Phase& phase, size_t product, int64_t begin, int64_t end,
                           Body body) {
  if (!MayHaveDeltas(phase)) return;
  float* narrow = at_.narrow + static_cast<int64_t>(product) * n_rows_ * max_rank_;
  for (size_t s = 0; s < slices_.size(); ++s) {
    if (slices_[s].delta == nullptr) continue;
    const int64_t from = std::max(begin, rows_of_[s].first);
    const int64_t to = std::min(end, rows_of_[s].end());
    if (from >= to) continue;
    const ServedDelta* delta = slices_[s].delta->Find(phase.layer, phase.products[product].which);
    if (delta != nullptr) body(*delta, from, to, narrow + from * max_rank_);
  }
}

QuantizedActivations CpuDecoder::Quantize(const Phase& phase) {
  const auto quantized = QuantizedActivations::In(at_.quantized, phase.n_rows, phase.n_cols);
  if (activations_ == Activations::kInt8) {
    ForRowRanges(phase.n_rows, [&](int64_t begin, int64_t end) {
      kernels_.quantize_activations(phase.input + begin * phase.n_cols, phase.n_cols,
                                    quantized.Rows(begin, end));
    });
  }
  return quantized;
}

void CpuDecoder::Multiply(const Phase& phase) {
  if (phase.n_rows == 0) return;
  const QuantizedActivations quantized = Quantize(phase);
  int64_t n_outputs = 0;
  for (const Product& product : phase.products) n_outputs += product.linear->w.n_rows;
  // Few long pieces: each is one stream through the file. Several per worker even out the load.
  const int64_t wanted_pieces = 4 * pool_.n_workers();
  int64_t rows_per_piece = (n_outputs + wanted_pieces - 1) / wanted_pieces;
  rows_per_piece = (rows_per_piece + kMatmulRowAlign - 1) / kMatmulRowAlign * kMatmulRowAlign;
  int64_t n_pieces = 0;
  for (const Product& product : phase.products) {
    n_pieces += (product.linear->w.n_rows + rows_per_piece - 1) / rows_per_piece;
  }
  // Pieces that compute A x of adapters have the lowest numbers: others may wait for them, and do
  // only when they have W x.
  const int64_t n_ranges =
      MayHaveDeltas(phase) ? (phase.n_rows + kRowsPerPiece - 1) / kRowsPerPiece : 0;
  const int64_t n_narrow = n_ranges * static_cast<int64_t>(phase.products.size());
  NarrowPieces narrow_left;
  for (auto& left : narrow_left) left = n_ranges;
  pool_.Run(n_narrow + n_pieces, [&](int64_t piece, int worker) {
    if (piece < n_narrow) {
      const size_t product = static_cast<size_t>(piece / n_ranges);
      NarrowRows(phase, product, piece % n_ranges * kRowsPerPiece);
      if (narrow_left[product].fetch_sub(1) == 1) narrow_left[product].notify_all();
      return;
    }
    piece -= n_narrow;
    for (size_t p = 0; p < phase.products.size(); ++p) {
      const int64_t n_outputs_here = phase.products[p].linear->w.n_rows;
      const int64_t n = (n_outputs_here + rows_per_piece - 1) / rows_per_piece;
      if (piece >= n) {
        piece -= n;
        continue;
      }
      const int64_t begin = piece * rows_per_piece;
      MultiplyRows(phase, p, quantized, begin, std::min(n_outputs_here, begin + rows_per_piece),
                   narrow_left, worker);
      return;
    }
  });
}

void CpuDecoder::NarrowRows(const Phase& phase, size_t product, int64_t begin) {
  ForDeltas(phase, product, begin, std::min(phase.n_rows, begin + kRowsPerPiece),
            [&](const ServedDelta& delta, int64_t from, int64_t to, float* narrow) {
              kernels_.low_rank_narrow(delta.a, phase.input + from * phase.n_cols, to - from,
                                       phase.n_cols, delta.scale, narrow, max_rank_);
            });
}

void CpuDecoder::MultiplyRows(const Phase& phase, size_t product_index,
                              const QuantizedActivations& quantized, int64_t begin, int64_t end,
                              const NarrowPieces& narrow_left, int worker) {
  const Product& product = phase.products[product_index];
  const MatrixView& w = product.linear->w;
  uint8_t* scratch = at_.workers.of(worker);
  ForDeltas(phase, product_index, 0, phase.n_rows,
            [&](const ServedDelta& delta, int64_t, int64_t, const float*) {
              Prefetch(delta.b, begin, end);
            });
  if (activations_ == Activations::kInt8 && !IsFloat(w.type)) {
    kernels_.matmul_q8(w, begin, end, quantized, product.y, w.n_rows, scratch);
  } else {
    kernels_.matmul_f32(w, begin, end, phase.input, phase.n_rows, w.n_cols, product.y, w.n_rows,
                        scratch);
  }
  const std::atomic<int64_t>& left = narrow_left[product_index];
  for (int64_t n = left.load(); n > 0; n = left.load()) left.wait(n);
  ForDeltas(phase, product_index, 0, phase.n_rows,
            [&](const ServedDelta& delta, int64_t from, int64_t to, const float* narrow) {
              kernels_.low_rank_widen(delta.b, begin, end, narrow, to - from, max_rank_,
                                      product.y + from * w.n_rows, w.n_rows);
            });
  for (int64_t row = 0; row < phase.n_rows; ++row) {
    float* y = product.y + row * w.n_rows + begin;
    if (product.linear->bias != nullptr) kernels_.add(product.linear->bias + begin, end - begin, y);
    if (product.residual != nullptr) {
      kernels_.add(y, end - begin, product.residual + row * w.n_rows + begin);
    }
  }
}

void CpuDecoder::Embed(const MatrixView& embedding) {
  for (size_t s = 0; s < slices_.size(); ++s) {
    for (size_t t = 0; t < slices_[s].tokens.size(); ++t) {
      const int64_t row = rows_of_[s].first + static_cast<int64_t>(t);
      kernels_.dequantize_row(embedding.type, embedding.row(slices_[s].tokens[t]), spec_.d_model,
                              at_.x + row * spec_.d_model);
      if (spec_.embedding_scale == 1) continue;
      for (int64_t i = 0; i < spec_.d_model; ++i) {
        at_.x[row * spec_.d_model + i] *= spec_.embedding_scale;
      }
    }
  }
}

void CpuDecoder::NormQkvRopeAppend(int64_t layer, const LayerWeights& w) {
  NormRows(w.attention_norm, at_.x, n_rows_, at_.normed);
  Multiply({layer,
            at_.normed,
            n_rows_,
            spec_.d_model,
            {{&w.q, LayerLinear::kQ, at_.q},
             {&w.k, LayerLinear::kK, at_.k},
             {&w.v, LayerLinear::kV, at_.v}}});
  ForRows(n_rows_, [&](int64_t row) { PrepareAndAppend(layer, w, row); });
  if (layer == spec_.n_layers - 1) KeepLogitRows();
}

void CpuDecoder::PrepareHead(float* head, const float* norm, const float* cos,
                             const float* sin) const {
  if (norm != nullptr) {
    kernels_.rms_norm(head, norm, spec_.head_dim, spec_.norm_epsilon, head);
  }
  const auto rotate =
      spec_.rope == RopeKind::kAdjacent ? kernels_.rope_adjacent : kernels_.rope_halves;
  rotate(head, spec_.rope_dims / 2, cos, sin);
}

void CpuDecoder::PrepareAndAppend(int64_t layer, const LayerWeights& w, int64_t row) {
  const size_t s = slice_of_row_[static_cast<size_t>(row)];
  KvCache& kv = *slices_[s].kv;
  const int64_t head_dim = spec_.head_dim;
  const Rotations& rotations = spec_.IsWindowed(layer) ? at_.window_rotations : at_.rotations;
  const float* cos = rotations.cos + row * (spec_.rope_dims / 2);
  const float* sin = rotations.sin + row * (spec_.rope_dims / 2);
  for (int64_t h = 0; h < spec_.n_heads; ++h) {
    PrepareHead(at_.q + row * spec_.d_q() + h * head_dim, w.q_norm, cos, sin);
  }
  const int64_t position = kv.n_tokens() + row - rows_of_[s].first;
  for (int64_t h = 0; h < spec_.n_kv_heads; ++h) {
    float* k = at_.k + row * spec_.d_kv() + h * head_dim;
    PrepareHead(k, w.k_norm, cos, sin);
    kernels_.put_key(k, head_dim, position, kv.keys(layer, h));
    kernels_.f32_to_f16(at_.v + row * spec_.d_kv() + h * head_dim, head_dim,
                        kv.values(layer, h) + position * head_dim);
  }
}

void CpuDecoder::Attend(int64_t layer) {
  const int64_t group = spec_.n_heads / spec_.n_kv_heads;
  const int64_t n_tiles = static_cast<int64_t>(tiles_.size());
  // Where keys have too few heads for all workers, two read them for half of the query heads each.
  const bool halve = n_tiles * spec_.n_kv_heads < pool_.n_workers() && group % 2 == 0;
  const int64_t n_heads = halve ? group / 2 : group;
  const int64_t n_parts = spec_.n_heads / n_heads;
  pool_.Run(n_tiles * n_parts, [&](int64_t piece, int worker) {
    const AttentionTile& tile = tiles_[static_cast<size_t>(piece / n_parts)];
    const int64_t head = piece % n_parts * n_heads;
    const int64_t kv_head = head / group;
    KvCache& kv = *slices_[tile.slice].kv;
    const int64_t first =
        (rows_of_[tile.slice].first + tile.begin) * spec_.d_q() + head * spec_.head_dim;
    AttentionArgs args;
    args.n_tokens = tile.n_tokens;
    args.n_heads = n_heads;
    args.head_dim = spec_.head_dim;
    args.first_position = tile.n_kv - tile.n_tokens;
    args.n_kv = tile.n_kv;
    args.q = at_.q + first;
    args.q_stride = spec_.d_q();
    args.k = kv.keys(layer, kv_head);
    args.v = kv.values(layer, kv_head);
    args.scale = spec_.query_scale;
    args.window = spec_.IsWindowed(layer) ? spec_.window : 0;
    args.out = at_.attended + first;
    args.out_stride = spec_.d_q();
    args.scratch = reinterpret_cast<float*>(at_.workers.of(worker));
    kernels_.attend(args);
  });
}

void CpuDecoder::AddToStream(int64_t layer, LayerLinear which, const LinearWeights& linear,
                             const float* norm, const float* input) {
  const Product product{&linear, which, at_.projected, norm == nullptr ? at_.x : nullptr};
  Multiply({layer, input, n_rows_, linear.w.n_cols, {&product, 1}});
  if (norm == nullptr) return;
  const int64_t d = spec_.d_model;
  ForRows(n_rows_, [&](int64_t row) {
    float* y = at_.projected + row * d;
    kernels_.rms_norm(y, norm, d, spec_.norm_epsilon, y);
    kernels_.add(y, d, at_.x + row * d);
  });
}

void CpuDecoder::ProjectResidual(int64_t layer, const LayerWeights& w) {
  AddToStream(layer, LayerLinear::kO, w.o, w.post_attention_norm, at_.attended);
}

void CpuDecoder::NormGateUpActivate(int64_t layer, const LayerWeights& w) {
  NormRows(w.ffn_norm, at_.x, n_rows_, at_.normed);
  Multiply({layer,
            at_.normed,
            n_rows_,
            spec_.d_model,
            {{&w.gate, LayerLinear::kGate, at_.gate}, {&w.up, LayerLinear::kUp, at_.up}}});
  const auto activate = spec_.gating == Gating::kSilu ? kernels_.silu_mul : kernels_.gelu_tanh_mul;
  ForRows(n_rows_, [&](int64_t row) {
    float* gate = at_.gate + row * spec_.d_ff;
    activate(gate, at_.up + row * spec_.d_ff, spec_.d_ff, gate);
  });
}

void CpuDecoder::DownResidual(int64_t layer, const LayerWeights& w) {
  AddToStream(layer, LayerLinear::kDown, w.down, w.post_ffn_norm, at_.gate);
}

void CpuDecoder::NormHead(const float* norm, const LinearWeights& head) {
  for (const SequenceSlice& slice : slices_) {
    slice.kv->Extend(static_cast<int64_t>(slice.tokens.size()));
  }
  NormRows(norm, at_.x, n_rows_, at_.normed);
  if (ScreenHead(head)) return;
  const Product logits{.linear = &head, .y = at_.logits};
  Multiply({kNoLayer, at_.normed, n_rows_, spec_.d_model, {&logits, 1}});
}

bool CpuDecoder::ScreenHead(const LinearWeights& head) {
  const bool may = screen_ != nullptr && n_rows_ == 1 && slices_.size() == 1 &&
                   !slices_[0].need.all() && activations_ == Activations::kInt8 &&
                   head.bias == nullptr;
  if (!may) return false;
  if (!screen_->is_ready()) {
    if (slices_[0].n_tokens() == 1) screen_->Advance(head.w, at_.normed, pool_, at_.workers);
    return false;
  }
  const Phase phase{kNoLayer, at_.normed, 1, spec_.d_model, {}};
  return screen_->Screen(head.w, slices_[0].need, Quantize(phase), pool_, at_.workers, at_.logits);
}

}  // namespace coterie
