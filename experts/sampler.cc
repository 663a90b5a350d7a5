#include "experts/sampler.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "core/base/lanes.h"
#include "core/base/random_bits.h"
#include "core/base/status_macros.h"

namespace coterie {
namespace {

constexpr int64_t kBlock = 64;  // Logits under one maximum.
constexpr int kMaxWindow = 8192;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kGreedyBelow = 1e-6f;

constexpr int kStep = 4 * kLaneCount;  // Four independent chains hide the latency of an operation.

// e^x for x <= 0 with a relative error below 3e-7, 0 below -87. x = n ln 2 + r with |r| <= ln 2 /
// 2, then the Taylor series of e^r to r^6; the first term left out is below 1.2e-7.
inline Lanes ExpOfNonPositive(Lanes x) {
  constexpr float kLowest = -87.0f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer.
  const IntLanes counts = x > kLowest;
  const Lanes lowest = Lanes{} + kLowest;
  const Lanes clamped = counts ? x : lowest;
  const Lanes n = (clamped * 1.44269504f + kRound) - kRound;
  // ln 2 in two parts, the first exact in few bits, so that r keeps all of its own.
  const Lanes r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  Lanes series = r * (1.0f / 720) + 1.0f / 120;
  series = series * r + 1.0f / 24;
  series = series * r + 1.0f / 6;
  series = series * r + 0.5f;
  series = series * r + 1.0f;
  series = series * r + 1.0f;
  const IntLanes power = (__builtin_convertvector(n, IntLanes) + 127) << 23;
  return reinterpret_cast<Lanes>(
      counts & reinterpret_cast<IntLanes>(series * reinterpret_cast<Lanes>(power)));
}

inline float ExpOfNonPositive(float x) { return ExpOfNonPositive(Lanes{} + x)[0]; }

// Sum of e^((x - largest) * scale).
double SumOfExp(absl::Span<const float> logits, float largest, float scale) {
  constexpr size_t kRun = 4096;  // Values summed before the sums go to double.
  double total = 0;
  for (size_t begin = 0; begin < logits.size(); begin += kRun) {
    const size_t n = std::min(kRun, logits.size() - begin);
    const float* x = logits.data() + begin;
    Lanes sums[4] = {};
    size_t i = 0;
    for (; i + kStep <= n; i += kStep) {
      for (int chain = 0; chain < 4; ++chain) {
        sums[chain] += ExpOfNonPositive((LoadLanes(x + i + chain * kLaneCount) - largest) * scale);
      }
    }
    for (; i < n; ++i) total += ExpOfNonPositive((x[i] - largest) * scale);
    const Lanes sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    total += (sum[0] + sum[1]) + (sum[2] + sum[3]);
  }
  return total;
}

struct BlockScan {
  float largest;
  bool has_nan;
};

inline BlockScan ScanBlock(const float* x, int64_t n) {
  Lanes largest[4];
  IntLanes nan[4] = {};
  for (Lanes& lanes : largest) lanes = Lanes{} - kInfinity;
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    for (int chain = 0; chain < 4; ++chain) {
      const Lanes value = LoadLanes(x + i + chain * kLaneCount);
      largest[chain] = value > largest[chain] ? value : largest[chain];
      nan[chain] |= value != value;
    }
  }
  const IntLanes any_nan = (nan[0] | nan[1]) | (nan[2] | nan[3]);
  BlockScan scan{-kInfinity, (any_nan[0] | any_nan[1] | any_nan[2] | any_nan[3]) != 0};
  for (const Lanes& lanes : largest) {
    for (int lane = 0; lane < kLaneCount; ++lane)
      scan.largest = std::max(scan.largest, lanes[lane]);
  }
  for (; i < n; ++i) {
    scan.largest = std::max(scan.largest, x[i]);
    scan.has_nan |= x[i] != x[i];
  }
  return scan;
}

template <typename T>
absl::Status CheckRange(absl::string_view field, T value, T low, T high) {
  if (value >= low && value <= high) return absl::OkStatus();  // False for NaN.
  return absl::InvalidArgumentError(absl::StrCat("sampling option is out of range: ", field, "=",
                                                 value, ", allowed=[", low, ", ", high, "]"));
}

uint64_t RandomSeed() {
  uint64_t seed = 0;
  if (getentropy(&seed, sizeof(seed)) != 0)
    seed = static_cast<uint64_t>(absl::GetCurrentTimeNanos());
  return seed;
}

}  // namespace

