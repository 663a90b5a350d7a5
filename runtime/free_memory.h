#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace coterie {

// Bytes that this process may still take without swapping: MemAvailable of /proc/meminfo, or what
// the control groups around the process leave (limit less use, cgroup v2 and v1), whichever is
// less. `root` stands before every path, for tests. kUnavailable if /proc/meminfo does not say.
absl::StatusOr<int64_t> FreeMemoryBytes(absl::string_view root = "");

}  // namespace coterie
