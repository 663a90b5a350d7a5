#pragma once

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"

#include "core/kernels/kernels.h"
#include "core/memory/aligned_buffer.h"
#include "core/threads/worker_pool.h"

namespace coterie {

// Which logits somebody wants: the n_best largest of the first n_tokens, with all that equal the
// last of them. Others may be given as -infinity. n_best 0: all logits are wanted.
struct LogitNeed {
  int64_t n_best = 0;
  int64_t n_tokens = 0;

  bool all() const { return n_best == 0; }
};

// Working memory of each worker during a pass.
struct WorkerAreas {
  uint8_t* base = nullptr;
  int64_t bytes = 0;  // Of each; MatmulScratchBytes(n_cols) at least.

  uint8_t* of(int worker) const { return base + worker * bytes; }
};

// A copy of an output head in 4 bits, read instead of the head to find the few rows whose
// logits can be among the largest; only those are computed from the head itself, bit for bit as
// otherwise. Nothing is guessed: with W = S + E, S the copy,
//   |w x - s x| = |e x| <= ||e m|| ||x / m||     for each row and any metric m > 0 (Cauchy-Schwarz)
// and ||e m|| is measured when a row is rounded, with room for what float sums lose. A row whose
// s x plus its bound is below n_best exact logits cannot be among the n_best. The bound is tightest
// in the mean for m = sqrt(|x|) per column; the root mean squares of the first hidden states stand
// for |x|.
//
// It is made in passing: one step after each of the first passes, so that no answer waits for it.
// Where too many rows can be among the best, a pass does without, and so do those after it: the
// more, the oftener that happens.
// Thread-compatible: one pass at a time.
class HeadScreen {
 public:
  // Whether a copy is so much smaller than the head that reading it first can pay.
  static bool Pays(const MatrixView& head);
  // Of a screen of this head, to be charged before one is made.
  static int64_t Bytes(const MatrixView& head);

  // The head is the same in all calls, and Pays.
  explicit HeadScreen(const MatrixView& head);

  // One step of making it, with the hidden state x [n_cols] of a pass: learns from it, or rounds
  // some more rows.
  void Advance(const MatrixView& head, const float* x, WorkerPool& pool, const WorkerAreas& areas);
  bool is_ready() const { return n_rounded_ == n_rows_; }
  // Passes that Screen was true for, and rows that it computed for them.
  int64_t n_screened() const { return n_screened_; }
  int64_t n_computed() const { return n_computed_; }

  // Writes logits [n_rows] of the rounded hidden state x (one token): exact where the need says,
  // and -infinity or exact elsewhere. Returns false, with logits unspecified, where computing all
  // of them is the better way. Requires is_ready() and a need that is not all().
  bool Screen(const MatrixView& head, LogitNeed need, const QuantizedActivations& x,
              WorkerPool& pool, const WorkerAreas& areas, float* logits);

 private:
  static constexpr int64_t kGroup = 32;        // Rows that are looked at together.
  static constexpr int64_t kLearnedRows = 16;  // Hidden states that the metric is made of.
  static constexpr int64_t kSteps = 64;        // In which all rows are rounded.

  // Bounds of the logits of a group's rows that a pass found.
  struct GroupBounds {
    float low = 0;   // One of them is at least this.
    float high = 0;  // None is above; infinite where one is not a number.
  };

  // Passes that do without after one that tried in vain.
  struct Pause {
    int64_t n_left = 0;
    int64_t length = 0;
  };

  void FixMetric();
  void RoundRows(const MatrixView& head, int64_t begin, int64_t end, uint8_t* area);
  float LengthOf(const QuantizedActivations& x) const;
  GroupBounds Bound(const float* logits, int64_t begin, int64_t end, float x_length) const;
  // Calls body(begin, end, worker) for runs of whole groups of the first n rows, in parallel.
  void ForRuns(int64_t n, WorkerPool& pool,
               absl::FunctionRef<void(int64_t begin, int64_t end, int worker)> body) const;
  float Threshold(const MatrixView& head, LogitNeed need, const QuantizedActivations& x,
                  float x_length, uint8_t* area, const float* logits);
  int64_t CountAbove(float threshold, int64_t n_tokens, float x_length, WorkerPool& pool,
                     const float* logits) const;
  void ComputeAbove(const MatrixView& head, float threshold, const QuantizedActivations& x,
                    float x_length, int64_t begin, int64_t end, uint8_t* area, float* logits) const;

  int64_t n_rows_;
  int64_t n_cols_;
  int64_t n_groups_;
  int64_t n_learned_ = 0;
  int64_t n_rounded_ = 0;
  Pause greedy_pause_;
  Pause pause_;  // Of other needs, which leave more rows.
  int64_t n_screened_ = 0;
  int64_t n_computed_ = 0;
  AlignedBuffer buffer_;  // What follows lies there.
  NibblePanels copy_;
  float* radius_;                // [n_rows], times the length of x: the bound of a row
  float* metric_;                // [n_cols]; while learning, sums of squares
  float* inverse_;               // [n_cols]
  float* low_;                   // [n_groups], of the last pass
  float* high_;                  // [n_groups]
  float* order_;                 // [n_groups], scratch
  std::vector<int32_t> listed_;  // Scratch of Threshold.
  std::vector<float> of_listed_;
};

}  // namespace coterie
