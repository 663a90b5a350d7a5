#include "experts/head_screen.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <limits>

#include "core/base/lanes.h"
#include "core/memory/areas.h"

namespace coterie {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A head of fewer bits a weight is read about as fast as its copy.
constexpr double kLeastBits = 6;

// A row that is picked out takes about three times as long as one among its neighbours: more of
// them than this part of all do not pay, and after such a pass the next ones do not try.
constexpr int64_t kMostPicked = 8;
constexpr int64_t kLeastPause = 32;
constexpr int64_t kMostPause = 1024;

// By how much a float sum of n products may be off, relative to the sum of their magnitudes, as
// KernelTable promises of matmul_q8; with room for the few operations of the bound itself.
constexpr float kSumError = 3e-6f;
constexpr float kNormError = 2e-4f;

// Where the arrays of a screen lie from `base` on (null: measured); returns their size.
struct Layout {
  uint8_t* copy;
  float *radius, *metric, *inverse, *low, *high, *order;
};
int64_t Place(int64_t n_rows, int64_t n_cols, int64_t n_groups, uint8_t* base, Layout& at) {
  Areas areas(base);
  at.copy = areas.Take<uint8_t>(NibblePanels::Bytes(n_rows, n_cols));
  at.radius = areas.Take<float>(n_rows);
  at.metric = areas.Take<float>(n_cols);
  at.inverse = areas.Take<float>(n_cols);
  at.low = areas.Take<float>(n_groups);
  at.high = areas.Take<float>(n_groups);
  at.order = areas.Take<float>(n_groups);
  return areas.used();
}

int64_t CeilOf(int64_t n, int64_t size) { return (n + size - 1) / size; }

}  // namespace

bool HeadScreen::Pays(const MatrixView& head) {
  const int64_t bytes = head.n_rows * RowBytes(head.type, head.n_cols);
  const bool is_quantized = Traits(head.type).block_values > 1;
  const double bits =
      8.0 * static_cast<double>(bytes) / static_cast<double>(head.n_rows * head.n_cols);
  return is_quantized && bits >= kLeastBits;
}

int64_t HeadScreen::Bytes(const MatrixView& head) {
  Layout measured;
  return Place(head.n_rows, head.n_cols, CeilOf(head.n_rows, kGroup), nullptr, measured);
}

HeadScreen::HeadScreen(const MatrixView& head)
    : n_rows_(head.n_rows),
      n_cols_(head.n_cols),
      n_groups_(CeilOf(head.n_rows, kGroup)),
      buffer_(Bytes(head)) {
  buffer_.PreferLargePages();
  Layout at;
  Place(n_rows_, n_cols_, n_groups_, buffer_.data(), at);
  copy_ = {n_rows_, n_cols_, at.copy};
  radius_ = at.radius;
  metric_ = at.metric;
  inverse_ = at.inverse;
  low_ = at.low;
  high_ = at.high;
  order_ = at.order;
}

void HeadScreen::Advance(const MatrixView& head, const float* x, WorkerPool& pool,
                         const WorkerAreas& areas) {
  if (n_learned_ < kLearnedRows) {
    for (int64_t c = 0; c < n_cols_; ++c) metric_[c] += x[c] * x[c];
    if (++n_learned_ == kLearnedRows) FixMetric();
    return;
  }
  const int64_t begin = n_rounded_;
  const int64_t end = std::min(n_rows_, begin + CeilOf(n_rows_, kSteps));
  const int64_t n_pieces = CeilOf(end - begin, kGroup);
  pool.Run(n_pieces, [&](int64_t piece, int worker) {
    const int64_t first = begin + piece * kGroup;
    RoundRows(head, first, std::min(end, first + kGroup), areas.of(worker));
  });
  n_rounded_ = end;
}

// Sums of squares become the metric: the square root of the root mean square of each column, which
// is raised by half of their mean so that a column that is rarely used does not count for nothing.
void HeadScreen::FixMetric() {
  double mean = 0;
  for (int64_t c = 0; c < n_cols_; ++c) {
    metric_[c] = std::sqrt(metric_[c] / kLearnedRows);
    mean += metric_[c];
  }
  mean /= static_cast<double>(n_cols_);
  const bool is_usable = std::isfinite(mean) && mean > 1e-20;
  for (int64_t c = 0; c < n_cols_; ++c) {
    metric_[c] = is_usable ? std::sqrt(metric_[c] + 0.5f * static_cast<float>(mean)) : 1.0f;
    inverse_[c] = 1.0f / metric_[c];
  }
}

