#include "lora/rehearsal.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>

#include "core/base/random_bits.h"
#include "core/base/status_macros.h"
#include "experts/cpu_decoder.h"
#include "experts/kv_cache.h"
#include "lora/stable_hash.h"

namespace coterie {
namespace {

// Tokens of a pass: a request that comes waits for one.
constexpr int64_t kPassTokens = 16;

// Draws from softmax(logits) as often as there are uniform numbers in [0, 1).
void Draw(absl::Span<const float> logits, absl::Span<const double> uniform, TokenId* drawn) {
  const float max = *std::max_element(logits.begin(), logits.end());
  std::vector<double> below(logits.size());
  double sum = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    sum += static_cast<double>(std::exp(logits[i] - max));
    below[i] = sum;
  }
  for (size_t k = 0; k < uniform.size(); ++k) {
    const auto it = std::upper_bound(below.begin(), below.end(), uniform[k] * sum);
    const auto last = static_cast<std::ptrdiff_t>(below.size()) - 1;
    drawn[k] = static_cast<TokenId>(std::min(it - below.begin(), last));
  }
}

// Of one passage, with as many labels for each place as it is to be rehearsed.
class Speaker {
 public:
  Speaker(const Expert& expert, int64_t max_tokens, WorkerPool& pool, Reservation charged)
      : expert_(expert),
        pool_(pool),
        charged_(std::move(charged)),
        kv_(expert.spec(), max_tokens),
        scratch_(expert.spec(), kPassTokens, kPassTokens, pool.n_workers()) {}

  absl::StatusOr<std::vector<TrainingSequence>> Say(const TrainingSequence& passage,
                                                    int64_t n_times, uint64_t seed,
                                                    const std::stop_token& stop) {
    std::vector<TrainingSequence> said(static_cast<size_t>(n_times), passage);
    for (TrainingSequence& one : said) one.labels = passage.tokens;
    const int64_t n = static_cast<int64_t>(passage.tokens.size()) - 1;  // Nothing follows the last.
    const uint64_t passage_seed = StableHash({reinterpret_cast<const char*>(passage.tokens.data()),
                                              passage.tokens.size() * sizeof(TokenId)},
                                             seed);
    COTERIE_RETURN_IF_ERROR(kv_.Truncate(0));
    for (int64_t first = 0; first < n; first += kPassTokens) {
      const int64_t n_pass = std::min(kPassTokens, n - first);
      // Waits for answers, as training does between two pieces.
      if (!pool_.RunBackground(
              1, [](int64_t, int) {}, stop))
        return Stopped();
      SequenceSlice slice;
      slice.kv = &kv_;
      slice.tokens = absl::MakeSpan(passage.tokens).subspan(first, n_pass);
      slice.logits = LogitRows::kAll;
      COTERIE_RETURN_IF_ERROR(expert_.Forward({&slice, 1}, Activations::kInt8, pool_, scratch_));
      const bool drawn = pool_.RunBackground(
          n_pass, [&](int64_t row, int) { DrawRow(first + row, row, passage_seed, said); }, stop);
      if (!drawn) return Stopped();
    }
    return said;
  }

 private:
  static absl::Status Stopped() { return absl::CancelledError("training was stopped"); }

  void DrawRow(int64_t place, int64_t row, uint64_t seed, std::vector<TrainingSequence>& said) {
    std::mt19937_64 chance(seed + static_cast<uint64_t>(place));
    std::vector<double> uniform(said.size());
    for (double& u : uniform) u = UnitInterval(chance());
    std::vector<TokenId> drawn(said.size());
    const size_t n_vocab = static_cast<size_t>(expert_.spec().n_vocab);
    Draw(scratch_.logits().subspan(static_cast<size_t>(row) * n_vocab, n_vocab), uniform,
         drawn.data());
    for (size_t k = 0; k < said.size(); ++k) {
      said[k].labels[static_cast<size_t>(place) + 1] = drawn[k];
    }
  }

  const Expert& expert_;
  WorkerPool& pool_;
  const Reservation charged_;
  KvCache kv_;
  DecoderScratch scratch_;
};

}  // namespace

absl::StatusOr<std::vector<TrainingSequence>> Rehearse(const Expert& expert,
                                                       absl::Span<const TrainingSequence> passages,
                                                       int64_t n_tokens, uint64_t seed,
                                                       WorkerPool& pool, MemoryBudget& budget,
                                                       const std::stop_token& stop) {
  int64_t longest = 0, n_all = 0;
  for (const TrainingSequence& passage : passages) {
    const int64_t n = static_cast<int64_t>(passage.tokens.size());
    longest = std::max(longest, n);
    n_all += n;
  }
  std::vector<TrainingSequence> rehearsed;
  if (n_tokens <= 0 || n_all == 0) return rehearsed;
  const int64_t bytes =
      expert.spec().KvBytes(longest) +
      DecoderScratch::Bytes(expert.spec(), kPassTokens, kPassTokens, pool.n_workers());
  COTERIE_ASSIGN_OR_RETURN(Reservation charged, budget.Reserve(Purpose::kTraining, bytes));
  Speaker speaker(expert, longest, pool, std::move(charged));
  const int64_t n_times = (n_tokens + n_all - 1) / n_all;
  std::vector<std::vector<TrainingSequence>> by_passage;
  int64_t n_first = 0;
  for (const TrainingSequence& passage : passages) {
    if (n_times == 1 && n_first >= n_tokens) break;
    n_first += static_cast<int64_t>(passage.tokens.size());
    COTERIE_ASSIGN_OR_RETURN(by_passage.emplace_back(), speaker.Say(passage, n_times, seed, stop));
  }
  int64_t n_said = 0;
  for (int64_t time = 0; time < n_times; ++time) {
    for (std::vector<TrainingSequence>& said : by_passage) {
      if (n_said >= n_tokens) return rehearsed;
      n_said += static_cast<int64_t>(said[static_cast<size_t>(time)].tokens.size());
      rehearsed.push_back(std::move(said[static_cast<size_t>(time)]));
    }
  }
  return rehearsed;
}

}  // namespace coterie
