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
               Calibration calibration, std::string version,
               std::shared_ptr<const Examples> examples, Corrections corrections)
    : model_(std::move(model)),
      domains_(std::move(domains)),
      calibration_(calibration),
      version_(std::move(version)),
      examples_(std::move(examples)),
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

absl::StatusOr<Router::Logits> Router::LogitsOf(absl::string_view cut, bool want_vector) const {
  COTERIE_ASSIGN_OR_RETURN(ModelReading reading,
                           model_->Read(cut, want_vector || corrections_.size() > 0));
  Logits logits;
  logits.model = Extended(std::move(reading.logits), n_domains());
  logits.corrected = logits.model;
  if (corrections_.size() > 0) {
    const std::vector<double> delta = corrections_.Delta(reading.vector, n_domains());
    for (size_t i = 0; i < delta.size(); ++i) logits.corrected[i] += delta[i];
  }
  logits.vector = std::move(reading.vector);
  return logits;
}

absl::StatusOr<DomainScores> Router::Classify(absl::string_view prompt) const {
  const std::string cut = CutPrompt(prompt);
  if (cut.empty()) return Unreadable();
  COTERIE_ASSIGN_OR_RETURN(const Logits logits, LogitsOf(cut, /*want_vector=*/false));
  return Scores(cut, logits);
}

DomainScores Router::Scores(absl::string_view cut, const Logits& logits) const {
  const std::vector<double> probabilities =
      Probabilities(logits.corrected, calibration_.temperature);

  DomainScores scores;
  for (size_t i = 0; i < domains_.size(); ++i) {
    scores.ranked.push_back({domains_[i], probabilities[i]});
  }
  std::stable_sort(scores.ranked.begin(), scores.ranked.end(),
                   [](const Score& a, const Score& b) { return a.probability > b.probability; });
  scores.abstained = scores.ranked.front().probability < calibration_.abstain_below;
  scores.router_version = version();
  scores.why = Why(cut, logits, scores);
  return scores;
}

int Router::IndexOf(absl::string_view domain) const {
  return static_cast<int>(std::find(domains_.begin(), domains_.end(), domain) - domains_.begin());
}

Explanation Router::Why(absl::string_view cut, const Logits& logits,
                        const DomainScores& scores) const {
  const Score& first = scores.ranked[0];
  const Score& second = scores.ranked[1];
  const int a = IndexOf(first.domain), b = IndexOf(second.domain);
  Explanation why;
  why.tier = std::string(tier());
  why.margin = logits.corrected[a] - logits.corrected[b];
  why.temperature = calibration_.temperature;
  why.abstain_below = calibration_.abstain_below;
  why.correction_share = why.margin - (logits.model[a] - logits.model[b]);
  // The model has no weights for a domain that was added to it.
  if (std::max(a, b) < model_->n_domains()) why.features = model_->Decide(cut, a, b);
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
  const int index = IndexOf(label);
  if (index == n_domains()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the router has no such domain, add it with examples first: domain=", label,
                     ", known=", absl::StrJoin(domains_, " ")));
  }
  return index;
}

absl::StatusOr<PromptList> Router::Read(absl::Span<const LabelledPrompt> rows) const {
  PromptList prompts;
  for (const LabelledPrompt& row : rows) {
    COTERIE_ASSIGN_OR_RETURN(const int label, DomainIndex(row.label));
    const std::string cut = CutPrompt(row.text);
    if (cut.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "a correction has a prompt in which nothing can be read: label=", row.label));
    }
    COTERIE_ASSIGN_OR_RETURN(ModelReading reading, model_->Read(cut, /*want_vector=*/true));
    prompts.push_back({std::move(reading.vector), std::move(reading.logits), label});
  }
  return prompts;
}

absl::StatusOr<std::unique_ptr<const Router>> Router::Correct(
    absl::Span<const LabelledPrompt> rows) const {
  COTERIE_ASSIGN_OR_RETURN(PromptList newer, Read(rows));
  return std::unique_ptr<const Router>(
      new Router(model_, domains_, calibration_, version_, examples_,
                 corrections_.With(std::move(newer), n_domains())));
}

absl::StatusOr<std::unique_ptr<const Router>> Router::AddDomain(
    absl::string_view name, absl::Span<const std::string> examples) const {
  if (name.empty() || IndexOf(name) < n_domains() || examples.empty() ||
      n_domains() >= static_cast<int64_t>(kMaxDomains)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a new domain needs a name of its own, examples, and fewer than ", kMaxDomains,
                     " beside it: domain=", name, ", examples=", examples.size(),
                     ", known=", absl::StrJoin(domains_, " ")));
  }
  std::vector<std::string> domains = domains_;
  domains.emplace_back(name);
  const Router wider(model_, std::move(domains), calibration_, version_, examples_, corrections_);
  std::vector<LabelledPrompt> rows;
  for (const std::string& text : examples) rows.push_back({text, std::string(name), ""});
  return wider.Correct(rows);
}

absl::StatusOr<std::unique_ptr<const Router>> Router::WithExamples(
    absl::Span<const LabelledPrompt> rows) const {
  if (corrections_.size() > 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "a router that was corrected keeps its examples: corrections=", corrections_.size(),
        "; give them to the router as it was loaded or fitted"));
  }
  if (rows.size() > Corrections::kMaxAnchors) {
    return absl::InvalidArgumentError(
        absl::StrCat("too many examples for a router: examples=", rows.size(),
                     ", at most=", Corrections::kMaxAnchors));
  }
  COTERIE_ASSIGN_OR_RETURN(PromptList prompts, Read(rows));
  std::vector<std::string> texts;
  for (const LabelledPrompt& row : rows) texts.push_back(row.text);
  auto examples = std::make_shared<const Examples>(std::move(prompts), std::move(texts));
  Corrections corrections(model_->correction_reach(), examples->prompts());
  return std::unique_ptr<const Router>(new Router(model_, domains_, calibration_, version_,
                                                  std::move(examples), std::move(corrections)));
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
  return model_->memory_bytes() + examples_->memory_bytes() + corrections_.memory_bytes();
}

}  // namespace coterie
