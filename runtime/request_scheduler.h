#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <stop_token>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

#include "core/threads/mutex.h"
#include "runtime/request_queue.h"

namespace coterie {

// Lets requests run in the order that a RequestQueue decides. Thread-safe.
class RequestScheduler {
 public:
  // The right to run. Given back on destruction. Move-only, thread-compatible; the scheduler
  // outlives it.
  class Turn {
   public:
    Turn() = default;
    Turn(Turn&& other) noexcept
        : scheduler_(std::exchange(other.scheduler_, nullptr)), id_(other.id_) {}
    Turn& operator=(Turn&& other) noexcept {
      std::swap(scheduler_, other.scheduler_);
      std::swap(id_, other.id_);
      return *this;
    }
    ~Turn() {
      if (scheduler_ != nullptr) scheduler_->End(id_);
    }

    // The memory for this request is there: the next may make others leave.
    void NoteGranted() { scheduler_->NoteGranted(id_); }

   private:
    friend class RequestScheduler;
    Turn(RequestScheduler* scheduler, RequestQueue::Id id) : scheduler_(scheduler), id_(id) {}

    RequestScheduler* scheduler_ = nullptr;
    RequestQueue::Id id_ = 0;
  };

  // What memory holds at one moment, looked at once for all requests that could start then.
  using Look = std::function<RequestQueue::Warmths()>;

  // `look` and what it returns are called with no lock held; what they say may be out of date by
  // the time it is used, which costs order and never correctness.
  RequestScheduler(RequestQueueOptions options, Look look,
                   std::function<absl::Time()> clock = &absl::Now);

  // Waits for the turn of a request on `base`.
  //   kUnavailable        the queue is full; nothing was loaded
  //   kDeadlineExceeded   it was not its turn by `deadline`, with the numbers
  //   kCancelled          `stop` was requested
  absl::StatusOr<Turn> Enter(const BaseId& base, Priority priority, absl::Time deadline,
                             std::stop_token stop = {});

  absl::Duration IdleFor() const;
  RequestQueueStats Stats() const;

 private:
  void StartNext();
  void NoteGranted(RequestQueue::Id id);
  void End(RequestQueue::Id id);

  const Look look_;
  const std::function<absl::Time()> clock_;

  // Waiters hold the bell too: a stop callback may ring after they left.
  struct Bell {
    Mutex mutex;
    CondVar rung;
  };
  const std::shared_ptr<Bell> bell_ = std::make_shared<Bell>();
  RequestQueue queue_ ABSL_GUARDED_BY(bell_->mutex);
  std::set<RequestQueue::Id> started_ ABSL_GUARDED_BY(bell_->mutex);  // Not yet told so.
};

}  // namespace coterie
