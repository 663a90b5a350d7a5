// What leaves an ExpertCache, what stays, and what it says of itself.

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "core/base/status_macros.h"
#include "experts/expert_cache.h"
#include "experts/expert_cache_state.h"

namespace coterie {

bool ExpertCache::IsWantedBeforeLocked(const BaseId& base, const Ticket* ticket) const {
  return std::any_of(queue_.begin(), queue_.end(), [&](const Ticket* other) {
    return other->need.base == base && (ticket == nullptr || other->number < ticket->number);
  });
}

std::vector<EntryView> ExpertCache::ViewsLocked(const Ticket* ticket, const Entry* spared) const {
  std::vector<EntryView> views;
  for (const auto& [id, entry] : entries_) {
    if (entry->state != BaseState::kReady || entry.get() == spared) continue;
    EntryView view = entry->View();
    // A model that someone outside holds would not be freed by letting go of it here.
    view.idle =
        entry->n_leases == 0 && entry->model.use_count() == 1 && !IsWantedBeforeLocked(id, ticket);
    views.push_back(std::move(view));
  }
  return views;
}

std::vector<EntryView> ExpertCache::ChooseLocked(int64_t bytes, const Ticket* ticket,
                                                 const Entry* spared) const {
  const std::vector<EntryView> views = ViewsLocked(ticket, spared);
  std::vector<EntryView> chosen;
  int64_t chosen_bytes = 0;
  for (const BaseId& id : options_.policy->PickVictims(views, bytes)) {
    const auto has_id = [&](const EntryView& each) { return each.id == id; };
    const auto view = std::find_if(views.begin(), views.end(), has_id);
    // Policies can be anybody's: what may not be evicted is not, whatever they say.
    if (view == views.end() || !view->evictable()) continue;
    if (std::any_of(chosen.begin(), chosen.end(), has_id)) continue;
    chosen.push_back(*view);
    chosen_bytes += view->bytes;
  }
  return chosen_bytes < bytes ? std::vector<EntryView>() : chosen;
}

std::vector<ExpertCache::Victim> ExpertCache::PickVictimsLocked(int64_t bytes, const Ticket* ticket,
                                                                const Entry* spared) {
  const BaseId for_base = ticket == nullptr ? BaseId() : ticket->need.base;
  const std::string whom = for_base.empty() ? "the budget" : for_base;
  std::vector<Victim> victims;
  for (const EntryView& view : ChooseLocked(bytes, ticket, spared)) {
    std::string why = absl::StrFormat("%s; for %s, which lacked %.1f MB",
                                      options_.policy->Reason(view, options_.clock()), whom,
                                      static_cast<double>(bytes) / 1e6);
    victims.push_back(TakeVictimLocked(*entries_.at(view.id), std::move(why), for_base));
  }
  return victims;
}

ExpertCache::Victim ExpertCache::TakeVictimLocked(Entry& entry, std::string why,
                                                  const BaseId& for_base) {
  Victim victim;
  victim.entry = &entry;
  victim.event = NewEventLocked(CacheEvent::Kind::kEvicted, entry);
  victim.event.why = std::move(why);
  victim.event.for_base = for_base;
  victim.model = std::move(entry.model);
  victim.charges.push_back(std::move(entry.weights));
  victim.charges.push_back(std::move(entry.tokenizer));
  entry.state = BaseState::kEvicting;
  return victim;
}

std::vector<Reservation> ExpertCache::Free(std::vector<Victim>& victims) {
  std::vector<Reservation> freed;
  for (Victim& victim : victims) {
    victim.model.reset();
    for (Reservation& charge : victim.charges) freed.push_back(std::move(charge));
  }
  {
    MutexLock lock(mutex_);
    for (Victim& victim : victims) {
      victim.entry->state = BaseState::kAbsent;
      ++stats_.n_evictions;
      stats_.evicted_bytes += victim.event.bytes;
    }
  }
  for (const Victim& victim : victims) Emit(victim.event);
  signal_->Raise();
  return freed;
}

std::vector<std::stop_source> ExpertCache::AbandonUnwantedLoadsLocked() {
  std::vector<std::stop_source> stops;
  for (const auto& [id, entry] : entries_) {
    if (entry->state != BaseState::kLoading || entry->n_leases > 0 || entry->job->abandoned) {
      continue;
    }
    entry->job->abandoned = true;
    stops.push_back(entry->job->stop);
  }
  return stops;
}

std::vector<Reservation> ExpertCache::Reclaim(int64_t bytes_needed) {
  std::vector<Victim> victims;
  {
    MutexLock lock(mutex_);
    victims = PickVictimsLocked(bytes_needed, nullptr, nullptr);
  }
  return victims.empty() ? std::vector<Reservation>() : Free(victims);
}

void ExpertCache::EvictOvershoot() {
  std::vector<Victim> victims;
  {
    MutexLock lock(mutex_);
    const BudgetSnapshot ledger = budget_.Snapshot();
    int64_t evictable_bytes = 0;
    for (const EntryView& view : ViewsLocked(nullptr, nullptr)) {
      if (view.evictable()) evictable_bytes += view.bytes;
    }
    const int64_t overshoot_bytes = ledger.used_bytes - ledger.limit_bytes;
    victims = PickVictimsLocked(std::min(overshoot_bytes, evictable_bytes), nullptr, nullptr);
  }
  if (!victims.empty()) Free(victims);
}

absl::Status ExpertCache::Evict(const BaseId& base) {
  std::vector<Victim> victims;
  {
    MutexLock lock(mutex_);
    const auto found = entries_.find(base);
    if (found == entries_.end() || found->second->state == BaseState::kAbsent) {
      return absl::NotFoundError(absl::StrCat("the base is not loaded: base=", base));
    }
    Entry& entry = *found->second;
    if (entry.n_pins > 0) {
      return absl::FailedPreconditionError(
          absl::StrCat("the base is pinned: base=", base, ", n_pins=", entry.n_pins));
    }
    if (entry.state != BaseState::kReady || entry.n_leases > 0 || entry.model.use_count() > 1) {
      return absl::UnavailableError(
          absl::StrCat("the base is in use, loading or being evicted: base=", base,
                       ", n_leases=", entry.n_leases));
    }
    victims.push_back(TakeVictimLocked(entry, "asked for", BaseId()));
  }
  Free(victims);
  return absl::OkStatus();
}

absl::Status ExpertCache::Pin(const BaseId& base) {
  COTERIE_ASSIGN_OR_RETURN(const BaseFootprint footprint, MeasureIfAbsent(base));
  MutexLock lock(mutex_);
  Entry& entry = EntryLocked(base, footprint);
  const BudgetSnapshot ledger = budget_.Snapshot();
  const int64_t room_bytes =
      ledger.limit_bytes - ledger.bytes_by_purpose[static_cast<size_t>(Purpose::kRouter)];
  int64_t pinned_bytes = 0;
  for (const auto& [id, other] : entries_) {
    if (other->n_pins > 0 && other.get() != &entry) pinned_bytes += other->footprint.total_bytes();
  }
  if (entry.footprint.total_bytes() > room_bytes - pinned_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("pinned bases would not fit in the memory budget: base=", base,
                     ", bytes=", entry.footprint.total_bytes(), ", pinned_bytes=", pinned_bytes,
                     ", limit_bytes=", ledger.limit_bytes));
  }
  ++entry.n_pins;
  return absl::OkStatus();
}

absl::Status ExpertCache::Unpin(const BaseId& base) {
  {
    MutexLock lock(mutex_);
    const auto found = entries_.find(base);
    if (found == entries_.end() || found->second->n_pins == 0) {
      return absl::FailedPreconditionError(absl::StrCat("the base is not pinned: base=", base));
    }
    --found->second->n_pins;
  }
  signal_->Raise();
  return absl::OkStatus();
}

CacheSnapshot ExpertCache::Snapshot() const {
  CacheSnapshot residency;
  MutexLock lock(mutex_);
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
         .n_failures = entry->n_failures});
  }
  return residency;
}

CacheStats ExpertCache::Stats() const {
  const int64_t peak_bytes = budget_.Snapshot().peak_bytes;
  MutexLock lock(mutex_);
  CacheStats stats = stats_;
  stats.peak_bytes = peak_bytes;
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
