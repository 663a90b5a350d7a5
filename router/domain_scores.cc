#include "router/domain_scores.h"

namespace coterie {

const std::vector<std::string>& DefaultDomains() {
  static const std::vector<std::string>& domains = *new std::vector<std::string>{
      "code", "math", "writing", "general", "textops", "translate", "assistant"};
  return domains;
}

absl::string_view DomainScores::domain() const {
  if (abstained || ranked.empty()) return kGeneralDomain;
  return ranked.front().domain;
}

double DomainScores::ProbabilityOf(absl::string_view domain) const {
  for (const Score& score : ranked) {
    if (score.domain == domain) return score.probability;
  }
  return 0.0;
}

}  // namespace coterie
