#include "experts/expert_cache.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "experts/expert_cache_state.h"

namespace coterie {
namespace {

int64_t SaturatingSum(std::initializer_list<int64_t> parts) {
  int64_t sum = 0;
  for (int64_t part : parts) {
    if (__builtin_add_overflow(sum, part, &sum)) return std::numeric_limits<int64_t>::max();
  }
  return sum;
}

}  // namespace

ExpertCache::ExpertCache(MemoryBudget& budget, BaseSource& source, Options options)
    : budget_(budget),
      source_(source),
      options_([&] {
        if (options.policy == nullptr) options.policy = std::make_shared<ReloadCostPolicy>();
        return std::move(options);
      }()),
      signal_(std::make_shared<RoomSignal>()) {
  budget_.Watch(signal_);
}

ExpertCache::~ExpertCache() {
  {
    MutexLock lock(threads_mutex_);
    for (Loader& loader : loaders_) loader.job->stop.request_stop();
    for (Loader& loader : loaders_) loader.thread.join();
  }
  std::map<BaseId, std::unique_ptr<Entry>> entries;
  {
    MutexLock lock(mutex_);
    entries.swap(entries_);
  }
  for (auto& [id, entry] : entries) {
    COTERIE_CHECK(entry->n_leases == 0, "a cache outlives its leases");
    entry->model.reset();  // Before its charges.
  }
}

absl::StatusOr<Lease> ExpertCache::Acquire(const Need& need, absl::Time deadline,
                                           std::stop_token stop) {
  if (need.kv_bytes < 0 || need.scratch_bytes < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("a request does not need negative bytes: base=", need.base,
                     ", kv_bytes=", need.kv_bytes, ", scratch_bytes=", need.scratch_bytes));
  }
  Ticket ticket{.need = need, .deadline = deadline, .stop = stop, .arrival = options_.clock()};
  const std::stop_callback wake_on_cancel(stop, [signal = signal_] { signal->Raise(); });
  while (true) {
    Claim claim;
    const absl::Status claimed = WaitForClaim(ticket, claim);
    LeaveQueue(ticket);
    COTERIE_RETURN_IF_ERROR(claimed);
    const absl::Status loaded = WaitForLoad(ticket, claim);
    if (loaded.ok()) return MakeLease(ticket, claim);
    LetGo(claim, absl::IsCancelled(loaded));
    if (!absl::IsAborted(loaded) || !claim.job->never_began) return loaded;
  }
}

absl::Status ExpertCache::WaitForClaim(Ticket& ticket, Claim& claim) {
  while (true) {
    if (ticket.stop.stop_requested()) return CheckPatience(ticket, /*loading=*/false);
    const uint64_t seen = signal_->count();
    Attempt attempt = TryClaim(ticket);
    switch (attempt.next) {
      case Attempt::Next::kClaimed:
        claim = std::move(attempt.claim);
        return absl::OkStatus();
      case Attempt::Next::kFailed:
        return attempt.status;
      case Attempt::Next::kMeasure: {
        COTERIE_ASSIGN_OR_RETURN(ticket.footprint, MeasureIfAbsent(ticket.need.base));
        break;
      }
      case Attempt::Next::kAgain:
        break;
      case Attempt::Next::kWait:
        COTERIE_RETURN_IF_ERROR(CheckPatience(ticket, /*loading=*/false));
        signal_->WaitPast(seen, absl::Now() + (ticket.deadline - options_.clock()));
    }
  }
}

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
      others_may_go = ticket.queued;
      LeaveQueueLocked(ticket);
    } else if (attempt.next == Attempt::Next::kWait) {
      EnterQueueLocked(ticket);
    }
  }
  for (std::stop_source& stop : attempt.stops) stop.request_stop();
  if (!attempt.victims.empty()) FreeAndCharge(attempt);
  if (others_may_go) signal_->Raise();
  if (attempt.next == Attempt::Next::kClaimed && attempt.claim.begins_load()) {
    StartThread(attempt.claim.job);
  }
  return attempt;
}

ExpertCache::Attempt ExpertCache::TryClaimLocked(Ticket& ticket) {
  if (ticket.number == 0) ticket.number = ++n_arrivals_;
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
  const int64_t need_bytes =
      SaturatingSum({entry.footprint.total_bytes(), need.kv_bytes, need.scratch_bytes});
  if (need_bytes <= ledger.limit_bytes - pinned_bytes - router_bytes) return absl::OkStatus();
  ++stats_.n_never_fits;
  return absl::ResourceExhaustedError(absl::StrCat(
      "can never fit in the memory budget: base=", need.base, ", need_bytes=", need_bytes,
      ", limit_bytes=", ledger.limit_bytes, ", pinned_bytes=", pinned_bytes,
      ", router_bytes=", router_bytes, ", weights_bytes=", entry.footprint.weights_bytes,
      ", tokenizer_bytes=", entry.footprint.tokenizer_bytes, ", kv_bytes=", need.kv_bytes,
      ", scratch_bytes=", need.scratch_bytes));
}

