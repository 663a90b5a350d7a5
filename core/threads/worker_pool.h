#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <stop_token>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

#include "core/threads/mutex.h"

namespace coterie {

// The pool that owns the cores: every parallel phase of the process runs here, so that two sessions
// never oversubscribe the machine. Thread-safe; phases of different callers take turns, one phase
// at a time.
//
// A phase is many small equal pieces. The caller is worker 0. Idle workers spin for about 50 us,
// because the next phase of a forward pass follows within microseconds, and then sleep.
class WorkerPool {
 public:
  // n_workers counts the caller; 0 means one per core this process may run on.
  explicit WorkerPool(int n_workers = 0);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  int n_workers() const { return n_workers_; }

  // Calls body(piece, worker) once for each piece in [0, n_pieces), 0 <= worker < n_workers(), and
  // returns when all calls have. Each worker has a share of neighbouring pieces, the same one in
  // every phase of as many: what it wrote in one phase is in its cache in the next. It takes them
  // in rising order, and then those that others have not come to; so a piece may wait for one of a
  // lower number. Everything written by the bodies is visible to the caller afterwards. body must
  // not call Run.
  void Run(int64_t n_pieces, absl::FunctionRef<void(int64_t piece, int worker)> body);

  // The same for work that gives way: it waits while a Foreground lives, between two pieces, and
  // goes on where it was; no piece may wait for another. Returns false, with some pieces undone,
  // once `stop` was requested.
  bool RunBackground(int64_t n_pieces, absl::FunctionRef<void(int64_t piece, int worker)> body,
                     const std::stop_token& stop);

  // While one lives, work in the background stands still. Held around an answer.
  class Foreground {
   public:
    explicit Foreground(WorkerPool& pool) : pool_(pool) { pool_.n_foreground_.fetch_add(1); }
    ~Foreground();
    Foreground(const Foreground&) = delete;
    Foreground& operator=(const Foreground&) = delete;

   private:
    WorkerPool& pool_;
  };

 private:
  struct Phase;
  void WorkerLoop(int worker);
  void RunPhase(Phase& phase) ABSL_EXCLUSIVE_LOCKS_REQUIRED(run_mutex_);

  const int n_workers_;
  Mutex run_mutex_;  // One phase at a time; held by the caller of Run for the whole phase.

  std::atomic<uint64_t> generation_{0};  // Rises by one with each phase.
  std::atomic<Phase*> phase_{nullptr};
  std::atomic<int> n_inside_{0};  // Workers that may still look at *phase_.
  std::atomic<bool> stopping_{false};

  std::atomic<int> n_foreground_{0};
  Mutex background_mutex_;
  CondVar foreground_left_;

  Mutex sleep_mutex_;
  CondVar wake_;
  std::atomic<int> n_asleep_{0};

  std::vector<std::thread> threads_;
};

}  // namespace coterie
