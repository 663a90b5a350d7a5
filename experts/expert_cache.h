#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "core/memory/memory_budget.h"
#include "core/threads/mutex.h"
#include "experts/base_source.h"
#include "experts/cache_events.h"
#include "experts/eviction_policy.h"
#include "experts/expert_cache_options.h"
#include "experts/freed_check.h"
#include "experts/lease.h"
#include "experts/room_signal.h"

namespace coterie {

class LeaseRequest;

// What one request wants: a base, and the bytes it will use beside it.
struct Need {
  BaseId base;
  int64_t kv_bytes = 0;
  int64_t scratch_bytes = 0;
};

// The bases that are loaded now, inside a memory budget. Thread-safe.
//
// A base is absent, loading, ready or evicting. A request is granted weights, KV and scratch in one
// step, and from that moment holds the base, loaded or not yet: a load ends in leases, and a base
// that somebody wants is never evicted. What a request lacks comes from Options::expendable where
// that is enough. Where it is not, as few bases are evicted as with all of it, and of it no more
// goes than they leave missing. Only a ready base without holders and pins is evicted; it
// does not come back, and who asks meanwhile waits and loads anew. Its bytes count as free when its
// destructor has run, and then belong to the request it was evicted for.
//
// Loads run on threads of their own, one per base at a time. Reading, freeing and callbacks happen
// with no lock held.
//
// Requests that do not fit wait in order of arrival. A later one may pass an earlier one that
// cannot go yet, but each is passed at most max_bypass times and for max_bypass_wait. A base that
// was just loaded is kept for a moment for those who use it in turns (see HeldUntil). A thread that
// waits in Acquire while it holds another lease can wait for itself: give it a deadline.
//
// Time passes in Tick, which somebody calls about once a second.
class ExpertCache : public Reclaimer {
 public:
  using Options = ExpertCacheOptions;

  // The budget and the source outlive the cache.
  ExpertCache(MemoryBudget& budget, BaseSource& source, Options options = {});
  // Requires that no lease lives and no call is under way. Stops loads and frees all bases.
  ~ExpertCache() override;
  ExpertCache(const ExpertCache&) = delete;
  ExpertCache& operator=(const ExpertCache&) = delete;

  // Waits for memory and for the load.
  //   kResourceExhausted   can never fit beside the router and pinned bases; nothing was evicted.
  //   kDeadlineExceeded    did not fit, or was not loaded, by `deadline`.
  //   kUnavailable         as before, where `deadline` had passed on arrival; begins no load.
  //   kCancelled           `stop` was requested. Others who wait for the same base go on.
  //   other                of BaseSource. All who waited for that load get the same; after that,
  //   the
  //                        same code without a new attempt, until a backoff has passed.
  // After an error nothing stays charged for this request.
  absl::StatusOr<Lease> Acquire(const Need& need, absl::Time deadline, std::stop_token stop = {});

  // The same without blocking: experts/lease_request.h.
  LeaseRequest Begin(Need need, absl::Time deadline, std::stop_token stop = {});

  // Rises whenever something changed that may let a request go on. A request that was polled at
  // this count or a later one need not be polled again before it rises, or before its look_again().
  uint64_t n_changes() const { return signal_->count(); }

  // Begins to load into free memory, if the base is absent; evicts nothing and does not wait. A
  // request joins it; a request that lacks memory stops it. kUnavailable if there is no room now.
  absl::Status Prefetch(const BaseId& base);

  // How long an idle base stays loaded. InfiniteDuration: until others need the room.
  void SetKeepAlive(const BaseId& base, absl::Duration keep_alive);

  // A pinned base is not evicted. Pins are counted and outlast the base; they load nothing.
  // kResourceExhausted if pinned bases would not all fit together.
  absl::Status Pin(const BaseId& base);
  absl::Status Unpin(const BaseId& base);  // kFailedPrecondition if it is not pinned.

  // Frees an idle base. kUnavailable if it is leased, loading or evicting, kFailedPrecondition if
  // it is pinned, kNotFound if it is absent.
  absl::Status Evict(const BaseId& base);

  // Frees bytes_needed from expendable memory and idle bases, or nothing if there is not so much.
  std::vector<Reservation> Reclaim(int64_t bytes_needed) override;

  // Frees expendable memory, then idle bases, until the budget is within its limit or none is idle;
  // for after a SetLimit.
  void EvictOvershoot();

  // Evicts the one idle base that is cheapest to have again, because the system is short of memory.
  // Returns its bytes; 0 if none is idle. Who waits for memory gets none of it by this.
  int64_t EvictOne(const std::string& why);

  // Does what time brings: lets bases go whose keep-alive has passed, gives up stalled loads,
  // returns to a lowered limit as leases end.
  void Tick();

  CacheSnapshot Snapshot() const;
  CacheStats Stats() const;
  void SetEventSink(CacheEventSink sink);

