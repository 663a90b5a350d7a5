#pragma once

// What the router says about a prompt: domains, how likely each is, and why.

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace coterie {

// The domains of the router that ships: code, math, writing, general, textops, translate,
// assistant. textops is work on a given text: summarise, extract, classify, rewrite.
const std::vector<std::string>& DefaultDomains();

// The domain an abstention falls back to.
inline constexpr absl::string_view kGeneralDomain = "general";

struct Score {
  std::string domain;
  double probability = 0.0;
};

// A piece of the prompt that spoke for or against the first domain.
struct DecidingFeature {
  std::string text;     // "integral of", or letters inside words such as "quat".
  double weight = 0.0;  // Its share of the margin over the runner-up; negative speaks against.
};

// A prompt of known domain that is like the one that was classified.
struct NearestExample {
  std::string text;
  std::string domain;
  double cosine = 0.0;
};

struct Explanation {
  std::string summary;       // One sentence for people.
  std::string tier;          // "encoder" or "lexical".
  double margin = 0.0;       // Logit of the first domain minus that of the runner-up.
  double temperature = 1.0;  // What logits were divided by.
  double abstain_below =
      0.0;  // The probability of the first domain under which the router abstains.
  double correction_share = 0.0;  // What corrections added to the margin, in logits.
  // Largest first. Of the encoder only after Router::Explain.
  std::vector<DecidingFeature> features;
  std::vector<NearestExample> nearest;  // Only after Router::Explain; nearest first.
};

// The router's decision about one prompt. Blind to experts and to what is resident, so that it can
// be logged and replayed.
struct DomainScores {
  std::vector<Score> ranked;  // Every domain, most probable first; probabilities sum to 1.
  bool abstained = false;     // Too unsure, or nothing to read: treat the prompt as general.
  Explanation why;
  std::string router_version;

  // The domain to act on: the first one, or the general one after an abstention.
  absl::string_view domain() const;
  // Probability of a domain, 0 if the router does not know it.
  double ProbabilityOf(absl::string_view domain) const;
};

}  // namespace coterie
