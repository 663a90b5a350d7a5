#include "lora/promotion_gate.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "absl/strings/str_format.h"

namespace coterie {
namespace {

// Two-sided 99 % quantiles of Student's t by degrees of freedom 1 to 30; 2.576 and a little beyond.
constexpr double kT99[] = {63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250, 3.169,
                           3.106,  3.055, 3.012, 2.977, 2.947, 2.921, 2.898, 2.878, 2.861, 2.845,
                           2.831,  2.819, 2.807, 2.797, 2.787, 2.779, 2.771, 2.763, 2.756, 2.750};

double T99(int64_t degrees) {
  const int64_t n = static_cast<int64_t>(std::size(kT99));
  if (degrees <= n) return kT99[std::max<int64_t>(degrees, 1) - 1];
  return 2.576 + 5.2 / static_cast<double>(degrees);
}

double PerToken(const Trainer::Likelihood& likelihood) {
  return likelihood.nll / static_cast<double>(std::max<int64_t>(1, likelihood.n_tokens));
}

std::vector<double> PerToken(absl::Span<const Trainer::Likelihood> likelihoods) {
  std::vector<double> out;
  for (const Trainer::Likelihood& likelihood : likelihoods) out.push_back(PerToken(likelihood));
  return out;
}

double MeanOverTokens(absl::Span<const Trainer::Likelihood> likelihoods) {
  Trainer::Likelihood total;
  for (const Trainer::Likelihood& likelihood : likelihoods) {
    total.nll += likelihood.nll;
    total.n_tokens += likelihood.n_tokens;
  }
  return PerToken(total);
}

}  // namespace

PairedMean MeanOfDifferences(absl::Span<const double> before, absl::Span<const double> after) {
  PairedMean out;
  out.n = static_cast<int64_t>(std::min(before.size(), after.size()));
  if (out.n == 0) return out;
  const double n = static_cast<double>(out.n);
  for (size_t i = 0; i < static_cast<size_t>(out.n); ++i) out.mean += (before[i] - after[i]) / n;
  double squares = 0;
  for (size_t i = 0; i < static_cast<size_t>(out.n); ++i) {
    const double deviation = before[i] - after[i] - out.mean;
    squares += deviation * deviation;
  }
  const double error = out.n > 1 ? std::sqrt(squares / (n - 1) / n) : INFINITY;
  out.low = out.mean - T99(out.n - 1) * error;
  out.high = out.mean + T99(out.n - 1) * error;
  return out;
}

GateReport JudgeCandidate(absl::Span<const Trainer::Likelihood> incumbent,
                          absl::Span<const Trainer::Likelihood> candidate,
                          absl::Span<const Trainer::Likelihood> general_base,
                          absl::Span<const Trainer::Likelihood> general_candidate,
                          const GateOptions& options) {
  GateReport report;
  report.gain = MeanOfDifferences(PerToken(incumbent), PerToken(candidate));
  report.held_out_before = MeanOverTokens(incumbent);
  report.held_out_after = MeanOverTokens(candidate);
  report.forgetting = MeanOverTokens(general_candidate) - MeanOverTokens(general_base);
  const std::string gain =
      absl::StrFormat("%+.3f nats a token on %d held-out cases (99%% interval %+.3f to %+.3f)",
                      report.gain.mean, report.gain.n, report.gain.low, report.gain.high);
  if (report.gain.n < options.least_cases) {
    report.verdict =
        absl::StrFormat("no gain yet: %d held-out cases are too few to tell, %d are needed",
                        report.gain.n, options.least_cases);
  } else if (!(report.gain.low > 0)) {
    const bool is_worse = report.gain.high < 0;
    report.verdict = "no gain yet: " + gain + (is_worse ? " is a loss" : " is within the noise");
  } else if (!(report.gain.low > options.least_gain)) {
    report.verdict =
        absl::StrFormat("no gain yet: %s may be less than the %.2f that is worth a change", gain,
                        options.least_gain);
  } else if (!(report.forgetting <= options.largest_forgetting)) {
    report.verdict =
        absl::StrFormat("no gain yet: general text would lose %.3f nats a token, more than %.3f",
                        report.forgetting, options.largest_forgetting);
  } else {
    report.promote = true;
    report.verdict = absl::StrFormat("promoted: %s; general text %+.3f", gain, report.forgetting);
  }
  return report;
}

}  // namespace coterie
