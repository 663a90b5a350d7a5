#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace coterie {

// How the next token is drawn.
struct SamplingOptions {
  float temperature = 0.7f;         // [0, 100]; 0 is greedy: the most likely token, nothing drawn.
  int top_k = 40;                   // >= 0; 0 keeps all.
  float top_p = 0.95f;              // (0, 1]; 1 keeps all.
  float min_p = 0.05f;              // [0, 1]; 0 keeps all.
  float repetition_penalty = 1.0f;  // [0.1, 10]; 1 changes nothing.
  int repetition_window = 64;       // Tokens, [0, 8192].
  std::optional<uint64_t> seed;     // None: a random one. 0 is a seed like any other.
  int n_logprobs = -1;              // [-1, 1000] alternatives to report; -1: no logprob at all.

  // kInvalidArgument naming the field, its value and its range.
  absl::Status Validate() const;
};

struct SampledToken {
  int32_t id = 0;
  // Natural logarithm of the token's probability, NaN unless n_logprobs >= 0. Log-probabilities are
  // those of the model: softmax of the logits as given, before penalty, temperature and cuts.
  float logprob = 0;
  // The n_logprobs most likely tokens with theirs, most likely first, equal ones by lower id.
  std::vector<std::pair<int32_t, float>> top;
};

// Draws tokens for one answer. Its state is the random generator and the recent tokens.
// Thread-compatible. Does not allocate after Create, `top` aside.
//
// The order is fixed; each step sees what the one before left:
//   1. penalty      of every distinct id among the last repetition_window tokens the logit x
//   becomes
//                   x / penalty if x > 0, x * penalty otherwise (Keskar et al. 2019, "CTRL")
//   2. temperature  x / temperature; below 1e-6 it counts as 0, and the largest logit wins
//   3. top-k        the k largest, equal ones by lower id
//   4. softmax      over what is left
//   5. top-p        the fewest most likely tokens whose probabilities reach top_p together
//   6. min-p        tokens at least min_p times as likely as the most likely one
// The most likely token always stays. (llama.cpp applies temperature last by default; the order
// here is that of Hugging Face transformers.)
//
// The generator is SplitMix64 (Steele, Lea, Flood 2014), one draw a token: equal options, seed,
// recent tokens and logits give the same token on every machine with IEEE floats.
class Sampler {
 public:
  // kInvalidArgument for options out of range or n_vocab < 1.
  static absl::StatusOr<Sampler> Create(const SamplingOptions& options, int64_t n_vocab);

  // Bytes of a sampler for this vocabulary, to be charged by whoever creates one.
  static int64_t Bytes(int64_t n_vocab);

  // Draws a token and remembers it as recent. A logit of -infinity is a token that cannot be drawn.
  //   kInvalidArgument   logits.size() != n_vocab
  //   kInternal          a logit is NaN or +infinity, or all are -infinity; nothing is drawn then
  absl::StatusOr<SampledToken> Sample(absl::Span<const float> logits);

  // So many of the largest logits decide what is drawn and reported, with all that equal the last
  // of them: the others may be given as -infinity. 0: all decide.
  int64_t n_decisive() const;

  // Counts tokens as recent for the penalty, such as those of the prompt. Ids outside the
  // vocabulary are ignored.
  void Observe(absl::Span<const int32_t> tokens);

  // The seed in use, to repeat an answer.
  uint64_t seed() const { return seed_; }
  const SamplingOptions& options() const { return options_; }

 private:
  // A token with its logit, later its weight: exp(logit - largest), so the most likely has 1.
  struct Candidate {
    float value;
    int32_t id;
  };
  static bool Before(const Candidate& a, const Candidate& b) {
    return a.value > b.value || (a.value == b.value && a.id < b.id);
  }

  Sampler(const SamplingOptions& options, int64_t n_vocab);

  absl::Status Scan(absl::Span<const float> logits);
  absl::Span<const float> Penalize(absl::Span<const float> logits);
  int32_t Argmax(absl::Span<const float> logits) const;
  int64_t CollectAtLeast(absl::Span<const float> logits, float threshold);
  int64_t CollectTop(absl::Span<const float> logits, int64_t k);
  int64_t Weigh(int64_t n, float scale);
  double MassOf(int64_t n) const;
  int64_t CollectDrawable(absl::Span<const float> logits, float scale);
  int32_t Draw(absl::Span<const float> logits);
  int64_t CutMass(int64_t n_candidates, double mass);
  int64_t Partition(int64_t begin, int64_t end);
  double Uniform();
  double Report(absl::Span<const float> logits, SampledToken& token);
  void Remember(int32_t id);

  SamplingOptions options_;
  int64_t n_vocab_;
  int64_t n_blocks_;
  uint64_t seed_;
  uint64_t state_;
  float largest_ = 0;                        // Of the logits scanned last.
  std::unique_ptr<float[]> block_max_;       // [n_blocks], of the logits scanned last
  std::unique_ptr<float[]> block_order_;     // [n_blocks], scratch of CollectTop
  std::unique_ptr<float[]> penalized_;       // [n_vocab]
  std::unique_ptr<Candidate[]> candidates_;  // [n_vocab]
  std::vector<int32_t> recent_;              // Ring of repetition_window ids.
  std::vector<int32_t> distinct_;            // Scratch: recent_ sorted.
  size_t next_recent_ = 0;
};

}  // namespace coterie
