#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace coterie {

// "sha256:<hex>" of some bytes.
std::string Sha256Of(absl::string_view bytes);

}  // namespace coterie