absl::Status SamplingOptions::Validate() const {
  COTERIE_RETURN_IF_ERROR(CheckRange("temperature", temperature, 0.0f, 100.0f));
  COTERIE_RETURN_IF_ERROR(CheckRange("top_k", top_k, 0, std::numeric_limits<int>::max()));
  COTERIE_RETURN_IF_ERROR(CheckRange("top_p", top_p, std::numeric_limits<float>::min(), 1.0f));
  COTERIE_RETURN_IF_ERROR(CheckRange("min_p", min_p, 0.0f, 1.0f));
  COTERIE_RETURN_IF_ERROR(CheckRange("repetition_penalty", repetition_penalty, 0.1f, 10.0f));
  COTERIE_RETURN_IF_ERROR(CheckRange("repetition_window", repetition_window, 0, kMaxWindow));
  return CheckRange("n_logprobs", n_logprobs, -1, 1000);
}

absl::StatusOr<Sampler> Sampler::Create(const SamplingOptions& options, int64_t n_vocab) {
  COTERIE_RETURN_IF_ERROR(options.Validate());
  if (n_vocab < 1 || n_vocab > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a sampler needs a vocabulary that int32 counts: n_vocab=", n_vocab));
  }
  return Sampler(options, n_vocab);
}

int64_t Sampler::Bytes(int64_t n_vocab) {
  const int64_t n_blocks = (n_vocab + kBlock - 1) / kBlock;
  return 2 * n_blocks * static_cast<int64_t>(sizeof(float)) +
         n_vocab * static_cast<int64_t>(sizeof(float) + sizeof(Candidate)) +
         2 * kMaxWindow * static_cast<int64_t>(sizeof(int32_t)) +
         static_cast<int64_t>(sizeof(Sampler));
}

// The large arrays are left uninitialised on purpose: pages that no request touches stay unused.
Sampler::Sampler(const SamplingOptions& options, int64_t n_vocab)
    : options_(options),
      n_vocab_(n_vocab),
      n_blocks_((n_vocab + kBlock - 1) / kBlock),
      seed_(options.seed.has_value() ? *options.seed : RandomSeed()),
      state_(seed_),
      block_max_(new float[n_blocks_]),
      block_order_(new float[n_blocks_]),
      penalized_(new float[n_vocab]),
      candidates_(new Candidate[n_vocab]) {
  recent_.reserve(options.repetition_window);
  distinct_.reserve(options.repetition_window);
}

absl::StatusOr<SampledToken> Sampler::Sample(absl::Span<const float> logits) {
  if (static_cast<int64_t>(logits.size()) != n_vocab_) {
    return absl::InvalidArgumentError(absl::StrCat(
        "logits are not one per token: n_logits=", logits.size(), ", n_vocab=", n_vocab_));
  }
  COTERIE_RETURN_IF_ERROR(Scan(logits));
  SampledToken token;
  token.logprob = std::numeric_limits<float>::quiet_NaN();
  const float largest_given = largest_;
  // Alternatives first: the penalty changes the block maxima.
  const double log_total = options_.n_logprobs >= 0 ? Report(logits, token) : 0;
  absl::Span<const float> adjusted = logits;
  if (options_.repetition_penalty != 1.0f && !recent_.empty()) {
    adjusted = Penalize(logits);
    COTERIE_RETURN_IF_ERROR(Scan(adjusted));
  }
  token.id = options_.temperature < kGreedyBelow ? Argmax(adjusted) : Draw(adjusted);
  if (options_.n_logprobs >= 0) {
    token.logprob = static_cast<float>(logits[token.id] - largest_given - log_total);
  }
  Remember(token.id);
  return token;
}

int64_t Sampler::n_decisive() const {
  if (options_.n_logprobs >= 0 || options_.repetition_penalty < 1.0f) return 0;
  const int64_t n_best = options_.temperature < kGreedyBelow ? 1 : options_.top_k;
  // The penalty may put each recent token behind others.
  const int64_t n_penalized = options_.repetition_penalty > 1.0f ? options_.repetition_window : 0;
  return n_best > 0 && n_best + n_penalized < n_vocab_ ? n_best + n_penalized : 0;
}

