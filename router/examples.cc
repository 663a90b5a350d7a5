#include "router/examples.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/check.h"
#include "core/base/status_macros.h"

namespace coterie {
namespace {

constexpr absl::string_view kName = "examples";
constexpr absl::string_view kTextsKey = "router.examples.texts";

}  // namespace

Examples::Examples(PromptList prompts, std::vector<std::string> texts)
    : prompts_(std::make_shared<const PromptList>(std::move(prompts))), texts_(std::move(texts)) {
  COTERIE_CHECK(texts_.size() == prompts_->size(), "every example has a text, if an empty one");
}

std::vector<Examples::Near> Examples::Nearest(const PromptVector& vector, size_t n) const {
  std::vector<Near> all;
  for (size_t i = 0; i < texts_.size(); ++i) {
    if (texts_[i].empty()) continue;
    const CorrectedPrompt& prompt = (*prompts_)[i];
    all.push_back({&texts_[i], prompt.label, vector.Dot(prompt.vector)});
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const Near& a, const Near& b) { return a.cosine > b.cosine; });
  if (all.size() > n) all.resize(n);
  return all;
}

int64_t Examples::memory_bytes() const {
  int64_t bytes = BytesOf(*prompts_);
  for (const std::string& text : texts_) {
    bytes += static_cast<int64_t>(sizeof(text) + text.capacity());
  }
  return bytes;
}

void Examples::AppendTo(GgufWriter& file) const {
  if (prompts_->empty()) return;
  AppendPrompts(*prompts_, kName, file);
  file.SetStringArray(kTextsKey, texts_);
}

absl::StatusOr<Examples> Examples::From(const GgufFile& file, const DomainModel& model) {
  COTERIE_ASSIGN_OR_RETURN(PromptList prompts, ReadPrompts(file, kName, model, model.n_domains(),
                                                           Corrections::kMaxAnchors));
  if (prompts.empty()) return Examples();
  COTERIE_ASSIGN_OR_RETURN(const auto texts, file.GetStringArray(kTextsKey));
  if (texts.size() != prompts.size()) {
    return absl::DataLossError(absl::StrCat(
        "damaged router file: examples: a text for each is missing: file=", file.path()));
  }
  return Examples(std::move(prompts), std::vector<std::string>(texts.begin(), texts.end()));
}

}  // namespace coterie
