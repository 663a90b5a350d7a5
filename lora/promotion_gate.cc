#include "lora/promotion_gate.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "absl/strings/str_format.h"

namespace coterie {
namespace {

// Two-sided 95 % quantiles of Student's t by degrees of freedom 1 to 30; 1.96 and a little beyond.
constexpr double kT95[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
                           2.201,  2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
                           2.080,  2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042};

double T95(int64_t degrees) {
  const int64_t n = static_cast<int64_t>(std::size(kT95));
  if (degrees <= n) return kT95[std::max<int64_t>(degrees, 1) - 1];
  return 1.96 + 2.5 / static_cast<double>(degrees);
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
  out.low = out.mean - T95(out.n - 1) * error;
  out.high = out.mean + T95(out.n - 1) * error;
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
      absl::StrFormat("%+.3f nats a token on %d held-out cases (95%% interval %+.3f to %+.3f)",
                      report.gain.mean, report.gain.n, report.gain.low, report.gain.high);
  if (report.gain.n < options.least_cases) {
    report.verdict =
        absl::StrFormat("no gain yet: %d held-out cases are too few to tell, %d are needed",
                        report.gain.n, options.least_cases);
  } else if (!(report.gain.low > 0)) {
    report.verdict = "no gain yet: " + gain + " is within the noise";
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
