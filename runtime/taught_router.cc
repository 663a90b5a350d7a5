#include "runtime/taught_router.h"

#include <algorithm>
#include <utility>

#include "core/base/status_macros.h"
#include "router/prompt_text.h"

namespace coterie {
namespace {

// At least what one correction takes, until its router says.
constexpr int64_t kCorrectionBytes = 16 << 10;

bool IsUsable(const Router& router, const TaughtPrompt& prompt) {
  const std::vector<std::string>& domains = router.domains();
  return std::find(domains.begin(), domains.end(), prompt.domain) != domains.end() &&
         !CutPrompt(prompt.text).empty();
}

}  // namespace

std::shared_ptr<const Router> TaughtRouter::Current() const {
  MutexLock lock(mutex_);
  return current_;
}

absl::Status TaughtRouter::Teach(std::vector<TaughtPrompt> prompts) {
  if (prompts.size() > kMaxPrompts) {
    prompts.erase(prompts.begin(), prompts.end() - static_cast<ptrdiff_t>(kMaxPrompts));
  }
  MutexLock lock(teaching_);
  if (prompts == taught_) return absl::OkStatus();
  const bool grew = prompts.size() > taught_.size() &&
                    std::equal(taught_.begin(), taught_.end(), prompts.begin());
  std::shared_ptr<const Router> base = grew ? Current() : untaught_;
  std::vector<LabelledPrompt> rows;
  for (size_t i = grew ? taught_.size() : 0; i < prompts.size(); ++i) {
    if (IsUsable(*base, prompts[i])) rows.push_back({prompts[i].text, prompts[i].domain, ""});
  }
  COTERIE_ASSIGN_OR_RETURN(
      Reservation bytes,
      budget_.Reserve(Purpose::kRouter, kCorrectionBytes * static_cast<int64_t>(prompts.size())));
  if (!rows.empty()) {
    COTERIE_ASSIGN_OR_RETURN(std::unique_ptr<const Router> corrected, base->Correct(rows));
    base = std::move(corrected);
  }
  bytes.ShrinkTo(std::min(bytes.bytes(),
                          std::max<int64_t>(0, base->memory_bytes() - untaught_->memory_bytes())));
  taught_ = std::move(prompts);
  {
    MutexLock publish(mutex_);
    current_ = std::move(base);
  }
  bytes_ = std::move(bytes);
  return absl::OkStatus();
}

}  // namespace coterie
