#include "core/formats/json_file.h"

#include <string>

#include "absl/strings/str_cat.h"

#include "core/base/read_file.h"
#include "core/base/status_macros.h"

namespace coterie {
namespace {

// Deeper than any configuration; without a bound each byte of "[[[[" takes some sixty in memory.
constexpr int kMaxDepth = 32;

}  // namespace

absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text, absl::string_view path) {
  bool is_too_deep = false;
  const auto keep = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    is_too_deep |= depth > kMaxDepth;
    return depth <= kMaxDepth;
  };
  nlohmann::json object =
      nlohmann::json::parse(text.begin(), text.end(), keep, /*allow_exceptions=*/false);
  if (object.is_object() && !is_too_deep) return object;
  return absl::DataLossError(
      absl::StrCat(is_too_deep ? "the file is JSON nested too deep" : "the file is no JSON object",
                   ": file=", path));
}

absl::StatusOr<nlohmann::json> ReadJsonFile(absl::string_view path, int64_t max_bytes) {
  COTERIE_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, max_bytes));
  return ParseJsonObject(text, path);
}

}  // namespace coterie
