#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace coterie {

// Reads a number of bytes as people write it: digits, optionally a fraction and a unit, at most one
// space between. Units are B, kB, KB, MB, GB, TB (powers of 1000) and KiB, MiB, GiB, TiB (of 1024);
// no unit means bytes. A fraction needs a unit above B; a part of a byte is dropped.
// kInvalidArgument for anything else, signs included, and for values of 2^63 or more.
absl::StatusOr<int64_t> ParseByteSize(absl::string_view text);

// Bytes for people, in powers of 1000 with three digits or more: "512 B", "98.4 MB", "1.12 GB".
// Requires bytes >= 0.
std::string FormatBytes(int64_t bytes);

}  // namespace coterie
