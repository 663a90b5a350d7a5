#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace coterie {

// What the system, or the tightest control group around this process, has left.
struct MemoryRoom {
  int64_t total_bytes = 0;      // Of the machine, or the group's limit.
  int64_t available_bytes = 0;  // Without swapping; pages of files count as available.
  int64_t file_bytes = 0;       // Those pages of files, mapped ones included.
  // Part of the last ten seconds in which somebody waited for memory, [0, 1]: pressure stall
  // information of the innermost group that has it, else of the system. None: the system does not
  // say.
  std::optional<double> stalled_share;
};

// Reads /proc/meminfo, /proc/pressure/memory and the control groups of the process (v2: the lower
// of memory.max and memory.high; v1: memory.limit_in_bytes). `root` stands before every path, for
// tests. kUnavailable if /proc/meminfo does not say.
absl::StatusOr<MemoryRoom> ReadMemoryRoom(absl::string_view root = "");

// Bytes that this process may still take without swapping: available_bytes of the above.
absl::StatusOr<int64_t> FreeMemoryBytes(absl::string_view root = "");

// Bytes of this process that are in memory now; 0 if the system does not say.
int64_t ResidentBytes();

}  // namespace coterie