// Fills block_max_ and largest_.
absl::Status Sampler::Scan(absl::Span<const float> logits) {
  bool has_nan = false;
  largest_ = -kInfinity;
  for (int64_t block = 0; block < n_blocks_; ++block) {
    const int64_t begin = block * kBlock;
    const BlockScan scan = ScanBlock(logits.data() + begin, std::min(kBlock, n_vocab_ - begin));
    block_max_[block] = scan.largest;
    largest_ = std::max(largest_, scan.largest);
    has_nan |= scan.has_nan;
  }
  if (has_nan) return absl::InternalError("the model gave a logit that is not a number");
  if (std::isinf(largest_)) {
    return absl::InternalError(
        absl::StrCat("no token can be drawn: the largest logit is ", largest_));
  }
  return absl::OkStatus();
}

absl::Span<const float> Sampler::Penalize(absl::Span<const float> logits) {
  std::copy(logits.begin(), logits.end(), penalized_.get());
  distinct_.assign(recent_.begin(), recent_.end());
  std::sort(distinct_.begin(), distinct_.end());
  distinct_.erase(std::unique(distinct_.begin(), distinct_.end()), distinct_.end());
  for (int32_t id : distinct_) {
    float& x = penalized_[id];
    x = x > 0 ? x / options_.repetition_penalty : x * options_.repetition_penalty;
  }
  return {penalized_.get(), logits.size()};
}

int32_t Sampler::Argmax(absl::Span<const float> logits) const {
  const int64_t block =
      std::find(block_max_.get(), block_max_.get() + n_blocks_, largest_) - block_max_.get();
  const auto from = logits.begin() + block * kBlock;
  return static_cast<int32_t>(std::find(from, logits.end(), largest_) - logits.begin());
}

// Puts every token whose logit reaches the threshold into candidates_, by id; returns how many.
int64_t Sampler::CollectAtLeast(absl::Span<const float> logits, float threshold) {
  int64_t n = 0;
  for (int64_t block = 0; block < n_blocks_; ++block) {
    if (block_max_[block] < threshold || block_max_[block] == -kInfinity) continue;
    const int64_t end = std::min((block + 1) * kBlock, n_vocab_);
    for (int64_t id = block * kBlock; id < end; ++id) {
      // -infinity stays out even where the threshold is that low.
      if (logits[id] >= threshold && logits[id] > -kInfinity) {
        candidates_[n++] = {logits[id], static_cast<int32_t>(id)};
      }
    }
  }
  return n;
}

// Puts the k largest into candidates_, in order, and returns how many there are. The k-th largest
// block maximum bounds the k-th largest logit from below, so that few blocks are looked into.
int64_t Sampler::CollectTop(absl::Span<const float> logits, int64_t k) {
  float threshold = -kInfinity;
  if (k <= n_blocks_) {
    std::copy(block_max_.get(), block_max_.get() + n_blocks_, block_order_.get());
    float* const kth = block_order_.get() + (k - 1);
    std::nth_element(block_order_.get(), kth, block_order_.get() + n_blocks_,
                     std::greater<float>());
    threshold = *kth;
  }
  int64_t n = CollectAtLeast(logits, threshold);
  Candidate* const first = candidates_.get();
  if (n > k) {
    std::nth_element(first, first + k, first + n, Before);
    n = k;
  }
  std::sort(first, first + n, Before);
  return n;
}

// Replaces the logits of the first n candidates by weights, drops what min-p forbids and returns
// how many are left.
int64_t Sampler::Weigh(int64_t n, float scale) {
  int64_t n_kept = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float weight = ExpOfNonPositive((candidates_[i].value - largest_) * scale);
    if (weight > 0 && weight >= options_.min_p) candidates_[n_kept++] = {weight, candidates_[i].id};
  }
  return n_kept;
}

double Sampler::MassOf(int64_t n) const {
  double mass = 0;
  for (int64_t i = 0; i < n; ++i) mass += candidates_[i].value;
  return mass;
}

