#pragma once

#include <filesystem>
#include <string>

#include "absl/strings/string_view.h"

namespace coterie {

// Absolute form of a path that a person wrote in a file of `folder`; "~" is the user's home.
std::string ResolvePath(absl::string_view path, const std::filesystem::path& folder);

// The model store: $COTERIE_HOME, else ~/.cache/coterie.
std::string DefaultStore();

}  // namespace coterie
