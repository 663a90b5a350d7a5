#include "runtime/user_paths.h"

#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace coterie {
namespace {

std::string HomeFolder() {
  const char* home = std::getenv("HOME");
  return home != nullptr ? home : "";
}

}  // namespace

std::string ResolvePath(absl::string_view path, const std::filesystem::path& folder) {
  if (path == "~" || absl::StartsWith(path, "~/")) {
    return absl::StrCat(HomeFolder(), path.substr(1));
  }
  return std::filesystem::absolute(folder / std::string(path)).lexically_normal().string();
}

std::string DefaultStore() {
  const char* home = std::getenv("COTERIE_HOME");
  if (home != nullptr && *home != '\0') return ResolvePath(home, std::filesystem::path());
  return HomeFolder() + "/.cache/coterie";
}

}  // namespace coterie