// The steps from top-k to min-p: leaves the tokens that may be drawn in candidates_ with their
// weights and returns how many they are. Applying min-p before top-p cuts changes nothing: both
// keep a run of the most likely tokens, and top-p counts the mass of all that top-k left.
int64_t Sampler::CollectDrawable(absl::Span<const float> logits, float scale) {
  const bool cuts_mass = options_.top_p < 1.0f;
  if (options_.top_k > 0 && options_.top_k < n_vocab_) {
    const int64_t n = CollectTop(logits, options_.top_k);
    double total = 0;
    for (int64_t i = 0; i < n; ++i) {
      total += ExpOfNonPositive((candidates_[i].value - largest_) * scale);
    }
    const int64_t n_kept = Weigh(n, scale);
    return cuts_mass ? CutMass(n_kept, options_.top_p * total) : n_kept;
  }
  const double mass = cuts_mass ? options_.top_p * SumOfExp(logits, largest_, scale) : kInfinity;
  // What min-p drops need not be looked at; a little slack leaves the edge to the comparison of
  // weights. Beyond 88 every weight is 0.
  const float reach = options_.min_p > 0 ? 0.001f - std::log(options_.min_p) * 1.001f : 88.0f;
  // Most distributions are narrow, so a first look takes only what is near the largest.
  for (float look = cuts_mass ? std::min(6.0f, reach) : reach;; look = std::min(2 * look, reach)) {
    const float threshold = largest_ - look * options_.temperature;
    const int64_t n_kept = Weigh(CollectAtLeast(logits, threshold), scale);
    if (look < reach && MassOf(n_kept) < mass) continue;
    return cuts_mass ? CutMass(n_kept, mass) : n_kept;
  }
}

int32_t Sampler::Draw(absl::Span<const float> logits) {
  const int64_t n = CollectDrawable(logits, 1.0f / options_.temperature);
  double left = Uniform() * MassOf(n);
  for (int64_t i = 0; i + 1 < n; ++i) {
    left -= candidates_[i].value;
    if (left < 0) return candidates_[i].id;
  }
  return candidates_[n - 1].id;
}

// Moves the fewest heaviest candidates that reach `mass` together to the front and returns how many
// they are; at least one. Selects by partition, in linear expected time, instead of sorting, and
// with steps written out here, so that the order left behind is the same everywhere.
int64_t Sampler::CutMass(int64_t n_candidates, double mass) {
  int64_t begin = 0;
  int64_t end = n_candidates;
  while (end - begin > 1) {
    const int64_t middle = Partition(begin, end);
    double mass_before = 0;
    for (int64_t i = begin; i < middle; ++i) mass_before += candidates_[i].value;
    if (mass_before >= mass) {
      end = middle;
      continue;
    }
    mass -= mass_before + candidates_[middle].value;
    if (mass <= 0) return middle + 1;
    begin = middle + 1;
  }
  return std::max<int64_t>(1, end);
}

// Places the median of first, middle and last where it belongs among [begin, end), heavier ones
// before it, and returns that place.
int64_t Sampler::Partition(int64_t begin, int64_t end) {
  Candidate* const c = candidates_.get();
  const int64_t last = end - 1;
  const int64_t middle = begin + (end - begin) / 2;
  if (Before(c[middle], c[begin])) std::swap(c[middle], c[begin]);
  if (Before(c[last], c[begin])) std::swap(c[last], c[begin]);
  if (Before(c[middle], c[last])) std::swap(c[middle], c[last]);  // The median is now last.
  int64_t place = begin;
  for (int64_t i = begin; i < last; ++i) {
    if (Before(c[i], c[last])) std::swap(c[i], c[place++]);
  }
  std::swap(c[place], c[last]);
  return place;
}

// In [0, 1), from the upper 53 bits of the generator's next output.
double Sampler::Uniform() {
  state_ += kSplitMixStep;
  return UnitInterval(MixBits(state_));
}

// Fills token.top and returns log(sum of exp(logit - largest)).
double Sampler::Report(absl::Span<const float> logits, SampledToken& token) {
  const double log_total = std::log(SumOfExp(logits, largest_, 1.0f));
  if (options_.n_logprobs == 0) return log_total;
  const int64_t n = CollectTop(logits, std::min<int64_t>(options_.n_logprobs, n_vocab_));
  token.top.reserve(n);
  for (int64_t i = 0; i < n; ++i) {
    token.top.emplace_back(candidates_[i].id,
                           static_cast<float>(candidates_[i].value - largest_ - log_total));
  }
  return log_total;
}

void Sampler::Observe(absl::Span<const int32_t> tokens) {
  for (int32_t id : tokens) {
    if (id >= 0 && id < n_vocab_) Remember(id);
  }
}

void Sampler::Remember(int32_t id) {
  const size_t window = static_cast<size_t>(options_.repetition_window);
  if (window == 0) return;
  if (recent_.size() < window) {
    recent_.push_back(id);
    return;
  }
  recent_[next_recent_] = id;
  next_recent_ = (next_recent_ + 1) % window;
}

}  // namespace coterie
