#include "runtime/idle_training.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/match.h"

#include "core/base/read_file.h"

namespace coterie {

std::string ExpertToTrain(const IdleTrainingOptions& options, absl::Duration idle_for,
                          bool on_ac_power,
                          const std::map<std::string, FeedbackCounts>& new_feedback) {
  if (!options.enabled || idle_for < options.idle || (options.only_on_ac && !on_ac_power))
    return "";
  std::string chosen;
  int64_t most = 0;
  for (const auto& [expert, counts] : new_feedback) {
    if (counts.total() < options.least_feedback || counts.total() <= most) continue;
    chosen = expert;
    most = counts.total();
  }
  return chosen;
}

bool OnAcPower(absl::string_view folder) {
  constexpr int64_t kMaxBytes = 4096;  // Linux gives a page.
  std::error_code error;
  bool has_mains = false;
  for (std::filesystem::directory_iterator it(std::string(folder), error), end; !error && it != end;
       it.increment(error)) {
    const auto type = ReadSmallFile((it->path() / "type").string(), kMaxBytes);
    const auto online = ReadSmallFile((it->path() / "online").string(), kMaxBytes);
    if (!type.ok() || !online.ok() || !absl::StartsWith(*type, "Mains")) continue;
    if (absl::StartsWith(*online, "1")) return true;
    has_mains = true;
  }
  return !has_mains;
}

}  // namespace coterie