ExpertCache::Attempt ExpertCache::ChargeLocked(const Ticket& ticket, Entry& entry) {
  Attempt attempt;
  attempt.charges = {{Purpose::kKvCache, ticket.need.kv_bytes},
                     {Purpose::kScratch, ticket.need.scratch_bytes}};
  int64_t sum = ticket.need.kv_bytes + ticket.need.scratch_bytes;
  if (entry.state == BaseState::kAbsent) {
    attempt.charges.push_back({Purpose::kExpertWeights, entry.footprint.weights_bytes});
    attempt.charges.push_back({Purpose::kTokenizer, entry.footprint.tokenizer_bytes});
    sum += entry.footprint.total_bytes();
  }
  auto charged = budget_.ReserveAll(attempt.charges);
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
  attempt.victims = PickVictimsLocked(missing_bytes, &ticket, &entry);
  if (attempt.victims.empty()) {
    return {.next = Attempt::Next::kWait, .stops = AbandonUnwantedLoadsLocked()};
  }
  for (const Victim& victim : attempt.victims) sum -= victim.event.bytes;
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
  for (Reservation& freed : Free(attempt.victims)) attempt.given.push_back(std::move(freed));
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

absl::Status ExpertCache::WaitForLoad(const Ticket& ticket, const Claim& claim) {
  while (claim.job != nullptr) {
    const uint64_t seen = signal_->count();
    {
      MutexLock lock(mutex_);
      if (claim.job->done) return claim.job->status;
    }
    COTERIE_RETURN_IF_ERROR(CheckPatience(ticket, /*loading=*/true));
    signal_->WaitPast(seen, absl::Now() + (ticket.deadline - options_.clock()));
  }
  return absl::OkStatus();
}

absl::Status ExpertCache::CheckPatience(const Ticket& ticket, bool loading) {
  const bool cancelled = ticket.stop.stop_requested();
  if (!cancelled && options_.clock() < ticket.deadline) return absl::OkStatus();
  const BudgetSnapshot ledger = budget_.Snapshot();
  MutexLock lock(mutex_);
  ++(cancelled ? stats_.n_cancels : stats_.n_timeouts);
  if (cancelled) {
    return absl::CancelledError(
        absl::StrCat("the request for a base was cancelled: base=", ticket.need.base));
  }
  int64_t leased_bytes = 0;
  for (const auto& [id, entry] : entries_) {
    if (entry->n_leases > 0) leased_bytes += entry->footprint.total_bytes();
  }
  const std::string message = absl::StrCat(
      loading ? "a base was not loaded in time" : "a base was not granted memory in time",
      ": base=", ticket.need.base, ", kv_bytes=", ticket.need.kv_bytes,
      ", scratch_bytes=", ticket.need.scratch_bytes, ", used_bytes=", ledger.used_bytes,
      ", limit_bytes=", ledger.limit_bytes, ", leased_bytes=", leased_bytes,
      ", n_waiting=", queue_.size());
  return ticket.try_once() ? absl::UnavailableError(message) : absl::DeadlineExceededError(message);
}

void ExpertCache::LetGo(Claim& claim, bool cancelled) {
  std::vector<Reservation> given;
  given.push_back(std::move(claim.kv));
  given.push_back(std::move(claim.scratch));
  (void)budget_.Exchange(given, {});
  std::optional<std::stop_source> stop;
  {
    MutexLock lock(mutex_);
    claim.DropHold();
    LoadJob* job = claim.job.get();
    const bool unwanted = job != nullptr && !job->done && claim.entry->n_leases == 0;
    // A load that nobody waits for is finished if it is cheap to: for the next request.
    const bool early = cancelled && job != nullptr && job->done_bytes.load() < job->bytes / 2;
    if (unwanted && !job->abandoned && (!queue_.empty() || (early && !job->prefetch))) {
      job->abandoned = true;
      stop = job->stop;
    }
  }
  if (stop) stop->request_stop();
  signal_->Raise();
}

Lease ExpertCache::MakeLease(const Ticket& ticket, Claim& claim) {
  Lease lease;
  lease.cache_ = this;
  lease.base_ = ticket.need.base;
  lease.kv_ = std::move(claim.kv);
  lease.scratch_ = std::move(claim.scratch);
  lease.origin_.how = claim.how;
  lease.origin_.wait_time = options_.clock() - ticket.arrival;
  lease.origin_.evictions = std::move(claim.evictions);
  if (claim.begins_load()) lease.origin_.loaded_bytes = claim.job->bytes;
  MutexLock lock(mutex_);
  lease.model_ = claim.entry->model.get();
  if (claim.job != nullptr) lease.origin_.load_time = claim.job->took;
  if (claim.how == LeaseOrigin::How::kHit) ++stats_.n_hits;
  if (claim.how == LeaseOrigin::How::kJoined) ++stats_.n_joins;
  stats_.wait_time += lease.origin_.wait_time;
  return lease;
}

void ExpertCache::ReturnLease(Lease& lease) {
  std::vector<Reservation> given;
  given.push_back(std::move(lease.kv_));
  given.push_back(std::move(lease.scratch_));
  (void)budget_.Exchange(given, {});
  {
    MutexLock lock(mutex_);
    Entry& entry = *entries_.at(lease.base_);
    COTERIE_CHECK(entry.n_leases > 0, "a lease is given back once");
    --entry.n_leases;
    const absl::Time now = options_.clock();
    entry.recent_uses = RecentUsesAt(entry.View(), now);
    entry.last_use = now;
  }
  signal_->Raise();
}

bool ExpertCache::MayGoLocked(const Ticket& ticket) const {
  for (const Ticket* earlier : queue_) {
    if (earlier->number >= ticket.number) break;
    if (earlier->n_bypassed >= options_.max_bypass || CouldGoLocked(*earlier)) return false;
  }
  return true;
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
  const int64_t free_bytes = ledger.limit_bytes - ledger.used_bytes;
  return sum <= free_bytes || !ChooseLocked(sum - free_bytes, &ticket, &entry).empty();
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
