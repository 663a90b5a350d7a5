#include "core/formats/json_file.h"

#include <string>

#include "absl/strings/str_cat.h"

#include "core/base/read_file.h"
#include "core/base/status_macros.h"

namespace coterie {
namespace {

// Deeper than any configuration; without a bound each byte of "[[[[" takes some sixty in memory.
constexpr int kMaxDepth = 32;
// More than any list of ours; without a bound each byte of "[],[]," takes some twenty.
constexpr size_t kMaxValues = size_t{1} << 19;

}  // namespace

absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text, absl::string_view path) {
  const auto lie = [path](absl::string_view what) {
    return absl::DataLossError(absl::StrCat("the file is ", what, ": file=", path));
  };
  // The parser takes a zero byte for the end, behind which anything could hide.
  if (text.find('\0') != absl::string_view::npos) return lie("no JSON object: it has a zero byte");
  using Event = nlohmann::json::parse_event_t;
  bool is_too_deep = false;
  size_t n_values = 0;
  const auto keep = [&](int depth, Event event, nlohmann::json&) {
    is_too_deep |= depth > kMaxDepth;
    const bool is_end = event == Event::object_end || event == Event::array_end;
    if (!is_end && event != Event::key) ++n_values;
    return depth <= kMaxDepth && n_values <= kMaxValues;
  };
  nlohmann::json object =
      nlohmann::json::parse(text.begin(), text.end(), keep, /*allow_exceptions=*/false);
  if (is_too_deep) return lie("JSON nested too deep");
  if (n_values > kMaxValues) return lie("JSON of too many values");
  if (!object.is_object()) return lie("no JSON object");
  return object;
}

absl::StatusOr<nlohmann::json> ReadJsonFile(absl::string_view path, int64_t max_bytes) {
  COTERIE_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, max_bytes));
  return ParseJsonObject(text, path);
}

}  // namespace coterie
