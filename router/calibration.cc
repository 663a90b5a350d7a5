#include "router/calibration.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "core/base/check.h"

namespace coterie {
namespace {

double MeanLogLoss(absl::Span<const LabelledLogits> examples, double temperature) {
  double loss = 0.0;
  for (const LabelledLogits& example : examples) {
    const double p = Probabilities(example.logits, temperature)[example.label];
    loss -= std::log(std::max(p, 1e-12));
  }
  return loss / static_cast<double>(examples.size());
}

}  // namespace

std::vector<double> Probabilities(absl::Span<const double> logits, double temperature) {
  COTERIE_CHECK(temperature > 0.0 && !logits.empty(), "a softmax needs logits and a temperature");
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> result;
  double sum = 0.0;
  for (const double logit : logits) {
    result.push_back(std::exp((logit - largest) / temperature));
    sum += result.back();
  }
  for (double& p : result) p /= sum;
  return result;
}

double FitTemperature(absl::Span<const LabelledLogits> examples) {
  if (examples.empty()) return 1.0;
  // The loss has one minimum over the logarithm of the temperature.
  const double ratio = (std::sqrt(5.0) - 1.0) / 2.0;
  double low = std::log(0.05), high = std::log(20.0);
  double left = high - ratio * (high - low), right = low + ratio * (high - low);
  double left_loss = MeanLogLoss(examples, std::exp(left));
  double right_loss = MeanLogLoss(examples, std::exp(right));
  for (int step = 0; step < 25; ++step) {
    if (left_loss < right_loss) {
      high = right;
      right = left;
      right_loss = left_loss;
      left = high - ratio * (high - low);
      left_loss = MeanLogLoss(examples, std::exp(left));
    } else {
      low = left;
      left = right;
      left_loss = right_loss;
      right = low + ratio * (high - low);
      right_loss = MeanLogLoss(examples, std::exp(right));
    }
  }
  return std::exp((low + high) / 2.0);
}

double FitAbstention(absl::Span<const LabelledLogits> examples, double temperature, int general,
                     double max_given_up, double wrong_specialist_cost) {
  if (general < 0) return 0.0;
  // What abstaining gains on each example that would go to a specialist, by its probability.
  std::vector<std::pair<double, double>> gains;
  for (const LabelledLogits& example : examples) {
    const std::vector<double> p = Probabilities(example.logits, temperature);
    const auto first = std::max_element(p.begin(), p.end());
    const int label = static_cast<int>(first - p.begin());
    if (label == general) continue;
    const double now = example.label == label ? 1.0 : -wrong_specialist_cost;
    const double given_up = example.label == general ? 1.0 : 0.0;
    gains.emplace_back(*first, given_up - now);
  }
  std::sort(gains.begin(), gains.end());
  const auto n_most = static_cast<size_t>(max_given_up * static_cast<double>(examples.size()));
  double gain = 0.0, best_gain = 0.0, best_threshold = 0.0;
  for (size_t i = 0; i < std::min(n_most, gains.size()); ++i) {
    gain += gains[i].second;
    const double next = i + 1 < gains.size() ? gains[i + 1].first : 1.0;
    if (gain > best_gain && next > gains[i].first) {
      best_gain = gain;
      best_threshold = (gains[i].first + next) / 2.0;
    }
  }
  return best_threshold;
}

double ExpectedCalibrationError(absl::Span<const Confidence> predictions) {
  constexpr int kBins = 15;
  std::array<double, kBins> gap{};
  for (const Confidence& prediction : predictions) {
    const int bin = std::clamp(static_cast<int>(prediction.probability * kBins), 0, kBins - 1);
    gap[bin] += prediction.probability - (prediction.right ? 1.0 : 0.0);
  }
  double error = 0.0;
  for (const double value : gap) error += std::abs(value);
  return predictions.empty() ? 0.0 : error / static_cast<double>(predictions.size());
}

}  // namespace coterie
