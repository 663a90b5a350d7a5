// What in a prompt decided, asked for and never on the way of a request.

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

#include "core/base/status_macros.h"
#include "router/prompt_text.h"
#include "router/router.h"

namespace coterie {
namespace {

constexpr size_t kPieces = 8;        // A long prompt is taken apart in so many pieces first,
constexpr size_t kPiecesToOpen = 2;  // and the weightiest of them word by word.
constexpr size_t kShownFeatures = 8;
constexpr size_t kShownExamples = 3;

// Words [begin, end) of a prompt.
struct Range {
  size_t begin = 0, end = 0;
};

using Words = std::vector<std::string>;

std::string Joined(const Words& words, Range range) {
  return absl::StrJoin(words.begin() + range.begin, words.begin() + range.end, " ");
}

std::string Without(const Words& words, Range range) {
  Words rest(words.begin(), words.begin() + range.begin);
  rest.insert(rest.end(), words.begin() + range.end, words.end());
  return absl::StrJoin(rest, " ");
}

// range in at most n pieces of nearly equal length.
std::vector<Range> Split(Range range, size_t n) {
  const size_t length = range.end - range.begin;
  n = std::min(n, length);
  std::vector<Range> pieces;
  for (size_t i = 0; i < n; ++i) {
    pieces.push_back({range.begin + length * i / n, range.begin + length * (i + 1) / n});
  }
  return pieces;
}

}  // namespace

// The weight of words is what the margin loses without them.
absl::StatusOr<std::vector<DecidingFeature>> Router::Occlude(absl::string_view cut, int domain,
                                                             int runner_up) const {
  const Words words = absl::StrSplit(cut, ' ', absl::SkipEmpty());
  const auto margin = [&](absl::string_view text) -> absl::StatusOr<double> {
    if (text.empty()) return 0.0;
    COTERIE_ASSIGN_OR_RETURN(const Logits logits, LogitsOf(text, /*want_vector=*/false));
    return logits.corrected[domain] - logits.corrected[runner_up];
  };
  COTERIE_ASSIGN_OR_RETURN(const double whole, margin(cut));
  std::vector<std::pair<double, Range>> weighed;
  const auto weigh = [&](const std::vector<Range>& ranges) -> absl::Status {
    for (const Range range : ranges) {
      COTERIE_ASSIGN_OR_RETURN(const double rest, margin(Without(words, range)));
      weighed.emplace_back(whole - rest, range);
    }
    std::stable_sort(weighed.begin(), weighed.end(), [](const auto& a, const auto& b) {
      return std::abs(a.first) > std::abs(b.first);
    });
    return absl::OkStatus();
  };
  COTERIE_RETURN_IF_ERROR(weigh(Split({0, words.size()}, kPieces)));
  std::vector<Range> opened;
  for (size_t i = 0; i < std::min(kPiecesToOpen, weighed.size()); ++i) {
    const Range range = weighed[i].second;
    if (range.end - range.begin < 2) continue;
    for (const Range word : Split(range, kPieces)) opened.push_back(word);
  }
  COTERIE_RETURN_IF_ERROR(weigh(opened));
  std::vector<DecidingFeature> features;
  for (const auto& [weight, range] : weighed) features.push_back({Joined(words, range), weight});
  if (features.size() > kShownFeatures) features.resize(kShownFeatures);
  return features;
}

absl::StatusOr<DomainScores> Router::Explain(absl::string_view prompt) const {
  const std::string cut = CutPrompt(prompt);
  if (cut.empty()) return Unreadable();
  COTERIE_ASSIGN_OR_RETURN(const Logits logits, LogitsOf(cut, /*want_vector=*/true));
  DomainScores scores = Scores(cut, logits);
  if (scores.why.features.empty()) {
    COTERIE_ASSIGN_OR_RETURN(scores.why.features, Occlude(cut, IndexOf(scores.ranked[0].domain),
                                                          IndexOf(scores.ranked[1].domain)));
  }
  for (const Examples::Near& near : examples_->Nearest(logits.vector, kShownExamples)) {
    scores.why.nearest.push_back({*near.text, domains_[near.label], near.cosine});
  }
  return scores;
}

}  // namespace coterie
