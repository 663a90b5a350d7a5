#include "runtime/request_scheduler.h"

#include <map>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"

namespace coterie {

RequestScheduler::RequestScheduler(RequestQueueOptions options, Look look,
                                   std::function<absl::Time()> clock)
    : look_(std::move(look)), clock_(std::move(clock)), queue_(options) {}

absl::StatusOr<RequestScheduler::Turn> RequestScheduler::Enter(const BaseId& base,
                                                               Priority priority,
                                                               absl::Time deadline,
                                                               std::stop_token stop) {
  Turn turn;
  {
    MutexLock lock(bell_->mutex);
    COTERIE_ASSIGN_OR_RETURN(const RequestQueue::Id id, queue_.Add(base, priority, clock_()));
    turn = Turn(this, id);
  }
  StartNext();
  const std::stop_callback ring(stop, [bell = bell_] {
    { MutexLock lock(bell->mutex); }
    bell->rung.NotifyAll();
  });
  MutexLock lock(bell_->mutex);
  while (started_.erase(turn.id_) == 0) {
    const absl::Time now = clock_();
    if (!stop.stop_requested() && now < deadline) {
      bell_->rung.WaitUntil(bell_->mutex, absl::Now() + (deadline - now));
      continue;
    }
    const RequestQueueStats stats = queue_.Stats(now);
    queue_.End(std::exchange(turn.id_, 0), now);
    if (stop.stop_requested()) {
      return absl::CancelledError(
          absl::StrCat("the request was cancelled before its turn: base=", base));
    }
    return absl::DeadlineExceededError(absl::StrCat(
        "it was not the request's turn in time: base=", base, ", n_waiting=", stats.n_waiting,
        ", n_running=", stats.n_running, ", oldest_wait=",
        absl::FormatDuration(absl::Trunc(stats.oldest_wait, absl::Milliseconds(1)))));
  }
  return turn;
}

void RequestScheduler::StartNext() {
  std::vector<BaseId> bases;
  {
    MutexLock lock(bell_->mutex);
    bases = queue_.WaitingBases();
  }
  if (bases.empty()) return;
  const RequestQueue::Warmths warmth = look_();
  std::map<BaseId, Warmth> warmths;
  for (const BaseId& base : bases) warmths[base] = warmth(base);
  {
    MutexLock lock(bell_->mutex);
    const auto started = queue_.Start(clock_(), [&](const BaseId& base) {
      const auto known = warmths.find(base);  // One that came meanwhile has its own StartNext.
      return known == warmths.end() ? Warmth::kSwitch : known->second;
    });
    started_.insert(started.begin(), started.end());
  }
  bell_->rung.NotifyAll();
}

void RequestScheduler::NoteGranted(RequestQueue::Id id) {
  {
    MutexLock lock(bell_->mutex);
    queue_.NoteGranted(id);
  }
  StartNext();
}

void RequestScheduler::End(RequestQueue::Id id) {
  {
    MutexLock lock(bell_->mutex);
    queue_.End(id, clock_());
    started_.erase(id);
  }
  StartNext();
}

absl::Duration RequestScheduler::IdleFor() const {
  MutexLock lock(bell_->mutex);
  return queue_.IdleFor(clock_());
}

RequestQueueStats RequestScheduler::Stats() const {
  MutexLock lock(bell_->mutex);
  return queue_.Stats(clock_());
}

}  // namespace coterie
