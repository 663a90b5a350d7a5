#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "lora/interaction_log.h"
#include "runtime/configuration.h"

namespace coterie {

// Where the log of this configuration lies: log_path, else interactions.db in the store.
std::string InteractionLogPath(const Configuration& configuration);

// Opens it, with its key if there is one; folders that lack are made. Errors of InteractionLog and
// ReadKeyFile; kFailedPrecondition if the configuration keeps no log.
absl::StatusOr<std::unique_ptr<InteractionLog>> OpenInteractionLog(
    const Configuration& configuration);

// What is said where a log is needed and there is none: kFailedPrecondition.
absl::Status NoInteractionLog(const Configuration& configuration);

}  // namespace coterie
