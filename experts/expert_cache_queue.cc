// Who goes first where an ExpertCache lacks memory.

#include <algorithm>

#include "experts/expert_cache.h"
#include "experts/expert_cache_state.h"

namespace coterie {

bool ExpertCache::MayGoLocked(const Ticket& ticket) const {
  for (const Ticket* earlier : queue_) {
    if (earlier->number >= ticket.number) break;
    if (MayNotBePassedLocked(*earlier) || CouldGoLocked(*earlier)) return false;
  }
  return true;
}

bool ExpertCache::MayNotBePassedLocked(const Ticket& ticket) const {
  return ticket.n_bypassed >= options_.max_bypass ||
         options_.clock() - ticket.arrival >= options_.max_bypass_wait;
}

bool ExpertCache::CouldGoLocked(const Ticket& ticket) const {
  const auto found = entries_.find(ticket.need.base);
  if (found == entries_.end()) return false;
  const Entry& entry = *found->second;
  if (entry.state == BaseState::kEvicting) return false;
  if (entry.state == BaseState::kLoading && entry.job->abandoned) return false;
  const int64_t base_bytes = entry.state == BaseState::kAbsent ? entry.footprint.total_bytes() : 0;
  const int64_t sum = SaturatingSum({base_bytes, ticket.need.kv_bytes, ticket.need.scratch_bytes});
  const BudgetSnapshot ledger = budget_.Snapshot();
  const int64_t free_bytes = ledger.limit_bytes - ledger.used_bytes + ExpendableBytes();
  if (sum <= free_bytes) return true;
  std::vector<EntryView> views = ViewsLocked(&ticket, &entry);
  SpareHeldLocked(views, ticket);
  return !ChooseLocked(sum - free_bytes, views).empty();
}

bool ExpertCache::IsWantedBeforeLocked(const BaseId& base, const Ticket* ticket) const {
  return std::any_of(queue_.begin(), queue_.end(), [&](const Ticket* other) {
    return other->need.base == base && (ticket == nullptr || other->number < ticket->number);
  });
}

void ExpertCache::EnterQueueLocked(Ticket& ticket) {
  if (ticket.queued) return;
  const auto place = std::find_if(queue_.begin(), queue_.end(), [&](const Ticket* other) {
    return other->number > ticket.number;
  });
  queue_.insert(place, &ticket);
  ticket.queued = true;
  ++stats_.n_waits;
}

void ExpertCache::LeaveQueue(Ticket& ticket) {
  {
    MutexLock lock(mutex_);
    if (!ticket.queued) return;
    LeaveQueueLocked(ticket);
  }
  signal_->Raise();
}

void ExpertCache::LeaveQueueLocked(Ticket& ticket) {
  if (!ticket.queued) return;
  queue_.remove(&ticket);
  ticket.queued = false;
}

}  // namespace coterie
