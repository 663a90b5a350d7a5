#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace coterie {

// The domains that the shipped router tells apart. A router fitted by a user may have others.
absl::Span<const absl::string_view> KnownDomains();

// What an expert is worth by domain. A domain that is not named counts as 0.
struct ExpertQuality {
  std::map<std::string, double> quality;         // Share of tasks done right, [0, 1].
  std::map<std::string, double> answer_seconds;  // Mean time to write one answer; 0: unknown.
};

// Before anything was measured on this machine: figures of `coterie bench value` for models that we
// know, and for others a prior from their size and name (a name with "code" in it is better at
// code). Seconds follow from the bytes that each token reads.
ExpertQuality DefaultQuality(absl::string_view name, int64_t bytes);

// What `coterie bench value --write` measured on this machine, by base and adapter.
class MeasuredQuality {
 public:
  // Reads home/measurements.json: {"version": 1, "experts": [{"base": ID, "adapter": NAME,
  // "domains": {DOMAIN: {"quality": Q, "answer_seconds": S}}}]}; other keys are ignored. Nothing is
  // measured if there is no such file. kDataLoss, naming file and field, for anything else.
  static absl::StatusOr<MeasuredQuality> Read(absl::string_view home);

  // Replaces the figures of `defaults` in the domains that were measured for this expert.
  ExpertQuality Over(ExpertQuality defaults, absl::string_view base_id,
                     absl::string_view adapter) const;

 private:
  std::map<std::pair<std::string, std::string>, ExpertQuality> experts_;  // By base and adapter.
};

}  // namespace coterie
