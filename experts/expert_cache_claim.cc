// How a request to an ExpertCache gets weights, KV and scratch in one step.

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "core/base/check.h"
#include "experts/expert_cache.h"
#include "experts/expert_cache_state.h"

namespace coterie {
namespace {

// Weight of the newest gap between two uses in their moving average.
constexpr double kNewestGap = 0.5;

}  // namespace

ExpertCache::Attempt ExpertCache::TryClaim(Ticket& ticket) {
  Attempt attempt;
  bool others_may_go = false;
  {
    MutexLock lock(mutex_);
    attempt = TryClaimLocked(ticket);
    if (attempt.next == Attempt::Next::kClaimed) {
      for (Ticket* earlier : queue_) {
        if (earlier->number < ticket.number) ++earlier->n_bypassed;
      }
      // A pinned base that comes may leave too little for one that waits: it is to hear of it.
      const bool takes_for_good = attempt.claim.begins_load() && attempt.claim.entry->n_pins > 0;
      others_may_go = ticket.queued || takes_for_good;
      LeaveQueueLocked(ticket);
    } else if (attempt.next == Attempt::Next::kWait) {
      EnterQueueLocked(ticket);
    }
  }
  for (std::stop_source& stop : attempt.stops) stop.request_stop();
  if (attempt.next == Attempt::Next::kWait && options_.on_wait) options_.on_wait();
  if (!attempt.victims.empty() || attempt.expendable_bytes > 0) FreeAndCharge(attempt);
  if (others_may_go) signal_->Raise();
  if (attempt.next == Attempt::Next::kClaimed && attempt.claim.begins_load()) {
    StartLoad(attempt.claim.job);
  }
  return attempt;
}

void ExpertCache::ArriveLocked(Ticket& ticket) {
  if (ticket.number != 0) return;
  ticket.number = ++n_arrivals_;
  const auto found = entries_.find(ticket.need.base);
  if (found == entries_.end() || found->second->last_use == absl::InfinitePast()) return;
  Entry& entry = *found->second;
  const absl::Duration gap =
      entry.n_leases > 0 ? absl::ZeroDuration() : ticket.arrival - entry.last_use;
  const bool first = entry.reuse_gap == absl::InfiniteDuration();
  entry.reuse_gap = first ? gap : kNewestGap * gap + (1 - kNewestGap) * entry.reuse_gap;
}

ExpertCache::Attempt ExpertCache::TryClaimLocked(Ticket& ticket) {
  ArriveLocked(ticket);
  ticket.look_again = ticket.deadline;
  const auto found = entries_.find(ticket.need.base);
  const bool absent = found == entries_.end() || found->second->state == BaseState::kAbsent;
  if (absent && !ticket.footprint) return {.next = Attempt::Next::kMeasure};
  Entry& entry = absent ? EntryLocked(ticket.need.base, *ticket.footprint) : *found->second;
  absl::Status status = CheckItCanFitLocked(ticket.need, entry);
  if (status.ok() && absent) status = BackoffLocked(entry);
  if (!status.ok()) return {.next = Attempt::Next::kFailed, .status = status};
  const bool leaving = entry.state == BaseState::kEvicting ||
                       (entry.state == BaseState::kLoading && entry.job->abandoned);
  const bool too_late = ticket.try_once() && entry.state != BaseState::kReady;
  if (leaving || too_late || !MayGoLocked(ticket)) return {.next = Attempt::Next::kWait};
  return ChargeLocked(ticket, entry);
}

absl::Status ExpertCache::CheckItCanFitLocked(const Need& need, const Entry& entry) {
  const BudgetSnapshot ledger = budget_.Snapshot();
  int64_t pinned_bytes = 0;
  for (const auto& [id, other] : entries_) {
    const bool resident = other->state != BaseState::kAbsent;
    if (other.get() != &entry && other->n_pins > 0 && resident) {
      pinned_bytes += other->footprint.total_bytes();
    }
  }
  const int64_t router_bytes = ledger.bytes_by_purpose[static_cast<size_t>(Purpose::kRouter)];
  const int64_t unreturned_bytes = unreturned_.bytes();
  const int64_t need_bytes =
      SaturatingSum({entry.footprint.total_bytes(), need.kv_bytes, need.scratch_bytes});
  if (need_bytes <= ledger.limit_bytes - pinned_bytes - router_bytes - unreturned_bytes)
    return absl::OkStatus();
  ++stats_.n_never_fits;
  return absl::ResourceExhaustedError(absl::StrCat(
      "can never fit in the memory budget: base=", need.base, ", need_bytes=", need_bytes,
      ", limit_bytes=", ledger.limit_bytes, ", pinned_bytes=", pinned_bytes,
      ", router_bytes=", router_bytes, ", unreturned_bytes=", unreturned_bytes, ", weights_bytes=",
      entry.footprint.weights_bytes, ", tokenizer_bytes=", entry.footprint.tokenizer_bytes,
      ", kv_bytes=", need.kv_bytes, ", scratch_bytes=", need.scratch_bytes));
}

ExpertCache::Attempt ExpertCache::ChargeLocked(Ticket& ticket, Entry& entry) {
  Attempt attempt;
  attempt.charges = {{Purpose::kKvCache, ticket.need.kv_bytes},
                     {Purpose::kScratch, ticket.need.scratch_bytes}};
  int64_t sum = ticket.need.kv_bytes + ticket.need.scratch_bytes;
  if (entry.state == BaseState::kAbsent) {
    attempt.charges.push_back({Purpose::kExpertWeights, entry.footprint.weights_bytes});
    attempt.charges.push_back({Purpose::kTokenizer, entry.footprint.tokenizer_bytes});
    sum += entry.footprint.total_bytes();
  }
  auto charged = budget_.Exchange(attempt.given, attempt.charges);
  if (charged.ok()) {
    attempt.next = Attempt::Next::kClaimed;
    attempt.claim = HoldLocked(ticket.need, entry);
    attempt.claim.Attach(*std::move(charged));
    return attempt;
  }
  const BudgetSnapshot ledger = budget_.Snapshot();
  const int64_t missing_bytes = sum - (ledger.limit_bytes - ledger.used_bytes);
  // The limit or the use by others changed since it was looked at.
  if (missing_bytes <= 0 || sum > ledger.limit_bytes) return {.next = Attempt::Next::kAgain};
  const int64_t victims_bytes = missing_bytes - ExpendableBytes();
  if (victims_bytes > 0) {
    attempt.victims = VictimsForLocked(victims_bytes, ticket, entry);
    if (attempt.victims.empty()) {
      return {.next = Attempt::Next::kWait, .stops = AbandonUnwantedLoadsLocked()};
    }
  }
  int64_t freed_bytes = 0;
  for (const Victim& victim : attempt.victims) freed_bytes += victim.event.bytes;
  attempt.expendable_bytes = std::max<int64_t>(0, missing_bytes - freed_bytes);
  sum -= freed_bytes + attempt.expendable_bytes;
  // Free bytes are held now, so that nobody takes them while the victims are being freed.
  attempt.given.push_back(budget_.ReserveUpTo(Purpose::kExpertWeights, sum));
  attempt.next = Attempt::Next::kClaimed;
  attempt.claim = HoldLocked(ticket.need, entry);
  for (const Victim& victim : attempt.victims) {
    attempt.claim.evictions.push_back(
        {.base = victim.event.base, .bytes = victim.event.bytes, .why = victim.event.why});
  }
  return attempt;
}

ExpertCache::Claim ExpertCache::HoldLocked(const Need& need, Entry& entry) {
  Claim claim;
  claim.entry = &entry;
  if (entry.state == BaseState::kAbsent) {
    claim.how = LeaseOrigin::How::kLoaded;
    entry.job = BeginJobLocked(entry);
  } else if (entry.state == BaseState::kLoading) {
    claim.how = LeaseOrigin::How::kJoined;
  }
  claim.job = entry.job;
  COTERIE_CHECK(need.base == entry.id && entry.state != BaseState::kEvicting,
                "a base that is being evicted is not handed out");
  const absl::Time now = options_.clock();
  entry.recent_uses = RecentUsesAt(entry.View(), now) + 1;
  entry.last_use = now;
  ++entry.n_uses;
  ++entry.n_leases;
  if (entry.unused_prefetch) ++stats_.n_prefetch_hits;
  entry.unused_prefetch = false;
  return claim;
}

void ExpertCache::Claim::Attach(std::vector<Reservation> charged) {
  kv = std::move(charged[0]);
  scratch = std::move(charged[1]);
  if (!begins_load()) return;
  entry->weights = std::move(charged[2]);
  entry->tokenizer = std::move(charged[3]);
}

void ExpertCache::Claim::DropHold() {
  if (job == nullptr || !job->done || job->status.ok()) --entry->n_leases;
}

void ExpertCache::FreeAndCharge(Attempt& attempt) {
  if (attempt.expendable_bytes > 0) {
    // Too little if another was faster: then the charge fails, and this request looks again.
    for (Reservation& freed : options_.expendable->Reclaim(attempt.expendable_bytes)) {
      attempt.given.push_back(std::move(freed));
    }
  }
  if (!attempt.victims.empty()) {
    for (Reservation& freed : Free(attempt.victims)) attempt.given.push_back(std::move(freed));
  }
  auto charged = budget_.Exchange(attempt.given, attempt.charges);
  Claim& claim = attempt.claim;
  {
    MutexLock lock(mutex_);
    if (charged.ok()) {
      claim.Attach(*std::move(charged));
    } else if (claim.begins_load()) {
      claim.job->done = true;
      claim.job->never_began = true;
      claim.job->status = absl::AbortedError("the memory for a load was withdrawn");
      claim.entry->job = nullptr;
      claim.entry->state = BaseState::kAbsent;
      claim.entry->n_leases = 0;
    } else {
      claim.DropHold();
    }
  }
  if (!charged.ok()) attempt.next = Attempt::Next::kAgain;  // The limit fell in between.
  attempt.given.clear();
  signal_->Raise();
}

}  // namespace coterie
