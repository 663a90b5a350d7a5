#include "runtime/free_memory.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <initializer_list>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

#include "core/base/status_macros.h"

namespace coterie {
namespace {

std::optional<int64_t> ReadNumber(const std::string& path) {
  std::ifstream stream(path);
  int64_t number = 0;
  if (!(stream >> number) || number < 0) return std::nullopt;  // "max" is no number: no limit.
  return number;
}

// The number after `key` in a file of lines "key number" or "key: number kB".
std::optional<int64_t> ReadField(const std::string& path, absl::string_view key) {
  std::ifstream stream(path);
  std::string line;
  while (std::getline(stream, line)) {
    absl::string_view rest = line;
    if (!absl::ConsumePrefix(&rest, key) || rest.empty()) continue;
    if (rest.front() != ' ' && rest.front() != ':') continue;
    absl::ConsumePrefix(&rest, ":");
    const int64_t unit = absl::ConsumeSuffix(&rest, "kB") ? 1024 : 1;
    int64_t number = 0;
    if (absl::SimpleAtoi(rest, &number) && number >= 0) return number * unit;
  }
  return std::nullopt;
}

// The ten-second average of the line "some avg10=0.12 avg60=...", in percent.
std::optional<double> ReadStalledShare(const std::string& path) {
  std::ifstream stream(path);
  std::string line;
  while (std::getline(stream, line)) {
    absl::string_view rest = line;
    if (!absl::ConsumePrefix(&rest, "some avg10=")) continue;
    double percent = 0;
    if (absl::SimpleAtod(rest.substr(0, rest.find(' ')), &percent)) return percent / 100;
  }
  return std::nullopt;
}

// One hierarchy of control groups.
struct Hierarchy {
  std::string mount;
  std::vector<const char*> limit_files;
  const char* use_file;
  const char* stat_prefix;  // Of the lines of memory.stat that count the groups below too.

  std::optional<MemoryRoom> RoomOf(const std::string& folder) const {
    std::optional<int64_t> limit;
    for (const char* file : limit_files) {
      const std::optional<int64_t> its = ReadNumber(folder + file);
      if (its.has_value()) limit = std::min(limit.value_or(*its), *its);
    }
    if (!limit.has_value()) return std::nullopt;
    MemoryRoom room;
    room.total_bytes = *limit;
    for (const char* list : {"active_file", "inactive_file"}) {
      room.file_bytes +=
          ReadField(folder + "memory.stat", absl::StrCat(stat_prefix, list)).value_or(0);
    }
    // The group's use counts pages of files, which the kernel drops when it needs to.
    const int64_t use_bytes = ReadNumber(folder + use_file).value_or(0);
    room.available_bytes =
        std::max<int64_t>(0, *limit - std::max<int64_t>(0, use_bytes - room.file_bytes));
    return room;
  }

  // The tightest of the group at `path` and everything above it.
  std::optional<MemoryRoom> Tightest(std::string path) const {
    std::optional<MemoryRoom> tightest;
    std::optional<double> stalled_share;
    while (true) {
      const std::string folder = absl::StrCat(mount, path == "/" ? "" : path, "/");
      const std::optional<MemoryRoom> room = RoomOf(folder);
      if (!stalled_share.has_value()) stalled_share = ReadStalledShare(folder + "memory.pressure");
      if (room.has_value() &&
          (!tightest.has_value() || room->available_bytes < tightest->available_bytes)) {
        tightest = room;
      }
      const size_t slash = path.rfind('/');
      if (slash == std::string::npos || path == "/") break;
      path = slash == 0 ? "/" : path.substr(0, slash);
    }
    if (tightest.has_value()) tightest->stalled_share = stalled_share;
    return tightest;
  }
};

// The groups of this process: lines "id:controllers:path"; cgroup v2 has id 0 and no controllers.
std::vector<MemoryRoom> RoomsOfControlGroups(const std::string& root) {
  const Hierarchy v2 = {
      root + "/sys/fs/cgroup", {"memory.max", "memory.high"}, "memory.current", ""};
  const Hierarchy v1 = {
      root + "/sys/fs/cgroup/memory", {"memory.limit_in_bytes"}, "memory.usage_in_bytes", "total_"};
  std::ifstream stream(root + "/proc/self/cgroup");
  std::vector<MemoryRoom> rooms;
  std::string line;
  while (std::getline(stream, line)) {
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    const std::vector<absl::string_view> controllers = absl::StrSplit(parts[1], ',');
    std::optional<MemoryRoom> room;
    if (parts[1].empty()) room = v2.Tightest(parts[2]);
    if (std::count(controllers.begin(), controllers.end(), "memory") > 0) {
      room = v1.Tightest(parts[2]);
    }
    if (room.has_value()) rooms.push_back(*room);
  }
  return rooms;
}

}  // namespace

absl::StatusOr<MemoryRoom> ReadMemoryRoom(absl::string_view root) {
  const std::string prefix(root);
  const std::string meminfo = prefix + "/proc/meminfo";
  const std::optional<int64_t> available = ReadField(meminfo, "MemAvailable");
  if (!available.has_value()) {
    return absl::UnavailableError(
        absl::StrCat("the free memory is unknown: no MemAvailable in ", meminfo));
  }
  MemoryRoom room;
  room.available_bytes = *available;
  room.total_bytes = ReadField(meminfo, "MemTotal").value_or(*available);
  room.file_bytes = ReadField(meminfo, "Active(file)").value_or(0) +
                    ReadField(meminfo, "Inactive(file)").value_or(0);
  for (const MemoryRoom& group : RoomsOfControlGroups(prefix)) {
    if (group.available_bytes < room.available_bytes) room = group;
  }
  if (!room.stalled_share.has_value()) {
    room.stalled_share = ReadStalledShare(prefix + "/proc/pressure/memory");
  }
  return room;
}

absl::StatusOr<int64_t> FreeMemoryBytes(absl::string_view root) {
  COTERIE_ASSIGN_OR_RETURN(const MemoryRoom room, ReadMemoryRoom(root));
  return room.available_bytes;
}

int64_t ResidentBytes() {
  std::ifstream stream("/proc/self/statm");
  int64_t size_pages = 0;
  int64_t resident_pages = 0;
  if (!(stream >> size_pages >> resident_pages)) return 0;
  return resident_pages * static_cast<int64_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace coterie