void HeadScreen::RoundRows(const MatrixView& head, int64_t begin, int64_t end, uint8_t* area) {
  const KernelTable& kernels = Kernels();
  float* row = reinterpret_cast<float*>(area);
  for (int64_t r = begin; r < end; ++r) {
    kernels.dequantize_row(head.type, head.row(r), n_cols_, row);
    const RowRounding rounding = kernels.round_to_nibbles(row, metric_, r, copy_);
    // Both products are sums of floats: of magnitudes up to norm, and up to norm + error.
    radius_[r] = rounding.error * (1 + kNormError) +
                 kSumError * (1 + kNormError) * (2.5f * rounding.norm + rounding.error);
  }
}

// ||x / m||
float HeadScreen::LengthOf(const QuantizedActivations& x) const {
  double sum = 0;
  for (int64_t place = 0; place < x.n_blocks(); ++place) {
    const ActivationBlock& block = *x.At(0, place);
    const float* inverse = inverse_ + x.BlockAt(place) * kActivationBlock;
    for (int i = 0; i < kActivationBlock; ++i) {
      const double value = static_cast<double>(block.scale) * block.values[i] * inverse[i];
      sum += value * value;
    }
  }
  return static_cast<float>(std::sqrt(sum) * (1 + 1e-6));
}

HeadScreen::GroupBounds HeadScreen::Bound(const float* logits, int64_t begin, int64_t end,
                                          float x_length) const {
  Lanes low = Lanes{} - kInfinity, high = low;
  IntLanes not_a_number = {};
  int64_t r = begin;
  for (; r + kLaneCount <= end; r += kLaneCount) {
    const Lanes logit = LoadLanes(logits + r);
    const Lanes bound = LoadLanes(radius_ + r) * x_length;
    const Lanes least = logit - bound, most = logit + bound;
    low = least > low ? least : low;
    high = most > high ? most : high;
    not_a_number |= most != most;
  }
  GroupBounds bounds{-kInfinity, -kInfinity};
  const auto take_in = [&](float least, float most, bool unknown) {
    if (least > bounds.low) bounds.low = least;
    if (unknown) bounds.high = kInfinity;
    if (most > bounds.high) bounds.high = most;
  };
  for (int lane = 0; lane < kLaneCount; ++lane) {
    take_in(low[lane], high[lane], not_a_number[lane] != 0);
  }
  for (; r < end; ++r) {
    const float bound = radius_[r] * x_length;
    take_in(logits[r] - bound, logits[r] + bound, std::isnan(logits[r] + bound));
  }
  return bounds;
}

void HeadScreen::ForRuns(
    int64_t n, WorkerPool& pool,
    absl::FunctionRef<void(int64_t begin, int64_t end, int worker)> body) const {
  const int64_t wanted_runs = 8 * pool.n_workers();
  const int64_t rows = CeilOf(CeilOf(n, kGroup), wanted_runs) * kGroup;
  pool.Run(CeilOf(n, rows), [&](int64_t run, int worker) {
    body(run * rows, std::min(n, (run + 1) * rows), worker);
  });
}

// What n_best exact logits reach: the groups with the n_best highest low bounds each have a row
// that is as high, and their rows that look best are computed to see how high they are.
float HeadScreen::Threshold(const MatrixView& head, LogitNeed need, const QuantizedActivations& x,
                            float x_length, uint8_t* area, const float* logits) {
  const int64_t n_groups = CeilOf(need.n_tokens, kGroup);
  std::copy(low_, low_ + n_groups, order_);
  float* const kth = order_ + (need.n_best - 1);
  std::nth_element(order_, kth, order_ + n_groups, std::greater<float>());
  const float low = *kth;
  listed_.clear();
  for (int64_t g = 0; g < n_groups; ++g) {
    if (low_[g] < low) continue;
    const int64_t begin = g * kGroup, end = std::min(need.n_tokens, begin + kGroup);
    int64_t best = begin;
    float best_low = -kInfinity;
    for (int64_t r = begin; r < end; ++r) {
      const float row_low = logits[r] - radius_[r] * x_length;
      if (row_low > best_low) {
        best = r;
        best_low = row_low;
      }
    }
    listed_.push_back(static_cast<int32_t>(best));
  }
  of_listed_.resize(listed_.size());
  Kernels().matmul_q8_rows(head, listed_.data(), static_cast<int64_t>(listed_.size()), x,
                           of_listed_.data(), area);
  // A logit that is not a number decides nothing: whoever draws will find it among the computed.
  for (float& logit : of_listed_) {
    if (std::isnan(logit)) logit = -kInfinity;
  }
  const auto nth = of_listed_.begin() + (need.n_best - 1);
  std::nth_element(of_listed_.begin(), nth, of_listed_.end(), std::greater<float>());
  return std::max(low, *nth);
}

