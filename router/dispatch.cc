#include "router/dispatch.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "core/base/status_macros.h"

namespace coterie {
namespace {

double ValueIn(const std::map<std::string, double>& by_domain, absl::string_view domain) {
  const auto it = by_domain.find(std::string(domain));
  return it == by_domain.end() ? 0.0 : it->second;
}

absl::Status CheckRow(const ExpertRow& row) {
  if (row.name.empty()) return absl::InvalidArgumentError("an expert of the table has no name");
  for (const auto& [domain, quality] : row.quality) {
    if (!(quality >= 0.0 && quality <= 1.0)) {
      return absl::InvalidArgumentError(
          absl::StrCat("an expert's quality is outside [0, 1]: expert=", row.name,
                       ", domain=", domain, ", quality=", quality));
    }
  }
  for (const auto& [domain, seconds] : row.answer_seconds) {
    if (!(seconds >= 0.0) || !std::isfinite(seconds)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "an expert's time for an answer is not a number of seconds: expert=", row.name,
          ", domain=", domain, ", answer_seconds=", seconds));
    }
  }
  if (!(row.load_ms >= 0.0) || !std::isfinite(row.load_ms) || row.bytes < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "an expert's load cost is not a number of milliseconds or bytes: expert=", row.name,
        ", load_ms=", row.load_ms, ", bytes=", row.bytes));
  }
  return absl::OkStatus();
}

absl::Status CheckInput(const DomainScores& scores, const ExpertTable& table) {
  if (table.empty()) {
    return absl::InvalidArgumentError("there is no expert to choose from: the table is empty");
  }
  if (scores.ranked.empty()) return absl::InvalidArgumentError("there are no domain scores");
  for (const Score& score : scores.ranked) {
    if (!(score.probability >= 0.0 && score.probability <= 1.0 + 1e-6)) {
      return absl::InvalidArgumentError(
          absl::StrCat("a domain's probability is outside [0, 1]: domain=", score.domain,
                       ", probability=", score.probability));
    }
  }
  std::set<absl::string_view> names;
  for (const ExpertRow& row : table) {
    COTERIE_RETURN_IF_ERROR(CheckRow(row));
    if (!names.insert(row.name).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("an expert appears twice in the table: expert=", row.name));
    }
  }
  return absl::OkStatus();
}

absl::Status NothingFits(const ExpertTable& table) {
  const auto smallest =
      std::min_element(table.begin(), table.end(),
                       [](const ExpertRow& a, const ExpertRow& b) { return a.bytes < b.bytes; });
  return absl::ResourceExhaustedError(
      absl::StrCat("no expert fits the memory budget: experts=", table.size(),
                   ", smallest=", smallest->name, ", bytes=", smallest->bytes));
}

// The largest difference in quality that two experts which fit show in one domain.
double Spread(const DomainScores& scores, const ExpertTable& table) {
  double spread = 0.0;
  for (const Score& score : scores.ranked) {
    double low = 1.0, high = 0.0;
    for (const ExpertRow& row : table) {
      if (!row.fits) continue;
      low = std::min(low, ValueIn(row.quality, score.domain));
      high = std::max(high, ValueIn(row.quality, score.domain));
    }
    spread = std::max(spread, high - low);
  }
  return spread;
}

// The domains that count: those of the prompt, or the general one alone after an abstention that
// some expert which fits can serve.
std::vector<Score> Weights(const DomainScores& scores, const ExpertTable& table) {
  const bool served = std::any_of(table.begin(), table.end(), [](const ExpertRow& row) {
    return row.fits && ValueIn(row.quality, kGeneralDomain) > 0.0;
  });
  if (scores.abstained && served) return {{std::string(kGeneralDomain), 1.0}};
  return scores.ranked;
}

// What being resident is worth in this turn, in probability.
double ResidencyBonus(const DomainScores& scores, const ConversationState& conversation,
                      const DispatchOptions& options) {
  if (scores.abstained || scores.ranked.front().probability >= options.confident) return 0.0;
  if (conversation.n_residency_decisions >= options.max_residency_decisions) return 0.0;
  return options.residency_bonus;
}

// The share of the full price that loading would cost: all of it for an unknown load.
double LoadPrice(const ExpertRow& row, const DispatchOptions& options) {
  if (row.load_ms <= 0.0 || options.full_price_ms <= 0.0) return 1.0;
  return std::min(1.0, row.load_ms / options.full_price_ms);
}

struct Candidate {
  ExpertScore score;
  bool resident = false;
  size_t row = 0;
};

// The best candidate by a given value; ties to resident experts, then to earlier rows.
template <typename Value>
const Candidate& Best(const std::vector<Candidate>& candidates, bool only_fitting, Value value) {
  const Candidate* best = nullptr;
  for (const Candidate& candidate : candidates) {
    if (only_fitting && !candidate.score.fits) continue;
    const double gain = best == nullptr ? 1.0 : value(candidate.score) - value(best->score);
    // Sums of products differ in the last bits: closer than this is a tie.
    const bool tie = std::abs(gain) < 1e-9;
    if (tie ? (candidate.resident && !best->resident) : gain > 0.0) best = &candidate;
  }
  return *best;
}

