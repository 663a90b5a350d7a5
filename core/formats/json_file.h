#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace coterie {

// Parses a JSON object that somebody else wrote; `path` stands in messages. kDataLoss if the text
// is not valid JSON, no object, nested deeper than 32 levels, or has more than 2^19 values. Memory
// is within the text's size and 64 MB.
absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text, absl::string_view path);

// The same from a file. ReadSmallFile's errors, too.
absl::StatusOr<nlohmann::json> ReadJsonFile(absl::string_view path, int64_t max_bytes);

}  // namespace coterie
