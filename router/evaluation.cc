#include "router/evaluation.h"

#include "core/base/check.h"
#include "router/calibration.h"
#include "router/domain_scores.h"

namespace coterie {
namespace {

struct Counts {
  int64_t right = 0;
  int64_t labelled = 0;
  int64_t predicted = 0;
};

}  // namespace

Evaluation Evaluate(absl::Span<const EvaluatedPrompt> prompts) {
  COTERIE_CHECK(!prompts.empty(), "there is something to evaluate");
  std::map<std::string, Counts> by_label;
  std::vector<Confidence> confidences;
  int64_t n_right = 0, n_wrong_expert = 0, n_abstained = 0;
  for (const EvaluatedPrompt& prompt : prompts) {
    const bool right = prompt.domain == prompt.label;
    n_right += right;
    n_wrong_expert += !right && prompt.domain != kGeneralDomain;
    n_abstained += prompt.abstained;
    ++by_label[prompt.label].labelled;
    ++by_label[prompt.domain].predicted;
    by_label[prompt.label].right += right;
    confidences.push_back({prompt.probability, prompt.first_domain == prompt.label});
  }
  const auto n = static_cast<double>(prompts.size());
  Evaluation result;
  result.n = static_cast<int64_t>(prompts.size());
  result.accuracy = static_cast<double>(n_right) / n;
  result.wrong_expert_rate = static_cast<double>(n_wrong_expert) / n;
  result.abstained_rate = static_cast<double>(n_abstained) / n;
  result.ece = ExpectedCalibrationError(confidences);
  for (const auto& [label, counts] : by_label) {
    if (counts.labelled == 0) continue;
    result.macro_f1 += 2.0 * static_cast<double>(counts.right) /
                       static_cast<double>(counts.labelled + counts.predicted);
    result.recall_by_label[label] =
        static_cast<double>(counts.right) / static_cast<double>(counts.labelled);
  }
  result.macro_f1 /= static_cast<double>(result.recall_by_label.size());
  return result;
}

}  // namespace coterie
