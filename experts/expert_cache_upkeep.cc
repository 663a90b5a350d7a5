// Pins, keep-alive, and what else time brings to an ExpertCache.

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "experts/expert_cache.h"
#include "experts/expert_cache_state.h"

namespace coterie {

absl::Status ExpertCache::Pin(const BaseId& base) {
  COTERIE_ASSIGN_OR_RETURN(const BaseFootprint footprint, MeasureIfAbsent(base));
  {
    MutexLock lock(mutex_);
    Entry& entry = EntryLocked(base, footprint);
    const BudgetSnapshot ledger = budget_.Snapshot();
    const int64_t room_bytes =
        ledger.limit_bytes - ledger.bytes_by_purpose[static_cast<size_t>(Purpose::kRouter)];
    int64_t pinned_bytes = 0;
    for (const auto& [id, other] : entries_) {
      if (other->n_pins > 0 && other.get() != &entry)
        pinned_bytes += other->footprint.total_bytes();
    }
    if (entry.footprint.total_bytes() > room_bytes - pinned_bytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat("pinned bases would not fit in the memory budget: base=", base,
                       ", bytes=", entry.footprint.total_bytes(), ", pinned_bytes=", pinned_bytes,
                       ", limit_bytes=", ledger.limit_bytes));
    }
    ++entry.n_pins;
  }
  signal_->Raise();  // Who waits may never fit beside it.
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

void ExpertCache::SetKeepAlive(const BaseId& base, absl::Duration keep_alive) {
  MutexLock lock(mutex_);
  keep_alive_[base] = keep_alive;
}

absl::Duration ExpertCache::KeepAliveLocked(const BaseId& base) const {
  const auto own = keep_alive_.find(base);
  return own == keep_alive_.end() ? options_.keep_alive : own->second;
}

void ExpertCache::Tick() {
  std::vector<Victim> expired;
  std::vector<std::stop_source> stops;
  {
    MutexLock lock(mutex_);
    expired = ExpiredLocked();
    stops = StalledLocked();
  }
  for (std::stop_source& stop : stops) stop.request_stop();
  if (!stops.empty()) signal_->Raise();
  if (!expired.empty()) Free(expired);
  EvictOvershoot();
  LookForUnreturned();
}

// What had not come back after its eviction may have come back since.
void ExpertCache::LookForUnreturned() {
  if (!options_.resident_bytes) return;
  {
    MutexLock lock(mutex_);
    if (unreturned_.bytes() == 0) return;
  }
  const int64_t resident_bytes = options_.resident_bytes();
  const int64_t used_bytes = budget_.Snapshot().used_bytes;
  MutexLock lock(mutex_);
  const int64_t left_bytes =
      freed_check_.Unexplained(resident_bytes, used_bytes - unreturned_.bytes());
  unreturned_.ShrinkTo(std::clamp<int64_t>(left_bytes, 0, unreturned_.bytes()));
}

std::vector<ExpertCache::Victim> ExpertCache::ExpiredLocked() {
  const absl::Time now = options_.clock();
  std::vector<Victim> expired;
  for (const EntryView& view : ViewsLocked(nullptr, nullptr)) {
    const absl::Duration keep_alive = KeepAliveLocked(view.id);
    const absl::Duration idle = now - std::max(view.last_use, view.loaded_at);
    if (!view.evictable() || idle < keep_alive) continue;
    expired.push_back(TakeVictimLocked(
        *entries_.at(view.id), EvictionCause::kKeepAlive,
        absl::StrCat("idle for ", absl::FormatDuration(absl::Trunc(idle, absl::Seconds(1))),
                     ", kept for ", absl::FormatDuration(keep_alive))));
  }
  return expired;
}

std::vector<std::stop_source> ExpertCache::StalledLocked() {
  const absl::Time now = options_.clock();
  std::vector<std::stop_source> stops;
  for (const auto& [id, entry] : entries_) {
    if (entry->state != BaseState::kLoading || entry->job->abandoned) continue;
    LoadJob& job = *entry->job;
    if (now - job.last_progress < options_.stall_after) continue;
    // Its bytes stay charged until its thread returns: it may be writing to them.
    job.abandoned = true;
    job.stalled = absl::UnavailableError(
        absl::StrCat("a load was given up because no byte arrived for ",
                     absl::FormatDuration(options_.stall_after), ": base=", id,
                     ", done_bytes=", job.done_bytes.load(), ", bytes=", job.bytes));
    NoteFailureLocked(*entry, job.stalled);
    ++stats_.n_stalled_loads;
    stops.push_back(job.stop);
  }
  return stops;
}

}  // namespace coterie
