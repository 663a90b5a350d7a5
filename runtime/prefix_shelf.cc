#include "runtime/prefix_shelf.h"

#include "absl/strings/str_cat.h"

#include "core/kernels/kernels.h"

namespace coterie {

PrefixShelf::PrefixShelf(MemoryBudget& budget, double share) : memory_(budget, share) {}

PrefixShelf::Place PrefixShelf::PlaceFor(const std::string& base, uint64_t base_version,
                                         const LinearDeltaSet* adapter,
                                         Activations activations) const {
  Place place;
  place.era = memory_.era();
  // Another instruction set may round differently.
  place.scope =
      absl::StrCat("base=", base, " ", absl::Hex(base_version),
                   "\nactivations=", static_cast<int>(activations), "\nkernels=", Kernels().isa);
  if (adapter != nullptr) {
    absl::StrAppend(&place.scope, "\nadapter=", adapter->version(), " ",
                    absl::Hex(adapter->fingerprint()));
  }
  return place;
}

void PrefixShelf::TakeUp(const Place& place, absl::Span<const TokenId> prompt, KvCache& kv) {
  if (prompt.empty()) return;
  memory_.Continue(place.scope, prompt.first(prompt.size() - 1), kv);
  MutexLock lock(mutex_);
  ++(kv.n_tokens() > 0 ? stats_.n_hits : stats_.n_misses);
  stats_.cached_tokens += kv.n_tokens();
}

void PrefixShelf::Keep(const Place& place, absl::Span<const TokenId> tokens, const KvCache& kv) {
  memory_.Keep(place.scope, tokens, kv, place.era);
}

PrefixStats PrefixShelf::Stats() const {
  PrefixCacheStats memory = memory_.Stats();
  MutexLock lock(mutex_);
  PrefixStats stats = stats_;
  stats.memory = memory;
  return stats;
}

}  // namespace coterie
