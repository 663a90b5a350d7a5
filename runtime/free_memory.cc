#include "runtime/free_memory.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace coterie {
namespace {

std::optional<int64_t> ReadNumber(const std::string& path) {
  std::ifstream stream(path);
  int64_t number = 0;
  if (!(stream >> number) || number < 0) return std::nullopt;  // "max" is no number: no limit.
  return number;
}

std::optional<int64_t> MemAvailable(const std::string& root) {
  std::ifstream stream(root + "/proc/meminfo");
  std::string line;
  while (std::getline(stream, line)) {
    absl::string_view rest = line;
    if (!absl::ConsumePrefix(&rest, "MemAvailable:")) continue;
    absl::ConsumeSuffix(&rest, "kB");
    int64_t kib = 0;
    if (absl::SimpleAtoi(rest, &kib) && kib >= 0) return kib * 1024;
  }
  return std::nullopt;
}

// What one hierarchy of control groups leaves to the group at `path` and everything above it.
struct Hierarchy {
  std::string mount;
  const char* limit_file;
  const char* use_file;

  std::optional<int64_t> Left(std::string path) const {
    std::optional<int64_t> least;
    while (true) {
      const std::string folder = absl::StrCat(mount, path == "/" ? "" : path, "/");
      const std::optional<int64_t> limit = ReadNumber(folder + limit_file);
      const std::optional<int64_t> use = ReadNumber(folder + use_file);
      if (limit.has_value()) {
        const int64_t left = std::max<int64_t>(0, *limit - use.value_or(0));
        least = std::min(least.value_or(left), left);
      }
      const size_t slash = path.rfind('/');
      if (slash == std::string::npos || path == "/") return least;
      path = slash == 0 ? "/" : path.substr(0, slash);
    }
  }
};

// The groups of this process: lines "id:controllers:path"; cgroup v2 has id 0 and no controllers.
std::optional<int64_t> LeftByControlGroups(const std::string& root) {
  const Hierarchy v2 = {root + "/sys/fs/cgroup", "memory.max", "memory.current"};
  const Hierarchy v1 = {root + "/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                        "memory.usage_in_bytes"};
  std::ifstream stream(root + "/proc/self/cgroup");
  std::optional<int64_t> least;
  std::string line;
  while (std::getline(stream, line)) {
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    const std::vector<absl::string_view> controllers = absl::StrSplit(parts[1], ',');
    std::optional<int64_t> left;
    if (parts[1].empty()) left = v2.Left(parts[2]);
    if (std::count(controllers.begin(), controllers.end(), "memory") > 0) left = v1.Left(parts[2]);
    if (left.has_value()) least = std::min(least.value_or(*left), *left);
  }
  return least;
}

}  // namespace

absl::StatusOr<int64_t> FreeMemoryBytes(absl::string_view root) {
  const std::string prefix(root);
  const std::optional<int64_t> available = MemAvailable(prefix);
  if (!available.has_value()) {
    return absl::UnavailableError(
        absl::StrCat("the free memory is unknown: no MemAvailable in ", prefix, "/proc/meminfo"));
  }
  return std::min(*available, LeftByControlGroups(prefix).value_or(*available));
}

}  // namespace coterie
