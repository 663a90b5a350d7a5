#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "core/memory/memory_budget.h"
#include "core/threads/mutex.h"
#include "experts/arch_spec.h"
#include "experts/base_source.h"
#include "experts/linear_delta.h"
#include "lora/adapter_store.h"

namespace coterie {

// The adapters that are in memory, by name and base, each charged its bytes as it is served for as
// long as the shelf or an answer holds it. Thread-safe.
class AdapterShelf {
 public:
  // Told once of each adapter that could not be read and gave way to an older version.
  using Teller = std::function<void(const std::string& name, const std::string& problem)>;

  // The budget and the reclaimer outlive the shelf and every snapshot.
  AdapterShelf(absl::string_view home, MemoryBudget& budget, Reclaimer& reclaimer, Teller tell);

  // The current version of an adapter for a base, read if it is not in memory: another process may
  // have published or rolled back. What an answer holds stays as it is. Errors are those of
  // AdapterStore::Current, of CheckFits and of the budget.
  absl::StatusOr<DeltaSnapshot> Current(absl::string_view name, const BaseId& base,
                                        const ArchSpec& spec);

  // Forgets adapters that no answer holds and whose base is not kept; they are small entries on it.
  void DropIdle(absl::FunctionRef<bool(const BaseId& base)> is_kept);

  AdapterStore& store() { return store_; }

  struct Entry {
    std::string label;  // "home@3"
    BaseId base;
    int64_t bytes = 0;
  };
  std::vector<Entry> Entries() const;

 private:
  struct Loaded {
    Reservation bytes;  // Given back after the deltas are freed.
    DeltaSnapshot deltas;
  };
  struct Slot {
    int64_t wanted = 0;  // What `current` named when it was read.
    std::shared_ptr<const Loaded> loaded;
  };
  using Key = std::pair<std::string, BaseId>;

  absl::StatusOr<std::shared_ptr<const Loaded>> Read(absl::string_view name, int64_t version,
                                                     const BaseId& base, const ArchSpec& spec);
  absl::StatusOr<Reservation> Reserve(int64_t bytes);

  AdapterStore store_;
  MemoryBudget& budget_;
  Reclaimer& reclaimer_;
  const Teller tell_;

  mutable Mutex mutex_;
  std::map<Key, Slot> slots_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace coterie
