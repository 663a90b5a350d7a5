#pragma once

// Probabilities out of logits, and how far they can be trusted.

#include <vector>

#include "absl/types/span.h"

namespace coterie {

// softmax(logits / temperature). Requires temperature > 0 and at least one logit.
std::vector<double> Probabilities(absl::Span<const double> logits, double temperature);

// A prediction with the truth, both as indices of labels.
struct LabelledLogits {
  std::vector<double> logits;
  int label = 0;
};

// The temperature in [0.05, 20] that gives the labels the largest likelihood, found by golden
// section search; 1 for no examples. Fit it on predictions of a model that did not see the
// examples, best of all not even their source: a temperature fitted on familiar prompts is too
// confident about others.
//   Source  temperature scaling, Guo et al. 2017, arXiv 1706.04599.
double FitTemperature(absl::Span<const LabelledLogits> examples);

// The probability of the first label under which it is better to give a prompt to the general one:
// the threshold with the best (share right - cost * share sent to a wrong specialist) among those
// that give up no more than max_given_up of the examples; 0 if none beats never abstaining.
// `general` is the index of the general label, or -1 if there is none: then 0.
double FitAbstention(absl::Span<const LabelledLogits> examples, double temperature, int general,
                     double max_given_up, double wrong_specialist_cost = 0.5);

// How confident a prediction was and whether it was right.
struct Confidence {
  double probability = 0.0;
  bool right = false;
};

// Expected calibration error: the mean over 15 equal bins of |mean probability - share right|,
// weighted by the predictions in each bin. 0 for no predictions.
double ExpectedCalibrationError(absl::Span<const Confidence> predictions);

}  // namespace coterie
