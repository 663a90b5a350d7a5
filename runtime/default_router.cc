#include "runtime/default_router.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace coterie {

absl::StatusOr<std::string> DefaultRouterPath() {
  if (const char* path = std::getenv("COTERIE_ROUTER"); path != nullptr && *path != '\0') {
    return std::string(path);
  }
  Dl_info info;
  if (dladdr(reinterpret_cast<const void*>(&DefaultRouterPath), &info) == 0) {
    return absl::NotFoundError("cannot tell where libcoterie lies; set COTERIE_ROUTER");
  }
  const std::filesystem::path folder = std::filesystem::path(info.dli_fname).parent_path();
  const std::filesystem::path beside = folder / "default_router.gguf";
  const std::filesystem::path shared = folder / "../share/coterie/default_router.gguf";
  std::error_code ignored;
  if (std::filesystem::exists(beside, ignored)) return beside.string();
  if (std::filesystem::exists(shared, ignored)) return shared.string();
  return absl::NotFoundError(absl::StrCat("the router's file is missing: looked for ",
                                          beside.string(), " and ", shared.string(),
                                          "; set COTERIE_ROUTER"));
}

}  // namespace coterie
