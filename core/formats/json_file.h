#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace coterie {

// The text of a small file. MappedFile's errors, and kDataLoss for one over `max_bytes`.
absl::StatusOr<std::string> ReadTextFile(absl::string_view path, int64_t max_bytes);

// Parses a JSON object that somebody else wrote; `path` stands in messages. kDataLoss if the text
// is not valid JSON, no object, or nested deeper than 32 levels. Memory is within about twenty
// times the text.
absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text, absl::string_view path);

// Both at once.
absl::StatusOr<nlohmann::json> ReadJsonFile(absl::string_view path, int64_t max_bytes);

}  // namespace coterie
