// What leaves an ExpertCache and what stays.

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "experts/expert_cache.h"
#include "experts/expert_cache_state.h"

namespace coterie {

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

// Keeps what is worth keeping for its own next request out of the hands of `ticket`, for a while.
// Returns when the first such base is free to go.
absl::Time ExpertCache::SpareHeldLocked(std::vector<EntryView>& views, const Ticket& ticket) const {
  const absl::Time now = options_.clock();
  absl::Time first = absl::InfiniteFuture();
  const absl::Time patience_ends = ticket.arrival + options_.hold.longest;
  if (ticket.try_once() || now >= patience_ends || MayNotBePassedLocked(ticket)) return first;
  for (EntryView& view : views) {
    const absl::Time until = std::min(HeldUntil(view, options_.hold), patience_ends);
    if (!view.evictable() || until <= now) continue;
    view.idle = false;
    first = std::min(first, until);
  }
  return first;
}

std::vector<EntryView> ExpertCache::ChooseLocked(int64_t bytes,
                                                 const std::vector<EntryView>& views) const {
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

std::vector<ExpertCache::Victim> ExpertCache::VictimsForLocked(int64_t bytes, Ticket& ticket,
                                                               const Entry& spared) {
  std::vector<EntryView> views = ViewsLocked(&ticket, &spared);
  const absl::Time held_until = SpareHeldLocked(views, ticket);
  std::vector<Victim> victims;
  for (const EntryView& view : ChooseLocked(bytes, views)) {
    victims.push_back(TakeVictimLocked(*entries_.at(view.id), EvictionCause::kRequest,
                                       options_.policy->Reason(view, options_.clock())));
    victims.back().event.for_base = ticket.need.base;
    victims.back().event.need_bytes = bytes;
  }
  if (victims.empty()) ticket.look_again = std::min(ticket.look_again, held_until);
  return victims;
}

std::vector<ExpertCache::Victim> ExpertCache::VictimsLocked(int64_t bytes, EvictionCause cause,
                                                            const std::string& why) {
  std::vector<Victim> victims;
  for (const EntryView& view : ChooseLocked(bytes, ViewsLocked(nullptr, nullptr))) {
    victims.push_back(
        TakeVictimLocked(*entries_.at(view.id), cause,
                         absl::StrCat(why, "; ", options_.policy->Reason(view, options_.clock()))));
    victims.back().event.need_bytes = bytes;
  }
  return victims;
}

ExpertCache::Victim ExpertCache::TakeVictimLocked(Entry& entry, EvictionCause cause,
                                                  std::string why) {
  Victim victim;
  victim.entry = &entry;
  victim.event = NewEventLocked(CacheEvent::Kind::kEvicted, entry);
  victim.event.cause = cause;
  victim.event.why = std::move(why);
  victim.age = options_.clock() - entry.loaded_at;
  victim.model = std::move(entry.model);
  victim.charges.push_back(std::move(entry.weights));
  victim.charges.push_back(std::move(entry.tokenizer));
  entry.state = BaseState::kEvicting;
  return victim;
}

std::vector<Reservation> ExpertCache::Free(std::vector<Victim>& victims) {
  const int64_t resident_before_bytes = options_.resident_bytes ? options_.resident_bytes() : 0;
  std::vector<Reservation> freed;
  for (Victim& victim : victims) {
    victim.model.reset();
    for (Reservation& charge : victim.charges) freed.push_back(std::move(charge));
  }
  if (options_.trim) options_.trim();
  if (options_.resident_bytes) MeasureFreed(resident_before_bytes, freed);
  {
    MutexLock lock(mutex_);
    for (Victim& victim : victims) {
      NoteEvictedLocked(victim);
      victim.entry->state = BaseState::kAbsent;
    }
  }
  for (const Victim& victim : victims) Emit(victim.event);
  signal_->Raise();
  return freed;
}

// What was measured to be still there stays charged, at the cost of who would have got it.
void ExpertCache::MeasureFreed(int64_t resident_before_bytes, std::vector<Reservation>& freed) {
  FreedSample sample{.resident_before_bytes = resident_before_bytes,
                     .resident_after_bytes = options_.resident_bytes()};
  for (const Reservation& charge : freed) sample.promised_bytes += charge.bytes();
  const int64_t used_bytes = budget_.Snapshot().used_bytes;
  MutexLock lock(mutex_);
  sample.used_after_bytes = used_bytes - sample.promised_bytes - unreturned_.bytes();
  const int64_t unreturned_bytes = freed_check_.Note(sample);
  stats_.n_freed_shortfalls = freed_check_.n_shortfalls();
  if (unreturned_bytes <= unreturned_.bytes()) {
    // What was missing before counts as back only if it is no longer resident.
    const int64_t left_bytes =
        freed_check_.Unexplained(sample.resident_after_bytes, sample.used_after_bytes);
    unreturned_.ShrinkTo(std::clamp<int64_t>(left_bytes, 0, unreturned_.bytes()));
    return;
  }
  std::vector<Reservation> given;
  int64_t more_bytes = unreturned_bytes - unreturned_.bytes();
  for (Reservation& charge : freed) {
    const int64_t part_bytes = std::min(more_bytes, charge.bytes());
    given.push_back(charge.Split(part_bytes));
    more_bytes -= part_bytes;
  }
  given.push_back(std::move(unreturned_));
  int64_t sum = 0;
  for (const Reservation& part : given) sum += part.bytes();
  auto kept = budget_.Exchange(given, {{Purpose::kUnreturned, sum}});
  if (kept.ok()) unreturned_ = std::move(kept->front());  // Else the limit is below what is used.
}

void ExpertCache::NoteEvictedLocked(const Victim& victim) {
  ++stats_.n_evictions;
  ++stats_.n_evictions_by_cause[static_cast<size_t>(victim.event.cause)];
  stats_.evicted_bytes += victim.event.bytes;
  stats_.age_at_eviction += victim.age;
  ForgetUnusedPrefetchLocked(*victim.entry);
  churn_.NoteEvicted(victim.event.base, options_.clock());
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

int64_t ExpertCache::ExpendableBytes() const {
  return options_.expendable == nullptr ? 0 : options_.expendable->expendable_bytes();
}

std::vector<Reservation> ExpertCache::Reclaim(int64_t bytes_needed) {
  std::vector<Victim> victims;
  int64_t missing_bytes = bytes_needed;
  {
    MutexLock lock(mutex_);
    const int64_t victims_bytes = bytes_needed - ExpendableBytes();
    if (victims_bytes > 0) {
      victims = VictimsLocked(victims_bytes, EvictionCause::kReclaim, "for the budget");
      if (victims.empty()) return {};
    }
  }
  std::vector<Reservation> freed;
  if (!victims.empty()) freed = Free(victims);
  for (const Victim& victim : victims) missing_bytes -= victim.event.bytes;
  if (missing_bytes <= 0) return freed;
  for (Reservation& more : options_.expendable->Reclaim(missing_bytes)) {
    freed.push_back(std::move(more));
  }
  return freed;
}

void ExpertCache::EvictOvershoot() {
  std::vector<Victim> victims;
  if (options_.expendable != nullptr) {
    const BudgetSnapshot ledger = budget_.Snapshot();
    const int64_t overshoot_bytes =
        std::min(ledger.used_bytes - ledger.limit_bytes, options_.expendable->expendable_bytes());
    if (overshoot_bytes > 0) options_.expendable->Reclaim(overshoot_bytes);
  }
  {
    MutexLock lock(mutex_);
    const BudgetSnapshot ledger = budget_.Snapshot();
    int64_t evictable_bytes = 0;
    for (const EntryView& view : ViewsLocked(nullptr, nullptr)) {
      if (view.evictable()) evictable_bytes += view.bytes;
    }
    const int64_t overshoot_bytes = ledger.used_bytes - ledger.limit_bytes;
    victims = VictimsLocked(std::min(overshoot_bytes, evictable_bytes), EvictionCause::kLimit,
                            "the limit was lowered");
  }
  if (!victims.empty()) Free(victims);
}

int64_t ExpertCache::EvictOne(const std::string& why) {
  std::vector<Victim> victims;
  {
    MutexLock lock(mutex_);
    victims = VictimsLocked(1, EvictionCause::kPressure, why);
    if (victims.empty()) return 0;
  }
  Free(victims);
  return victims.front().event.bytes;
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
    victims.push_back(TakeVictimLocked(entry, EvictionCause::kAsked, "asked for"));
  }
  Free(victims);
  return absl::OkStatus();
}

}  // namespace coterie
