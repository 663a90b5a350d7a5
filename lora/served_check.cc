#include "lora/served_check.h"

#include <algorithm>
#include <cmath>

#include "core/base/status_macros.h"
#include "experts/cpu_decoder.h"
#include "experts/kv_cache.h"

namespace coterie {
namespace {

constexpr size_t kProbeTokens = 64;

double LogSumExp(const float* logits, int64_t n) {
  const double max = static_cast<double>(*std::max_element(logits, logits + n));
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(logits[i]) - max);
  return max + std::log(sum);
}

}  // namespace

absl::StatusOr<Trainer::Likelihood> AnsweredLikelihood(const Expert& expert,
                                                       const LinearDeltaSet* deltas,
                                                       const TrainingSequence& sequence,
                                                       WorkerPool& pool, MemoryBudget& budget,
                                                       const std::stop_token& stop) {
  constexpr int64_t kPassTokens = 32;
  const ArchSpec& spec = expert.spec();
  const int64_t n = static_cast<int64_t>(sequence.tokens.size());
  const int64_t rank = deltas == nullptr ? 0 : deltas->max_rank();
  const int64_t scratch_bytes =
      DecoderScratch::Bytes(spec, kPassTokens, kPassTokens, pool.n_workers(), rank);
  COTERIE_ASSIGN_OR_RETURN(const std::vector<Reservation> charged,
                           budget.ReserveAll({{Purpose::kScratch, scratch_bytes},
                                              {Purpose::kKvCache, spec.KvBytes(n)}}));
  KvCache kv(spec, n);
  DecoderScratch scratch(spec, kPassTokens, kPassTokens, pool.n_workers(), rank);
  Trainer::Likelihood likelihood;
  for (int64_t first = 0; first < n - 1; first += kPassTokens) {
    const int64_t n_pass = std::min(kPassTokens, n - 1 - first);
    const auto targets = sequence.is_target.begin() + first + 1;
    const bool has_targets = std::find(targets, targets + n_pass, true) != targets + n_pass;
    // Waits for answers, as training does between two pieces.
    if (!pool.RunBackground(
            1, [](int64_t, int) {}, stop)) {
      return absl::CancelledError("measuring was stopped");
    }
    SequenceSlice slice;
    slice.kv = &kv;
    slice.tokens = absl::MakeSpan(sequence.tokens).subspan(first, n_pass);
    slice.logits = has_targets ? LogitRows::kAll : LogitRows::kNone;
    slice.delta = deltas;
    COTERIE_RETURN_IF_ERROR(expert.Forward({&slice, 1}, Activations::kInt8, pool, scratch));
    for (int64_t row = 0; row < n_pass; ++row) {
      const size_t next = static_cast<size_t>(first + row + 1);
      if (!sequence.is_target[next]) continue;
      const float* logits = scratch.logits().data() + row * spec.n_vocab;
      likelihood.nll +=
          LogSumExp(logits, spec.n_vocab) - static_cast<double>(logits[sequence.tokens[next]]);
      ++likelihood.n_tokens;
    }
  }
  return likelihood;
}

// The last tokens: those in the loss are at the end.
TrainingSequence ServedPart(const TrainingSequence& sequence) {
  TrainingSequence part = sequence;
  if (part.tokens.size() <= kProbeTokens) return part;
  const auto n_cut = static_cast<std::ptrdiff_t>(part.tokens.size() - kProbeTokens);
  part.tokens.erase(part.tokens.begin(), part.tokens.begin() + n_cut);
  part.is_target.erase(part.is_target.begin(), part.is_target.begin() + n_cut);
  part.is_target[0] = false;
  return part;
}

absl::StatusOr<Trainer::Likelihood> ServedLikelihood(const Expert& expert,
                                                     const DeltaSnapshot& deltas,
                                                     const TrainingSequence& sequence,
                                                     WorkerPool& pool, MemoryBudget& budget) {
  const TrainingSequence part = ServedPart(sequence);
  const int64_t n = static_cast<int64_t>(part.tokens.size());
  const ArchSpec& spec = expert.spec();
  const int64_t rank = deltas == nullptr ? 0 : deltas->max_rank();
  const int64_t scratch_bytes = DecoderScratch::Bytes(spec, n, n, pool.n_workers(), rank);
  COTERIE_ASSIGN_OR_RETURN(const std::vector<Reservation> charged,
                           budget.ReserveAll({{Purpose::kScratch, scratch_bytes},
                                              {Purpose::kKvCache, spec.KvBytes(n)}}));
  KvCache kv(spec, n);
  DecoderScratch scratch(spec, n, n, pool.n_workers(), rank);
  SequenceSlice slice;
  slice.kv = &kv;
  slice.tokens = part.tokens;
  slice.logits = LogitRows::kAll;
  slice.delta = deltas.get();
  COTERIE_RETURN_IF_ERROR(expert.Forward({&slice, 1}, Activations::kF32, pool, scratch));
  Trainer::Likelihood likelihood;
  for (int64_t t = 1; t < n; ++t) {
    if (!part.is_target[static_cast<size_t>(t)]) continue;
    const float* logits = scratch.logits().data() + (t - 1) * spec.n_vocab;
    likelihood.nll += LogSumExp(logits, spec.n_vocab) -
                      static_cast<double>(logits[part.tokens[static_cast<size_t>(t)]]);
    ++likelihood.n_tokens;
  }
  return likelihood;
}

}  // namespace coterie
