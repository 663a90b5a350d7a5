// What an ExpertCache says of itself.

#include <algorithm>
#include <utility>

#include "experts/expert_cache.h"
#include "experts/expert_cache_state.h"

namespace coterie {

absl::string_view EvictionCauseName(EvictionCause cause) {
  static constexpr std::array<absl::string_view, kEvictionCauseCount> kNames = {
      "request", "keep_alive", "pressure", "limit", "reclaim", "asked"};
  return kNames[static_cast<size_t>(cause)];
}

const BaseResidency* CacheSnapshot::Find(const BaseId& base) const {
  const auto it = std::lower_bound(
      bases.begin(), bases.end(), base,
      [](const BaseResidency& known, const BaseId& wanted) { return known.base < wanted; });
  return it == bases.end() || it->base != base ? nullptr : &*it;
}

CacheSnapshot ExpertCache::Snapshot() const {
  CacheSnapshot residency;
  MutexLock lock(mutex_);
  residency.bases.reserve(entries_.size());
  for (const auto& [id, entry] : entries_) {
    residency.bases.push_back(
        {.base = id,
         .state = entry->state,
         .bytes = entry->footprint.total_bytes(),
         .done_bytes = entry->job == nullptr ? 0 : entry->job->done_bytes.load(),
         .n_leases = entry->n_leases,
         .n_pins = entry->n_pins,
         .n_uses = entry->n_uses,
         .last_use = entry->last_use,
         .reload_time = entry->reload_time,
         .n_failures = entry->n_failures,
         .keep_alive = KeepAliveLocked(id)});
  }
  return residency;
}

CacheStats ExpertCache::Stats() const {
  const BudgetSnapshot ledger = budget_.Snapshot();
  const absl::Time now = options_.clock();
  MutexLock lock(mutex_);
  CacheStats stats = stats_;
  stats.peak_bytes = ledger.peak_bytes;
  stats.unreturned_bytes = unreturned_.bytes();
  stats.n_leases = static_cast<int64_t>(lease_starts_.size());
  if (!lease_starts_.empty()) stats.oldest_lease = now - *lease_starts_.begin();
  stats.n_waiting = static_cast<int64_t>(queue_.size());
  if (!queue_.empty()) stats.oldest_wait = now - queue_.front()->arrival;
  stats.churn = churn_.Report(now, ledger.limit_bytes);
  return stats;
}

void ExpertCache::SetEventSink(CacheEventSink sink) {
  auto shared = sink ? std::make_shared<const CacheEventSink>(std::move(sink)) : nullptr;
  MutexLock lock(mutex_);
  sink_.swap(shared);
}

CacheEvent ExpertCache::NewEventLocked(CacheEvent::Kind kind, const Entry& entry) {
  CacheEvent event;
  event.kind = kind;
  event.sequence = ++n_events_;
  event.base = entry.id;
  event.bytes = entry.footprint.total_bytes();
  return event;
}

void ExpertCache::Emit(const CacheEvent& event) {
  std::shared_ptr<const CacheEventSink> sink;
  {
    MutexLock lock(mutex_);
    sink = sink_;
  }
  if (sink != nullptr) (*sink)(event);
}

}  // namespace coterie
