#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace coterie {

// The file of the router that ships: $COTERIE_ROUTER if set, else default_router.gguf beside
// libcoterie (a Python package, a build tree), else in ../share/coterie from it (an installation).
// kNotFound naming the places looked at.
absl::StatusOr<std::string> DefaultRouterPath();

}  // namespace coterie
