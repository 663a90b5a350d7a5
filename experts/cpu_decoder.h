#pragma once

// The CPU back end of experts/decoder.h.

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

#include "core/kernels/kernels.h"
#include "core/memory/aligned_buffer.h"
#include "core/threads/worker_pool.h"
#include "experts/arch_spec.h"
#include "experts/decoder_weights.h"
#include "experts/head_screen.h"
#include "experts/kv_cache.h"
#include "experts/linear_delta.h"

namespace coterie {

// How activations enter matrix products with quantised weights.
enum class Activations : uint8_t {
  kInt8,  // Rounded to 8 bits per block of 32: fast, within 0.03 nats of float32.
  kF32,   // Not rounded: the reference, several times slower.
};

// Which rows of a slice get logits.
enum class LogitRows : uint8_t { kNone, kLast, kAll };

// The tokens of one sequence that a pass appends to its KV cache.
struct SequenceSlice {
  KvCache* kv = nullptr;
  absl::Span<const int32_t> tokens;
  LogitRows logits = LogitRows::kLast;
  const LinearDeltaSet* delta = nullptr;  // An adapter; slices of a batch may have different ones.
  LogitNeed need = {};                    // Of the rows that get logits.

  int64_t n_tokens() const { return static_cast<int64_t>(tokens.size()); }
  // Its first n tokens; the last token's logits are no longer wanted if it is not among them.
  SequenceSlice First(int64_t n) const;
};

// Working memory of passes over at most max_tokens rows with logits for at most max_logit_rows,
// and of passes over at most max_scored_tokens with logits for all of them, which take nothing more
// where the former are long; with adapters of at most max_rank. Reused from pass to pass;
// thread-compatible; one pass at a time. Bytes() is what to charge.
class DecoderScratch {
 public:
  static int64_t Bytes(const ArchSpec& spec, int64_t max_tokens, int64_t max_logit_rows,
                       int n_workers, int64_t max_rank = 0, int64_t max_scored_tokens = 0);

  DecoderScratch(const ArchSpec& spec, int64_t max_tokens, int64_t max_logit_rows, int n_workers,
                 int64_t max_rank = 0, int64_t max_scored_tokens = 0);

  int64_t max_tokens() const { return max_tokens_; }
  int64_t max_logit_rows() const { return max_logit_rows_; }
  int64_t max_rank() const { return max_rank_; }
  // Of one sequence in one pass.
  int64_t MaxTokens(LogitRows logits) const {
    if (logits != LogitRows::kAll) return max_tokens_;
    return std::max(max_scored_tokens_, std::min(max_tokens_, max_logit_rows_));
  }
  bool Holds(int64_t n_tokens, int64_t n_logit_rows) const {
    return (n_tokens <= max_tokens_ && n_logit_rows <= max_logit_rows_) ||
           n_tokens <= max_scored_tokens_;
  }

  // Logits of the last pass, [n_logit_rows, n_vocab].
  absl::Span<const float> logits() const { return logits_; }

  // Copies one row of another pass's logits, which logits() then is, as if that pass had been run
  // here. Requires max_logit_rows() >= 1.
  void KeepLogits(absl::Span<const float> row);

 private:
  friend class CpuDecoder;

  int64_t max_tokens_;
  int64_t max_logit_rows_;
  int n_workers_;
  int64_t max_rank_;
  int64_t max_scored_tokens_;
  AlignedBuffer buffer_;
  absl::Span<const float> logits_;
};

// One forward pass over a batch of slices. Lives for that pass only; the operations are called by
// RunDecoder in order. The caller has checked token ids, KV room and scratch size.
class CpuDecoder {
 public:
  // The screen, of this head, may be null; it is used where only the best logits of one row are
  // wanted, and made ready by passes that append one token.
  CpuDecoder(const ArchSpec& spec, absl::Span<const SequenceSlice> slices, Activations activations,
             WorkerPool& pool, DecoderScratch& scratch, HeadScreen* screen = nullptr);

  void Embed(const MatrixView& embedding);
  void NormQkvRopeAppend(int64_t layer, const LayerWeights& w);
  void Attend(int64_t layer);
  void ProjectResidual(int64_t layer, const LayerWeights& w);
  void NormGateUpActivate(int64_t layer, const LayerWeights& w);
  void DownResidual(int64_t layer, const LayerWeights& w);
  void NormHead(const float* norm, const LinearWeights& head);

 private:
  friend class DecoderScratch;