DecidedBy WhatDecided(const std::vector<Candidate>& candidates, size_t chosen, bool abstained) {
  const auto quality = [](const ExpertScore& s) { return s.expected_quality; };
  const auto no_bonus = [](const ExpertScore& s) { return s.expected_quality - s.time_cost; };
  const auto but_residency = [](const ExpertScore& s) { return s.total() - s.residency_bonus; };
  const auto but_sticky = [](const ExpertScore& s) { return s.total() - s.sticky_bonus; };
  const bool only_fit = !Best(candidates, /*only_fitting=*/false, quality).score.fits;
  if (Best(candidates, true, quality).row != chosen) {
    if (Best(candidates, true, no_bonus).row == chosen) return DecidedBy::kSpeed;
    if (Best(candidates, true, but_residency).row != chosen) return DecidedBy::kResidency;
    if (Best(candidates, true, but_sticky).row != chosen) return DecidedBy::kSticky;
    // Either bonus alone would have been enough.
    return DecidedBy::kSticky;
  }
  if (abstained) return DecidedBy::kAbstention;
  return only_fit ? DecidedBy::kOnlyFit : DecidedBy::kQuality;
}

std::string ReasonFor(DecidedBy decided_by, const DomainScores& scores, const Choice& choice,
                      bool resident) {
  const Score& top = scores.ranked.front();
  const std::string seen = absl::StrFormat("%s %.0f %%", top.domain, 100.0 * top.probability);
  const std::string quality =
      absl::StrFormat("expected quality %.2f", choice.scores.front().expected_quality);
  switch (decided_by) {
    case DecidedBy::kQuality:
      return absl::StrCat(seen, ": best ", quality);
    case DecidedBy::kSpeed:
      return absl::StrCat(seen, ": ", quality,
                          absl::StrFormat(", and it answers in about %.1f s",
                                          choice.scores.front().expected_seconds));
    case DecidedBy::kResidency:
      return absl::StrCat(seen, ": ", quality,
                          resident ? ", and it is already in memory" : ", and it loads quickly");
    case DecidedBy::kSticky:
      return absl::StrCat(seen, ": ", quality, ", and it answered last in this conversation");
    case DecidedBy::kAbstention:
      return absl::StrCat("the prompt is unclear (", seen, "): best expert for general prompts");
    case DecidedBy::kOnlyFit:
      return absl::StrCat(seen, ": ", quality, " among the experts that fit the memory budget");
  }
  return seen;
}

std::vector<Candidate> Candidates(const DomainScores& scores, const ExpertTable& table,
                                  const Residency& residency, const ConversationState& conversation,
                                  const DispatchOptions& options) {
  const double spread = Spread(scores, table);
  const double residency_bonus = spread * ResidencyBonus(scores, conversation, options);
  const std::vector<Score> weights = Weights(scores, table);
  std::vector<Candidate> candidates;
  for (const ExpertRow& row : table) {
    Candidate candidate;
    candidate.row = candidates.size();
    candidate.resident = residency.Contains(row.name);
    candidate.score.expert = row.name;
    candidate.score.fits = row.fits;
    for (const Score& weight : weights) {
      candidate.score.expected_quality += weight.probability * ValueIn(row.quality, weight.domain);
      candidate.score.expected_seconds +=
          weight.probability * ValueIn(row.answer_seconds, weight.domain);
    }
    candidate.score.time_cost = options.second_price * candidate.score.expected_seconds;
    // A load that costs little earns most of what being resident does.
    const double price = candidate.resident ? 0.0 : LoadPrice(row, options);
    candidate.score.residency_bonus = residency_bonus * (1.0 - price);
    const bool last = !row.name.empty() && row.name == conversation.last_expert;
    candidate.score.sticky_bonus = last ? spread * options.sticky_bonus : 0.0;
    candidates.push_back(std::move(candidate));
  }
  return candidates;
}

}  // namespace

bool Residency::Contains(absl::string_view name) const {
  return std::find(experts.begin(), experts.end(), name) != experts.end();
}

absl::string_view DecidedByName(DecidedBy decided_by) {
  switch (decided_by) {
    case DecidedBy::kQuality:
      return "quality";
    case DecidedBy::kSpeed:
      return "speed";
    case DecidedBy::kResidency:
      return "residency";
    case DecidedBy::kSticky:
      return "sticky";
    case DecidedBy::kAbstention:
      return "abstention";
    case DecidedBy::kOnlyFit:
      return "only_fit";
  }
  return "quality";
}

absl::StatusOr<Choice> Dispatch(const DomainScores& scores, const ExpertTable& table,
                                const Residency& residency, const ConversationState& conversation,
                                const DispatchOptions& options) {
  COTERIE_RETURN_IF_ERROR(CheckInput(scores, table));
  std::vector<Candidate> candidates = Candidates(scores, table, residency, conversation, options);
  const bool any_fits = std::any_of(candidates.begin(), candidates.end(),
                                    [](const Candidate& c) { return c.score.fits; });
  if (!any_fits) return NothingFits(table);

  const auto total = [](const ExpertScore& score) { return score.total(); };
  const size_t chosen = Best(candidates, /*only_fitting=*/true, total).row;
  Choice choice;
  choice.expert = candidates[chosen].score.expert;
  const bool resident = candidates[chosen].resident;
  choice.decided_by = WhatDecided(candidates, chosen, scores.abstained);
  std::stable_sort(candidates.begin(), candidates.end(),
                   [chosen](const Candidate& a, const Candidate& b) {
                     if ((a.row == chosen) != (b.row == chosen)) return a.row == chosen;
                     if (a.score.fits != b.score.fits) return a.score.fits;
                     return a.score.total() > b.score.total();
                   });
  for (Candidate& candidate : candidates) choice.scores.push_back(std::move(candidate.score));
  choice.reason = ReasonFor(choice.decided_by, scores, choice, resident);
  return choice;
}

ConversationState Advanced(ConversationState conversation, const Choice& choice) {
  conversation.last_expert = choice.expert;
  if (choice.decided_by == DecidedBy::kResidency) ++conversation.n_residency_decisions;
  return conversation;
}

}  // namespace coterie
