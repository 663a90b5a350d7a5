#include "experts/proposal_length.h"

#include <algorithm>
#include <bit>

#include "experts/token_lookup.h"

namespace coterie {
namespace {

// Below this gain a proposal is not worth the noise of what it is computed from.
constexpr double kLeastGain = 1.05;
// Estimates move by this part of the difference, and by more while they are new: what they begin
// with is worth so many observations.
constexpr double kRate = 1.0 / 12;
constexpr int kWorthOfChances = 3, kWorthOfSlope = 1;
constexpr double kLeastSlope = 0.02, kMostSlope = 2.0;
// A machine with other work stalls now and then: one pass tells no more than that.
constexpr double kMostSurprise = 2.0;

double Toward(double estimate, double seen, double rate) {
  return estimate + (seen - estimate) * rate;
}

double RateOf(int n_seen, int worth_of_beginning) {
  return std::max(kRate, 1.0 / (worth_of_beginning + n_seen));
}

}  // namespace

int ProposalLength::IndexOf(int64_t match_length) {
  const int64_t beyond = std::max<int64_t>(1, match_length - TokenLookup::kLeastMatch + 1);
  return std::min(kLengths, static_cast<int>(std::bit_width(static_cast<uint64_t>(beyond)))) - 1;
}

int64_t ProposalLength::Choose(int64_t match_length, int64_t most) const {
  // What a pass costs more is told against one of one token.
  if (match_length == 0 || token_seconds_ == 0) return 0;
  int64_t best = 0;
  double best_gain = kLeastGain;
  double chance = 1, expected = 1;
  for (int64_t k = 1; k <= most; ++k) {
    chance *= chance_[static_cast<size_t>(IndexOf(match_length + k - 1))];
    expected += chance;
    const double gain = expected / CostOf(1 + k);
    if (gain <= best_gain) continue;
    best_gain = gain;
    best = k;
  }
  const double credit = kCredit + kCreditPerToken * static_cast<double>(n_written_);
  // What fewer tokens cost may still be there.
  while (best > 0 && CostOf(1 + best) - 1 > credit + saved_passes_) --best;
  return best;
}

void ProposalLength::NotePrediction(int64_t match_length, bool came_true) {
  const size_t i = static_cast<size_t>(IndexOf(match_length));
  const double rate = RateOf(++n_seen_[i], kWorthOfChances);
  chance_[i] = Toward(chance_[i], came_true ? 1.0 : 0.0, rate);
}

void ProposalLength::NotePass(int64_t n_tokens, double seconds) {
  ++n_written_;
  if (n_tokens == 1) {
    const double seen =
        token_seconds_ == 0 ? seconds : std::min(seconds, kMostSurprise * token_seconds_);
    token_seconds_ = Toward(token_seconds_, seen, RateOf(n_tokens_seen_++, 1));
    return;
  }
  if (token_seconds_ == 0) return;
  const double cost = std::min(seconds / token_seconds_, kMostSurprise * CostOf(n_tokens));
  const double slope = (cost - 1) / static_cast<double>(n_tokens - 1);
  slope_ = Toward(slope_, std::clamp(slope, kLeastSlope, kMostSlope),
                  RateOf(++n_slopes_seen_, kWorthOfSlope));
  saved_passes_ -= cost - 1;
}

void ProposalLength::NoteTaken() {
  ++n_written_;
  saved_passes_ += 1;
}

}  // namespace coterie
