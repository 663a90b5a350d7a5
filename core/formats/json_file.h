#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace coterie {

// Parses a JSON object that somebody else wrote; `path` stands in messages. kDataLoss if the text
// is not valid JSON, no object, or nested deeper than 32 levels. Memory is within about twenty
// times the text.
absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text, absl::string_view path);

// The same from a file. ReadSmallFile's errors, too.
absl::StatusOr<nlohmann::json> ReadJsonFile(absl::string_view path, int64_t max_bytes);

}  // namespace coterie