 private:
  friend class Lease;
  friend class LeaseRequest;
  class ProgressReporter;
  struct Attempt;
  struct Claim;
  struct Entry;
  struct LoadJob;
  struct Ticket;
  struct Victim;

  // Requests.
  std::optional<absl::StatusOr<Lease>> Poll(Ticket& ticket);
  std::optional<absl::Status> PollClaim(Ticket& ticket);
  std::optional<absl::Status> PollLoad(Ticket& ticket);
  absl::Status CheckPatience(const Ticket& ticket, bool loading);
  void LetGo(Claim& claim, bool cancelled);
  void Abandon(Ticket& ticket);
  Lease MakeLease(const Ticket& ticket, Claim& claim);
  void ReturnLease(Lease& lease);

  // Claims of memory.
  Attempt TryClaim(Ticket& ticket);
  Attempt TryClaimLocked(Ticket& ticket) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ArriveLocked(Ticket& ticket) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Attempt ChargeLocked(Ticket& ticket, Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckItCanFitLocked(const Need& need, const Entry& entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Claim HoldLocked(const Need& need, Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FreeAndCharge(Attempt& attempt);
  int64_t ExpendableBytes() const;

  // The queue for memory.
  bool MayGoLocked(const Ticket& ticket) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool CouldGoLocked(const Ticket& ticket) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool MayNotBePassedLocked(const Ticket& ticket) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EnterQueueLocked(Ticket& ticket) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LeaveQueue(Ticket& ticket);
  void LeaveQueueLocked(Ticket& ticket) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsWantedBeforeLocked(const BaseId& base, const Ticket* ticket) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Eviction.
  std::vector<EntryView> ViewsLocked(const Ticket* ticket, const Entry* spared) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Time SpareHeldLocked(std::vector<EntryView>& views, const Ticket& ticket) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<EntryView> ChooseLocked(int64_t bytes, const std::vector<EntryView>& views) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<Victim> VictimsForLocked(int64_t bytes, Ticket& ticket, const Entry& spared)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<Victim> VictimsLocked(int64_t bytes, EvictionCause cause, const std::string& why)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Victim TakeVictimLocked(Entry& entry, EvictionCause cause, std::string why)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<Reservation> Free(std::vector<Victim>& victims);
  void MeasureFreed(int64_t resident_before_bytes, std::vector<Reservation>& freed);
  void NoteEvictedLocked(const Victim& victim) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<std::stop_source> AbandonUnwantedLoadsLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Upkeep.
  absl::Duration KeepAliveLocked(const BaseId& base) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LookForUnreturned();
  std::vector<Victim> ExpiredLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<std::stop_source> StalledLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Loads.
  absl::StatusOr<BaseFootprint> MeasureIfAbsent(const BaseId& base);
  Entry& EntryLocked(const BaseId& base, const BaseFootprint& footprint)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::shared_ptr<LoadJob> BeginJobLocked(Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StartLoad(std::shared_ptr<LoadJob> job);
  void RunLoad(LoadJob& job);
  void ForgetUnusedPrefetchLocked(Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FinishLoad(LoadJob& job, std::shared_ptr<const BaseModel> model, absl::Duration took);
  void FailLoad(LoadJob& job, const absl::Status& status);
  absl::Duration NoteFailureLocked(Entry& entry, const absl::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status BackoffLocked(const Entry& entry) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  CacheEvent NewEventLocked(CacheEvent::Kind kind, const Entry& entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Emit(const CacheEvent& event);

  MemoryBudget& budget_;
  BaseSource& source_;
  const Options options_;
  const std::shared_ptr<RoomSignal> signal_;

  // Order of locks: mutex_, then those inside budget_ and signal_. threads_mutex_ is held with
  // none.
  mutable Mutex mutex_;
  // Entries are never erased: they remember what a base costs and how often it was wanted.
  std::map<BaseId, std::unique_ptr<Entry>> entries_ ABSL_GUARDED_BY(mutex_);
  std::list<Ticket*> queue_ ABSL_GUARDED_BY(mutex_);  // In order of arrival.
  uint64_t n_arrivals_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t n_events_ ABSL_GUARDED_BY(mutex_) = 0;
  CacheStats stats_ ABSL_GUARDED_BY(mutex_);
  mutable ChurnMonitor churn_ ABSL_GUARDED_BY(mutex_);
  FreedCheck freed_check_ ABSL_GUARDED_BY(mutex_);
  Reservation unreturned_ ABSL_GUARDED_BY(mutex_);  // Evicted, but still resident.
  std::map<BaseId, absl::Duration> keep_alive_ ABSL_GUARDED_BY(mutex_);
  std::multiset<absl::Time> lease_starts_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const CacheEventSink> sink_ ABSL_GUARDED_BY(mutex_);

  struct Loader {
    std::thread thread;
    std::shared_ptr<LoadJob> job;
  };
  Mutex threads_mutex_;
  std::vector<Loader> loaders_ ABSL_GUARDED_BY(threads_mutex_);
};

}  // namespace coterie
