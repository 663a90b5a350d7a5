// How requests to an ExpertCache begin, wait and end.

#include "experts/expert_cache.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "experts/expert_cache_state.h"
#include "experts/lease_request.h"

namespace coterie {
namespace {

absl::Status CheckNeed(const Need& need) {
  if (need.kv_bytes >= 0 && need.scratch_bytes >= 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("a request does not need negative bytes: base=", need.base,
                   ", kv_bytes=", need.kv_bytes, ", scratch_bytes=", need.scratch_bytes));
}

}  // namespace

ExpertCache::ExpertCache(MemoryBudget& budget, BaseSource& source, Options options)
    : budget_(budget),
      source_(source),
      options_([&] {
        if (options.policy == nullptr) options.policy = std::make_shared<ReloadCostPolicy>();
        return std::move(options);
      }()),
      signal_(std::make_shared<RoomSignal>()),
      freed_check_(options_.resident_bytes ? options_.resident_bytes() : 0) {
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
  Ticket ticket{.need = need, .deadline = deadline, .stop = stop, .arrival = options_.clock()};
  const std::stop_callback wake_on_cancel(stop, [signal = signal_] { signal->Raise(); });
  while (true) {
    const uint64_t seen = signal_->count();
    if (auto result = Poll(ticket)) return *std::move(result);
    signal_->WaitPast(seen, absl::Now() + (ticket.look_again - options_.clock()));
  }
}

LeaseRequest ExpertCache::Begin(Need need, absl::Time deadline, std::stop_token stop) {
  return LeaseRequest(*this, std::make_unique<Ticket>(Ticket{.need = std::move(need),
                                                             .deadline = deadline,
                                                             .stop = std::move(stop),
                                                             .arrival = options_.clock()}));
}

std::optional<absl::StatusOr<Lease>> ExpertCache::Poll(Ticket& ticket) {
  if (absl::Status status = CheckNeed(ticket.need); !status.ok()) return status;
  while (true) {
    if (!ticket.claim) {
      const std::optional<absl::Status> claimed = PollClaim(ticket);
      if (!claimed) return std::nullopt;
      LeaveQueue(ticket);
      if (!claimed->ok()) return *claimed;
    }
    const std::optional<absl::Status> loaded = PollLoad(ticket);
    if (!loaded) return std::nullopt;
    Claim claim = *std::move(ticket.claim);
    ticket.claim.reset();
    if (loaded->ok()) return MakeLease(ticket, claim);
    LetGo(claim, absl::IsCancelled(*loaded));
    if (!absl::IsAborted(*loaded) || !claim.job->never_began) return *loaded;
  }
}

std::optional<absl::Status> ExpertCache::PollClaim(Ticket& ticket) {
  while (true) {
    if (ticket.stop.stop_requested()) return CheckPatience(ticket, /*loading=*/false);
    Attempt attempt = TryClaim(ticket);
    switch (attempt.next) {
      case Attempt::Next::kClaimed:
        ticket.claim = std::move(attempt.claim);
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
        return std::nullopt;
    }
  }
}

std::optional<absl::Status> ExpertCache::PollLoad(Ticket& ticket) {
  ticket.look_again = ticket.deadline;
  const LoadJob* job = ticket.claim->job.get();
  if (job == nullptr) return absl::OkStatus();
  {
    MutexLock lock(mutex_);
    if (job->done) return CopyForOthers(job->status);
    if (!job->stalled.ok()) return CopyForOthers(job->stalled);
  }
  COTERIE_RETURN_IF_ERROR(CheckPatience(ticket, /*loading=*/true));
  return std::nullopt;
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

void ExpertCache::Abandon(Ticket& ticket) {
  LeaveQueue(ticket);
  if (ticket.claim) LetGo(*ticket.claim, /*cancelled=*/true);
  ticket.claim.reset();
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
  lease.start_ = options_.clock();
  MutexLock lock(mutex_);
  lease_starts_.insert(lease.start_);
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
    lease_starts_.erase(lease_starts_.find(lease.start_));
    const absl::Time now = options_.clock();
    entry.recent_uses = RecentUsesAt(entry.View(), now);
    entry.last_use = now;
  }
  signal_->Raise();
}

LeaseRequest::LeaseRequest(ExpertCache& cache, std::unique_ptr<ExpertCache::Ticket> ticket)
    : cache_(&cache), ticket_(std::move(ticket)) {}

LeaseRequest::LeaseRequest(LeaseRequest&&) noexcept = default;

LeaseRequest& LeaseRequest::operator=(LeaseRequest&& other) noexcept {
  if (this != &other) {
    if (ticket_ != nullptr) cache_->Abandon(*ticket_);
    cache_ = other.cache_;
    ticket_ = std::move(other.ticket_);
  }
  return *this;
}

LeaseRequest::~LeaseRequest() {
  if (ticket_ != nullptr) cache_->Abandon(*ticket_);
}

std::optional<absl::StatusOr<Lease>> LeaseRequest::Poll() {
  COTERIE_CHECK(ticket_ != nullptr, "a request is not polled after its result");
  auto result = cache_->Poll(*ticket_);
  if (result) ticket_.reset();
  return result;
}

absl::Time LeaseRequest::look_again() const { return ticket_->look_again; }

}  // namespace coterie
