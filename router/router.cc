#include "router/router.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

#include "core/base/status_macros.h"
#include "router/calibration.h"
#include "router/prompt_text.h"

namespace coterie {

Router::Router(std::shared_ptr<const DomainModel> model, std::vector<std::string> domains,
               Calibration calibration, std::string version, Corrections corrections)
    : model_(std::move(model)),
      domains_(std::move(domains)),
      calibration_(calibration),
      version_(std::move(version)),
      corrections_(std::move(corrections)) {}

Router::~Router() = default;

DomainScores Router::Unreadable() const {
  DomainScores scores;
  for (const std::string& domain : domains_) {
    scores.ranked.push_back({domain, 1.0 / static_cast<double>(domains_.size())});
  }
  std::stable_partition(scores.ranked.begin(), scores.ranked.end(),
                        [](const Score& score) { return score.domain == kGeneralDomain; });
  scores.abstained = true;
  scores.router_version = version();
  scores.why.summary = "nothing can be read in the prompt";
  scores.why.tier = std::string(tier());
  scores.why.temperature = calibration_.temperature;
  scores.why.abstain_below = calibration_.abstain_below;
  return scores;
}

absl::StatusOr<DomainScores> Router::Classify(absl::string_view prompt) const {
  const std::string cut = CutPrompt(prompt);
  if (cut.empty()) return Unreadable();
  COTERIE_ASSIGN_OR_RETURN(const ModelReading reading,
                           model_->Read(cut, /*want_vector=*/corrections_.size() > 0));
  std::vector<double> logits = reading.logits;
  if (corrections_.size() > 0) {
    const std::vector<double> delta = corrections_.Delta(reading.vector, model_->n_domains());
    for (size_t i = 0; i < logits.size(); ++i) logits[i] += delta[i];
  }
  const std::vector<double> probabilities = Probabilities(logits, calibration_.temperature);

  DomainScores scores;
  for (size_t i = 0; i < domains_.size(); ++i) {
    scores.ranked.push_back({domains_[i], probabilities[i]});
  }
  std::stable_sort(scores.ranked.begin(), scores.ranked.end(),
                   [](const Score& a, const Score& b) { return a.probability > b.probability; });
  scores.abstained = scores.ranked.front().probability < calibration_.abstain_below;
  scores.router_version = version();
  scores.why = Explain(cut, reading.logits, logits, scores);
  return scores;
}

Explanation Router::Explain(absl::string_view cut, absl::Span<const double> base,
                            absl::Span<const double> logits, const DomainScores& scores) const {
  const auto index_of = [this](const Score& score) {
    return std::find(domains_.begin(), domains_.end(), score.domain) - domains_.begin();
  };
  const Score& first = scores.ranked[0];
  const Score& second = scores.ranked[1];
  const auto a = index_of(first), b = index_of(second);
  Explanation why;
  why.tier = std::string(tier());
  why.margin = logits[a] - logits[b];
  why.temperature = calibration_.temperature;
  why.abstain_below = calibration_.abstain_below;
  why.correction_share = why.margin - (base[a] - base[b]);
  why.features = model_->Decide(cut, static_cast<int>(a), static_cast<int>(b));
  why.summary =
      absl::StrFormat("%s %.0f %%, then %s %.0f %%", first.domain, 100.0 * first.probability,
                      second.domain, 100.0 * second.probability);
  if (scores.abstained) {
    absl::StrAppendFormat(&why.summary, "; under %.0f %%, so it counts as %s",
                          100.0 * calibration_.abstain_below, kGeneralDomain);
  }
  if (why.correction_share > 0.5 * why.margin) {
    absl::StrAppend(&why.summary, "; your corrections decided");
  }
  return why;
}

absl::StatusOr<int> Router::DomainIndex(absl::string_view label) const {
  const auto it = std::find(domains_.begin(), domains_.end(), label);
  if (it == domains_.end()) {
    return absl::InvalidArgumentError(absl::StrCat("the router has no such domain: domain=", label,
                                                   ", known=", absl::StrJoin(domains_, " ")));
  }
  return static_cast<int>(it - domains_.begin());
}

absl::StatusOr<std::unique_ptr<const Router>> Router::Correct(
    absl::Span<const LabelledPrompt> rows) const {
  std::vector<CorrectedPrompt> newer;
  for (const LabelledPrompt& row : rows) {
    COTERIE_ASSIGN_OR_RETURN(const int label, DomainIndex(row.label));
    const std::string cut = CutPrompt(row.text);
    if (cut.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "a correction has a prompt in which nothing can be read: label=", row.label));
    }
    COTERIE_ASSIGN_OR_RETURN(ModelReading reading, model_->Read(cut, /*want_vector=*/true));
    newer.push_back({std::move(reading.vector), std::move(reading.logits), label});
  }
  return std::unique_ptr<const Router>(
      new Router(model_, domains_, calibration_, version_,
                 corrections_.With(std::move(newer), model_->correction_reach())));
}

absl::StatusOr<std::unique_ptr<const Router>> Router::Correct(absl::string_view text,
                                                              absl::string_view label) const {
  const LabelledPrompt row{std::string(text), std::string(label), ""};
  return Correct({&row, 1});
}

absl::StatusOr<Evaluation> Router::Evaluate(absl::Span<const LabelledPrompt> rows) const {
  if (rows.empty()) return absl::InvalidArgumentError("there are no prompts to evaluate");
  std::vector<EvaluatedPrompt> prompts;
  for (const LabelledPrompt& row : rows) {
    COTERIE_ASSIGN_OR_RETURN(const DomainScores scores, Classify(row.text));
    prompts.push_back({row.label, std::string(scores.domain()), scores.ranked.front().domain,
                       scores.ranked.front().probability, scores.abstained});
  }
  return coterie::Evaluate(prompts);
}

std::string Router::version() const {
  if (corrections_.size() == 0) return version_;
  return absl::StrCat(version_, "+", corrections_.size(), " corrections");
}

int64_t Router::memory_bytes() const {
  return model_->memory_bytes() + corrections_.memory_bytes();
}

}  // namespace coterie
