// The experts that a configuration names.

#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "lora/adapter_store.h"
#include "runtime/configuration.h"

namespace coterie {
namespace {

namespace fs = std::filesystem;

// The expert of one [[expert]] table.
absl::StatusOr<ExpertSpec> BuildSpec(const ExpertConfiguration& expert, const ExpertCatalog& store,
                                     const MeasuredQuality& measured) {
  ExpertSpec spec;
  if (absl::StartsWith(expert.model, "/")) {
    COTERIE_ASSIGN_OR_RETURN(spec, DescribeModelFile(expert.name, expert.model, ""));
    // A file's own name says more about what it is than the name a person gave the expert.
    spec.worth = DefaultQuality(fs::path(expert.model).filename().string(), spec.bytes);
  } else {
    COTERIE_ASSIGN_OR_RETURN(const ExpertSpec* model, store.Find(expert.model));
    spec = *model;
  }
  spec.name = expert.name;
  spec.adapter = expert.adapter;
  spec.system_prompt = expert.system_prompt;
  spec.chat_template = expert.chat_template;
  spec.sampling = expert.sampling;
  spec.context_tokens = expert.context_tokens;
  spec.pinned = expert.pinned;
  spec.keep_alive = expert.keep_alive;
  spec.worth = measured.Over(std::move(spec.worth), spec.base_id, spec.adapter);
  for (const auto& [domain, quality] : expert.domains) spec.worth.quality[domain] = quality;
  return spec;
}

// What an adapter that nobody measured is worth beside its base: as much, but for a tie, so that
// prompts it was not made for go on to the base.
ExpertQuality JustBehind(ExpertQuality base) {
  for (auto& [domain, quality] : base.quality) quality *= 0.999;
  return base;
}

// Every adapter in the store whose base is in the store makes an expert of its name.
void AddAdapterExperts(const std::string& home, const ExpertCatalog& store,
                       const MeasuredQuality& measured, std::vector<ExpertSpec>& specs,
                       std::vector<std::string>& problems) {
  const absl::StatusOr<std::vector<AdapterSummary>> adapters = AdapterStore(home).List();
  if (!adapters.ok()) {
    problems.emplace_back(adapters.status().message());
    return;
  }
  for (const AdapterSummary& adapter : *adapters) {
    if (adapter.current == 0 || adapter.base.id.empty()) continue;
    const auto base =
        std::find_if(store.experts().begin(), store.experts().end(),
                     [&](const ExpertSpec& spec) { return spec.base_id == adapter.base.id; });
    if (base == store.experts().end()) continue;
    if (std::any_of(specs.begin(), specs.end(),
                    [&](const ExpertSpec& spec) { return spec.name == adapter.name; })) {
      problems.push_back(absl::StrCat("adapter ", adapter.name,
                                      " makes no expert, for a model has its name; name it in a "
                                      "configuration: [[expert]] adapter"));
      continue;
    }
    ExpertSpec spec = *base;
    spec.name = spec.adapter = adapter.name;
    spec.worth = JustBehind(measured.Over(std::move(spec.worth), spec.base_id, ""));
    spec.worth = measured.Over(std::move(spec.worth), spec.base_id, spec.adapter);
    specs.push_back(std::move(spec));
  }
}

}  // namespace

absl::StatusOr<ExpertCatalog> Configuration::Catalog() const {
  COTERIE_ASSIGN_OR_RETURN(const ExpertCatalog store, ExpertCatalog::FromStore(home));
  std::vector<std::string> problems = store.problems();
  absl::StatusOr<MeasuredQuality> measured = MeasuredQuality::Read(home);
  if (!measured.ok()) {
    problems.emplace_back(measured.status().message());
    measured.emplace();
  }
  std::vector<ExpertSpec> specs;
  if (experts.empty()) {
    for (ExpertSpec spec : store.experts()) {
      spec.worth = measured->Over(std::move(spec.worth), spec.base_id, spec.adapter);
      specs.push_back(std::move(spec));
    }
    AddAdapterExperts(home, store, *measured, specs, problems);
  }
  for (const ExpertConfiguration& expert : experts) {
    absl::StatusOr<ExpertSpec> spec = BuildSpec(expert, store, *measured);
    if (!spec.ok()) {
      return absl::Status(spec.status().code(),
                          absl::StrCat(source, ":", expert.line, ": [[expert]] ", expert.name, ": ",
                                       spec.status().message()));
    }
    specs.push_back(*std::move(spec));
  }
  return ExpertCatalog::FromSpecs(std::move(specs), std::move(problems));
}

}  // namespace coterie
