#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace coterie {

// Opens a regular file for reading and returns its descriptor, which the caller closes. Never
// blocks: a pipe or a device is kInvalidArgument. kNotFound, kPermissionDenied and kInternal name
// the path and the system's reason.
absl::StatusOr<int> OpenRegularFile(absl::string_view path);

// The bytes of a regular file that is small by nature, such as a configuration. Errors as above,
// and kDataLoss with both sizes if it is longer than max_bytes; nothing is allocated for it then.
absl::StatusOr<std::string> ReadSmallFile(absl::string_view path, int64_t max_bytes);

}  // namespace coterie