int64_t HeadScreen::CountAbove(float threshold, int64_t n_tokens, float x_length, WorkerPool& pool,
                               const float* logits) const {
  std::atomic<int64_t> n_above = 0;
  ForRuns(n_tokens, pool, [&](int64_t begin, int64_t end, int) {
    int64_t n = 0;
    for (int64_t first = begin; first < end; first += kGroup) {
      if (high_[first / kGroup] < threshold) continue;
      for (int64_t r = first; r < std::min(end, first + kGroup); ++r) {
        n += !(logits[r] + radius_[r] * x_length < threshold);
      }
    }
    n_above += n;
  });
  return n_above;
}

void HeadScreen::ComputeAbove(const MatrixView& head, float threshold,
                              const QuantizedActivations& x, float x_length, int64_t begin,
                              int64_t end, uint8_t* area, float* logits) const {
  constexpr int64_t kAtOnce = 512;
  int32_t rows[kAtOnce];
  float exact[kAtOnce];
  int64_t n = 0;
  const auto compute = [&] {
    Kernels().matmul_q8_rows(head, rows, n, x, exact, area);
    for (int64_t i = 0; i < n; ++i) logits[rows[i]] = exact[i];
    n = 0;
  };
  for (int64_t first = begin; first < end; first += kGroup) {
    const int64_t last = std::min(end, first + kGroup);
    if (high_[first / kGroup] < threshold) {
      std::fill(logits + first, logits + last, -kInfinity);
      continue;
    }
    for (int64_t r = first; r < last; ++r) {
      if (logits[r] + radius_[r] * x_length < threshold) {
        logits[r] = -kInfinity;
      } else {
        rows[n++] = static_cast<int32_t>(r);
      }
    }
    if (n > kAtOnce - kGroup) compute();
  }
  compute();
}

bool HeadScreen::Screen(const MatrixView& head, LogitNeed need, const QuantizedActivations& x,
                        WorkerPool& pool, const WorkerAreas& areas, float* logits) {
  need.n_tokens = std::min(need.n_tokens, n_rows_);
  if (need.n_best > CeilOf(need.n_tokens, kGroup)) return false;
  Pause& pause = need.n_best == 1 ? greedy_pause_ : pause_;
  if (pause.n_left > 0) {
    --pause.n_left;
    return false;
  }
  const float x_length = LengthOf(x);
  ForRuns(need.n_tokens, pool, [&](int64_t begin, int64_t end, int) {
    Kernels().multiply_nibbles(copy_, begin, end, x, logits);
    for (int64_t first = begin; first < end; first += kGroup) {
      const GroupBounds bounds = Bound(logits, first, std::min(end, first + kGroup), x_length);
      low_[first / kGroup] = bounds.low;
      high_[first / kGroup] = bounds.high;
    }
  });
  const float threshold = Threshold(head, need, x, x_length, areas.of(0), logits);
  const int64_t n_above = CountAbove(threshold, need.n_tokens, x_length, pool, logits);
  if (n_above > n_rows_ / kMostPicked) {
    pause.length = std::clamp(2 * pause.length, kLeastPause, kMostPause);
    pause.n_left = pause.length;
    return false;
  }
  ForRuns(need.n_tokens, pool, [&](int64_t begin, int64_t end, int worker) {
    ComputeAbove(head, threshold, x, x_length, begin, end, areas.of(worker), logits);
  });
  std::fill(logits + need.n_tokens, logits + n_rows_, -kInfinity);
  pause.length = 0;
  ++n_screened_;
  n_computed_ += n_above;
  return true;
}

}  // namespace coterie
