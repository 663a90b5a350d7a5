#include "runtime/adapter_shelf.h"

#include "absl/strings/match.h"

#include "core/base/status_macros.h"
#include "lora/adapter.h"

namespace coterie {
namespace {

// While a file becomes what is served it is in memory as f32 twice, in the order of the file and in
// that of the base.
constexpr int64_t kReadingFactor = 5;

}  // namespace

AdapterShelf::AdapterShelf(absl::string_view home, MemoryBudget& budget, Reclaimer& reclaimer,
                           Teller tell)
    : store_(home), budget_(budget), reclaimer_(reclaimer), tell_(std::move(tell)) {}

absl::StatusOr<Reservation> AdapterShelf::Reserve(int64_t bytes) {
  absl::StatusOr<Reservation> free = budget_.Reserve(Purpose::kAdapter, bytes);
  if (free.ok() || absl::IsResourceExhausted(free.status())) return free;
  DropIdle([](const BaseId&) { return false; });
  const Charge charge{Purpose::kAdapter, bytes};
  COTERIE_ASSIGN_OR_RETURN(std::vector<Reservation> reserved,
                           budget_.ReserveAll({&charge, 1}, reclaimer_));
  return std::move(reserved[0]);
}

absl::StatusOr<std::shared_ptr<const AdapterShelf::Loaded>> AdapterShelf::Read(
    absl::string_view name, int64_t version, const BaseId& base, const ArchSpec& spec) {
  // A damaged file has no size to charge, and will not be read to its end either.
  const int64_t served_bytes = store_.ServedBytes(name, version).value_or(0);
  COTERIE_ASSIGN_OR_RETURN(Reservation bytes, Reserve(kReadingFactor * served_bytes));
  COTERIE_ASSIGN_OR_RETURN(const StoredAdapter stored, store_.Current(name));
  BaseIdentity identity;
  identity.name = base;
  if (absl::StartsWith(base, "sha256:")) identity.id = base;
  COTERIE_RETURN_IF_ERROR(CheckFits(stored.adapter, spec, identity));
  if (!stored.problem.empty()) tell_(std::string(name), stored.problem);
  auto loaded = std::make_shared<Loaded>();
  COTERIE_ASSIGN_OR_RETURN(loaded->deltas, Serve(stored.adapter, spec, stored.label()));
  if (bytes.bytes() < loaded->deltas->bytes()) {  // Another version than was measured.
    COTERIE_ASSIGN_OR_RETURN(bytes, Reserve(loaded->deltas->bytes()));
  }
  bytes.ShrinkTo(loaded->deltas->bytes());
  loaded->bytes = std::move(bytes);
  return loaded;
}

absl::StatusOr<DeltaSnapshot> AdapterShelf::Current(absl::string_view name, const BaseId& base,
                                                    const ArchSpec& spec) {
  const absl::StatusOr<int64_t> current = store_.CurrentVersion(name);
  if (!current.ok() && current.status().code() != absl::StatusCode::kDataLoss) {
    return current.status();
  }
  const int64_t wanted = current.value_or(0);
  const Key key(name, base);
  // The charge goes when the last answer that holds the deltas does.
  const auto snapshot = [](std::shared_ptr<const Loaded> loaded) {
    const LinearDeltaSet* deltas = loaded->deltas.get();
    return DeltaSnapshot(std::move(loaded), deltas);
  };
  {
    MutexLock lock(mutex_);
    const auto it = slots_.find(key);
    if (it != slots_.end() && it->second.wanted == wanted) return snapshot(it->second.loaded);
  }
  COTERIE_ASSIGN_OR_RETURN(std::shared_ptr<const Loaded> loaded, Read(name, wanted, base, spec));
  Slot fresh{wanted, loaded};  // Then the one before, freed after the lock.
  MutexLock lock(mutex_);
  std::swap(slots_[key], fresh);
  return snapshot(std::move(loaded));
}

void AdapterShelf::DropIdle(absl::FunctionRef<bool(const BaseId& base)> is_kept) {
  std::vector<std::shared_ptr<const Loaded>> dropped;  // Freed after the lock.
  MutexLock lock(mutex_);
  for (auto it = slots_.begin(); it != slots_.end();) {
    if (it->second.loaded.use_count() == 1 && !is_kept(it->first.second)) {
      dropped.push_back(std::move(it->second.loaded));
      it = slots_.erase(it);
    } else {
      ++it;
    }
  }
}

std::vector<AdapterShelf::Entry> AdapterShelf::Entries() const {
  std::vector<Entry> entries;
  MutexLock lock(mutex_);
  for (const auto& [key, slot] : slots_) {
    entries.push_back({slot.loaded->deltas->version(), key.second, slot.loaded->bytes.bytes()});
  }
  return entries;
}

}  // namespace coterie
