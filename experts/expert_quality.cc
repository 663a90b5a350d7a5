#include "experts/expert_quality.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

#include "core/base/quote.h"
#include "core/base/status_macros.h"
#include "core/formats/json_file.h"

namespace coterie {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::array<absl::string_view, 7> kDomains = {
    "code", "math", "writing", "general", "textops", "translate", "assistant"};
using PerDomain = std::array<double, kDomains.size()>;  // In the order of kDomains.

constexpr int64_t kMaxFileBytes = 1 << 20;
constexpr double kMaxAnswerSeconds = 1e6;

struct KnownModel {
  absl::string_view name;
  PerDomain quality;
};

// Right answers of `coterie bench value`, greedy, the files that `coterie pull` fetches
// (docs/value.md has the intervals).
constexpr std::array<KnownModel, 3> kKnownModels = {{
    // code, math, writing, general, textops, translate, assistant
    {"smollm2-135m", {2. / 68, 3. / 64, 10. / 60, 38. / 64, 24. / 64, 2. / 62, 0. / 64}},
    {"qwen2.5-coder-0.5b", {29. / 68, 25. / 64, 20. / 60, 35. / 64, 39. / 64, 29. / 62, 25. / 64}},
    {"qwen2.5-coder-1.5b", {43. / 68, 46. / 64, 37. / 60, 52. / 64, 55. / 64, 42. / 62, 50. / 64}},
}};

// The work of a typical answer there, in tokens written (ten tokens read count as one), and the
// bytes of weights that two cores read in a second.
constexpr PerDomain kAnswerTokens = {130, 180, 60, 12, 23, 11, 49};
constexpr double kReadBytesPerSecond = 18e9;

PerDomain PriorOf(absl::string_view lower_name, int64_t bytes) {
  // The means of the known models lie near a line: 0.18 at 100 MB, 16 points for every doubling.
  const double doublings = std::log2(std::max<double>(1e6, static_cast<double>(bytes)) / 1e8);
  const double size_quality = 0.18 + 0.16 * doublings;
  //                   code, math, writing, general, textops, translate, assistant
  PerDomain offset = {-0.15, -0.10, 0, 0.15, 0.10, -0.05, -0.05};
  const bool code = absl::StrContains(lower_name, "code");
  const bool math = absl::StrContains(lower_name, "math");
  if (code) offset = {-0.05, -0.05, -0.12, 0.10, 0.13, -0.05, -0.05};
  if (math) offset = {-0.10, 0.10, -0.12, 0.10, 0.10, -0.10, -0.10};
  for (double& value : offset) value = std::clamp(size_quality + value, 0.01, 0.9);
  return offset;
}

// The number of that name, or nothing if it is no number in [0, most].
std::optional<double> NumberIn(const Json& object, const char* key, double most) {
  const auto field = object.find(key);
  if (field == object.end() || !field->is_number()) return std::nullopt;
  const double value = field->get<double>();
  if (!(value >= 0.0 && value <= most)) return std::nullopt;
  return value;
}

absl::Status ReadDomains(const Json& domains, ExpertQuality& quality) {
  for (const auto& [domain, figures] : domains.items()) {
    if (!figures.is_object()) {
      return absl::DataLossError(absl::StrCat("the domain ", Quote(domain), " is not an object"));
    }
    const std::optional<double> share = NumberIn(figures, "quality", 1.0);
    const std::optional<double> seconds = NumberIn(figures, "answer_seconds", kMaxAnswerSeconds);
    if (!share || !seconds) {
      return absl::DataLossError(absl::StrCat("the domain ", Quote(domain),
                                              " needs \"quality\" in [0, 1] and "
                                              "\"answer_seconds\" of at least 0"));
    }
    quality.quality[domain] = *share;
    quality.answer_seconds[domain] = *seconds;
  }
  return absl::OkStatus();
}

// One entry of "experts".
absl::StatusOr<std::pair<std::string, std::string>> KeyOf(const Json& entry) {
  if (!entry.is_object()) return absl::DataLossError("an entry of \"experts\" is not an object");
  const auto base = entry.find("base");
  const auto adapter = entry.find("adapter");
  if (base == entry.end() || !base->is_string()) {
    return absl::DataLossError("an entry of \"experts\" has no \"base\"");
  }
  if (adapter != entry.end() && !adapter->is_string()) {
    return absl::DataLossError("\"adapter\" is no string");
  }
  return std::make_pair(base->get<std::string>(),
                        adapter == entry.end() ? std::string() : adapter->get<std::string>());
}

}  // namespace

absl::Span<const absl::string_view> KnownDomains() { return kDomains; }

ExpertQuality DefaultQuality(absl::string_view name, int64_t bytes) {
  const std::string lower = absl::AsciiStrToLower(name);
  PerDomain quality = PriorOf(lower, bytes);
  for (const KnownModel& known : kKnownModels) {
    if (absl::StrContains(lower, known.name)) quality = known.quality;
  }
  ExpertQuality by_domain;
  for (size_t i = 0; i < kDomains.size(); ++i) {
    const std::string domain(kDomains[i]);
    by_domain.quality[domain] = quality[i];
    by_domain.answer_seconds[domain] =
        kAnswerTokens[i] * static_cast<double>(bytes) / kReadBytesPerSecond;
  }
  return by_domain;
}

absl::StatusOr<MeasuredQuality> MeasuredQuality::Read(absl::string_view home) {
  MeasuredQuality measured;
  const fs::path path = fs::path(std::string(home)) / "measurements.json";
  std::error_code error;
  if (!fs::exists(path, error)) return measured;
  const auto unusable = [](absl::string_view why) {
    return absl::DataLossError(
        absl::StrCat("the measurements of experts cannot be used, measure again with `coterie "
                     "bench value --write` or delete them: ",
                     why));
  };
  const auto lie = [&](absl::string_view what) {
    return unusable(absl::StrCat(what, ": path=", path.string()));
  };
  const absl::StatusOr<Json> root = ReadJsonFile(path.string(), kMaxFileBytes);
  if (!root.ok()) return unusable(root.status().message());
  if (root->value("version", Json()) != 1) return lie("\"version\" is not 1");
  const auto experts = root->find("experts");
  if (experts == root->end() || !experts->is_array()) return lie("\"experts\" is not a list");
  for (const Json& entry : *experts) {
    const auto key = KeyOf(entry);
    if (!key.ok()) return lie(key.status().message());
    const auto domains = entry.find("domains");
    if (domains == entry.end() || !domains->is_object()) return lie("\"domains\" is not an object");
    const absl::Status read = ReadDomains(*domains, measured.experts_[*key]);
    if (!read.ok()) return lie(read.message());
  }
  return measured;
}

ExpertQuality MeasuredQuality::Over(ExpertQuality defaults, absl::string_view base_id,
                                    absl::string_view adapter) const {
  const auto it = experts_.find({std::string(base_id), std::string(adapter)});
  if (it == experts_.end()) return defaults;
  for (const auto& [domain, share] : it->second.quality) defaults.quality[domain] = share;
  for (const auto& [domain, seconds] : it->second.answer_seconds) {
    defaults.answer_seconds[domain] = seconds;
  }
  return defaults;
}

}  // namespace coterie
