#include "lora/replay_source.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

#include "core/base/read_file.h"
#include "core/base/status_macros.h"
#include "core/formats/utf8.h"
#include "lora/stable_hash.h"
#include "lora/training_sequence.h"

namespace coterie {
namespace {

constexpr int64_t kMaxFileBytes = 64'000'000;

// A token of running text has four to five bytes; what is over is cut off.
constexpr size_t kBytesPerToken = 5;
constexpr size_t kLeastBytes = 40;  // Of a passage; headings and blank lines teach nothing.

}  // namespace

absl::StatusOr<ReplaySource> ReplaySource::Open(absl::string_view path) {
  COTERIE_ASSIGN_OR_RETURN(std::string text, ReadSmallFile(path, kMaxFileBytes));
  return FromText(std::move(text), path);
}

absl::StatusOr<ReplaySource> ReplaySource::FromText(std::string text, absl::string_view name) {
  if (const size_t bad = FindInvalidUtf8(text); bad < text.size()) {
    return absl::DataLossError(
        absl::StrCat("the text to rehearse is not UTF-8: file=", name, ", byte=", bad));
  }
  ReplaySource source(std::move(text));
  if (!source.Passages(10 * kLeastBytes).empty()) return source;
  return absl::InvalidArgumentError(
      absl::StrCat("the text to rehearse has no passage in it: file=", name));
}

std::vector<absl::string_view> ReplaySource::Passages(size_t n_bytes) const {
  std::vector<absl::string_view> passages;
  const absl::string_view text = text_;
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t wanted = begin + n_bytes;
    // As many whole lines as fit; of one that is longer, all.
    size_t end = wanted >= text.size() ? text.size() : text.rfind('\n', wanted);
    if (end == absl::string_view::npos || end <= begin) end = text.find('\n', wanted);
    end = std::min(end, text.size());
    const absl::string_view passage = absl::StripAsciiWhitespace(text.substr(begin, end - begin));
    if (passage.size() >= kLeastBytes) passages.push_back(passage);
    begin = end + 1;
  }
  return passages;
}

absl::StatusOr<std::vector<TrainingExample>> ReplaySource::Examples(const Tokenizer& tokenizer,
                                                                    int64_t n, int64_t max_tokens,
                                                                    uint64_t seed,
                                                                    float weight) const {
  std::vector<std::pair<uint64_t, absl::string_view>> ranked;
  for (const absl::string_view passage :
       Passages(static_cast<size_t>(max_tokens) * kBytesPerToken)) {
    ranked.emplace_back(StableHash(passage, seed), passage);
  }
  const size_t n_taken = std::min(ranked.size(), static_cast<size_t>(std::max<int64_t>(0, n)));
  std::partial_sort(ranked.begin(), ranked.begin() + static_cast<ptrdiff_t>(n_taken), ranked.end());
  std::vector<TrainingExample> examples;
  for (size_t i = 0; i < n_taken; ++i) {
    const absl::string_view passage = ranked[i].second;
    COTERIE_ASSIGN_OR_RETURN(TrainingSequence sequence, TeachText(tokenizer, passage, max_tokens));
    if (sequence.tokens.size() < 2) continue;
    const std::string id = absl::StrCat("replay:", passage.data() - text_.data());
    examples.push_back({id, Objective::kImitate, std::move(sequence), {}, weight});
  }
  return examples;
}

}  // namespace coterie
