// The adapters that Assistant answers with.

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "runtime/assistant.h"

namespace coterie {

absl::StatusOr<DeltaSnapshot> Assistant::AdapterFor(const Request& request, const ExpertSpec& spec,
                                                    const BaseProfile& profile) {
  const std::string& name = request.adapter.value_or(spec.adapter);
  if (name.empty()) return DeltaSnapshot();
  absl::StatusOr<DeltaSnapshot> adapter = adapters_->Current(name, spec.base_id, profile.spec);
  // An expert may be named before its first adapter is trained: its base answers until then.
  if (absl::IsNotFound(adapter.status()) && !request.adapter.has_value()) return DeltaSnapshot();
  return adapter;
}

absl::Status Assistant::ReloadAdapters() {
  std::vector<std::string> problems;
  Templates templates;  // Those of the configuration stay as they are.
  COTERIE_ASSIGN_OR_RETURN(ExpertCatalog usable, UsableExperts(problems, templates));
  if (usable.experts().empty()) return absl::NotFoundError("there is no expert left");
  auto catalog = std::make_shared<const ExpertCatalog>(std::move(usable));
  MutexLock lock(mutex_);
  catalog_.swap(catalog);
  return absl::OkStatus();
}

}  // namespace coterie