  // Cosines and sines of the angles by which rows turn, [n_rows, rope_dims / 2].
  struct Rotations {
    float* cos = nullptr;
    float* sin = nullptr;
  };
  // Pointers into the scratch, all row-major with one row per token.
  struct Layout {
    float* x = nullptr;          // [n_rows, d_model], the residual stream
    float* normed = nullptr;     // [n_rows, d_model]
    float* q = nullptr;          // [n_rows, d_q]
    float* k = nullptr;          // [n_rows, d_kv]
    float* v = nullptr;          // [n_rows, d_kv]
    float* attended = nullptr;   // [n_rows, d_q]
    float* gate = nullptr;       // [n_rows, d_ff]
    float* up = nullptr;         // [n_rows, d_ff]
    float* projected = nullptr;  // [n_rows, d_model]
    Rotations rotations;         // of layers that see everything
    Rotations window_rotations;  // of windowed ones; null if there are none
    float* logits = nullptr;     // [n_logit_rows, n_vocab]
    float* narrow = nullptr;     // [kMaxProducts, n_rows, max_rank], scale * A x of adapters
    uint8_t* quantized = nullptr;
    WorkerAreas workers;
  };
  // Lays the scratch out from `base` (null to measure) and returns its size in bytes.
  static int64_t Place(const ArchSpec& spec, int64_t n_rows, int64_t n_logit_rows, int n_workers,
                       int64_t max_rank, uint8_t* base, Layout& layout);

  static constexpr int kMaxProducts = 3;  // Of one phase: q, k and v.
  // One product y = W input + bias of a phase; y is also added to `residual` where given.
  struct Product {
    const LinearWeights* linear = nullptr;
    LayerLinear which = LayerLinear::kQ;  // Which adapters know it by; the head has none.
    float* y = nullptr;                   // [n_rows, w.n_rows]
    float* residual = nullptr;
  };
  // Products of one input that are computed in one parallel phase.
  struct Phase {
    int64_t layer = 0;  // kNoLayer for the head.
    const float* input = nullptr;
    int64_t n_rows = 0;
    int64_t n_cols = 0;
    absl::Span<const Product> products;
  };
  static constexpr int64_t kNoLayer = -1;

  // Of each product of a phase, the pieces of A x that are not there yet.
  using NarrowPieces = std::array<std::atomic<int64_t>, kMaxProducts>;

  void Multiply(const Phase& phase);
  QuantizedActivations Quantize(const Phase& phase);
  // False where the screen has no part in this pass.
  bool ScreenHead(const LinearWeights& head);
  // A x of kRowsPerPiece rows from `begin` on.
  void NarrowRows(const Phase& phase, size_t product, int64_t begin);
  void MultiplyRows(const Phase& phase, size_t product, const QuantizedActivations& quantized,
                    int64_t begin, int64_t end, const NarrowPieces& narrow_left, int worker);
  bool MayHaveDeltas(const Phase& phase) const { return max_rank_ > 0 && phase.layer != kNoLayer; }
  // Calls body(delta, first_row, end_row, narrow) where rows [begin, end) have an adapter that
  // changes a product; narrow: A x of first_row.
  template <typename Body>
  void ForDeltas(const Phase& phase, size_t product, int64_t begin, int64_t end, Body body);
  // Adds W input to the residual stream, normed first where there is a norm.
  void AddToStream(int64_t layer, LayerLinear which, const LinearWeights& linear, const float* norm,
                   const float* input);
  void NormRows(const float* norm, const float* x, int64_t n_rows, float* y);
  // Runs body(begin, end) over all rows, a few at a time.
  void ForRowRanges(int64_t n_rows, absl::FunctionRef<void(int64_t begin, int64_t end)> body);
  void ForRows(int64_t n_rows, absl::FunctionRef<void(int64_t row)> body);
  void ComputeRotations(const RopeAngles& angles, const Rotations& rotations);
  // Norms a head of q or k where there is a norm, and rotates it.
  void PrepareHead(float* head, const float* norm, const float* cos, const float* sin) const;
  void PrepareAndAppend(int64_t layer, const LayerWeights& w, int64_t row);
  // The rows of a slice: of its tokens from n_skipped on.
  struct SliceRows {
    int64_t first = 0;
    int64_t n = 0;
    int64_t n_logits = 0;  // of the last ones
    int64_t n_skipped = 0;
    int64_t end() const { return first + n; }
  };
  // A run of a slice's rows, from `begin`, whose attention is computed in one piece a KV head.
  struct AttentionTile {
    size_t slice = 0;
    int64_t begin = 0;
    int64_t n_tokens = 0;
    int64_t n_kv = 0;  // Keys up to its last token.
  };
  void CutAttentionTiles();
  // Drops the rows that nobody wants logits of: once the last layer has the keys and values of all
  // rows, nothing more comes of them.
  void KeepLogitRows();

  const ArchSpec& spec_;
  const KernelTable& kernels_;
  absl::Span<const SequenceSlice> slices_;
  const Activations activations_;
  WorkerPool& pool_;
  HeadScreen* const screen_;
  int64_t n_rows_ = 0;
  int64_t max_rank_ = 0;              // of the slices' adapters
  std::vector<SliceRows> rows_of_;    // of each slice
  std::vector<size_t> slice_of_row_;  // [n_rows], before KeepLogitRows
  std::vector<AttentionTile> tiles_;  // those with most keys first
  Layout at_;
};

}  // namespace coterie
