#include "runtime/open_interaction_log.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "lora/record_cipher.h"

namespace coterie {

std::string InteractionLogPath(const Configuration& configuration) {
  const std::string& named = configuration.learning.log_path;
  return named.empty() ? configuration.home + "/interactions.db" : named;
}

absl::Status NoInteractionLog(const Configuration& configuration) {
  return absl::FailedPreconditionError(
      absl::StrCat("no interaction log is kept, so that there is no feedback to give or to learn "
                   "from; set log = true under [learning]",
                   configuration.source.empty() ? "" : ": file=", configuration.source));
}

absl::StatusOr<std::unique_ptr<InteractionLog>> OpenInteractionLog(
    const Configuration& configuration) {
  if (!configuration.learning.log) return NoInteractionLog(configuration);
  InteractionLogOptions options;
  options.path = InteractionLogPath(configuration);
  options.max_bytes = configuration.learning.log_bytes;
  if (!configuration.learning.key_file.empty()) {
    COTERIE_ASSIGN_OR_RETURN(options.key, ReadKeyFile(configuration.learning.key_file));
  }
  std::error_code ignored;  // Opening will say what is wrong.
  std::filesystem::create_directories(std::filesystem::path(options.path).parent_path(), ignored);
  return InteractionLog::Open(std::move(options));
}

}  // namespace coterie
