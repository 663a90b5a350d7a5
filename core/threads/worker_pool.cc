#include "core/threads/worker_pool.h"

#include <sched.h>

#include <algorithm>
#include <chrono>

#include "absl/container/fixed_array.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace coterie {
namespace {

constexpr auto kSpinTime = std::chrono::microseconds(50);
constexpr absl::Duration kStopPollTime = absl::Milliseconds(50);

int CoresOfThisProcess() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof(cores), &cores) != 0) return 1;
  return std::max(1, CPU_COUNT(&cores));
}

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// Waits for what takes microseconds if the other workers have their cores; where they do not,
// because the machine is shared, makes way for them.
template <typename Condition>
void SpinUntil(Condition done) {
  constexpr int kSpinsBeforeYield = 4096;
  for (int n_spins = 0; !done(); ++n_spins) {
    if (n_spins < kSpinsBeforeYield) {
      Pause();
    } else {
      std::this_thread::yield();
    }
  }
}

}  // namespace

struct WorkerPool::Phase {
  // Foreground null: gives way to nobody.
  Phase(int64_t n_pieces, int n_workers, absl::FunctionRef<void(int64_t, int)> call,
        const std::atomic<int>* in_foreground)
      : body(call), foreground(in_foreground), shares(static_cast<size_t>(n_workers)) {
    for (int worker = 0; worker < n_workers; ++worker) {
      Share& share = shares[static_cast<size_t>(worker)];
      share.next.store(n_pieces * worker / n_workers, std::memory_order_relaxed);
      share.end = n_pieces * (worker + 1) / n_workers;
    }
  }

  // A worker's own share, then what is left of the others'.
  void Work(int worker) {
    for (size_t i = 0; i < shares.size(); ++i) {
      Share& share = shares[(static_cast<size_t>(worker) + i) % shares.size()];
      while (!GivesWay()) {
        const int64_t piece = share.next.fetch_add(1, std::memory_order_relaxed);
        if (piece >= share.end) break;
        body(piece, worker);
      }
    }
  }

  bool GivesWay() const {
    return foreground != nullptr && foreground->load(std::memory_order_relaxed) > 0;
  }
  bool AllTaken() const {
    return std::all_of(shares.begin(), shares.end(), [](const Share& share) {
      return share.next.load(std::memory_order_relaxed) >= share.end;
    });
  }

  // Neighbouring pieces. Apart, for each counts on a cache line of its own.
  struct alignas(64) Share {
    std::atomic<int64_t> next{0};  // What is before was taken, and is done by its taker.
    int64_t end = 0;
  };

  absl::FunctionRef<void(int64_t, int)> body;
  const std::atomic<int>* const foreground;
  absl::FixedArray<Share, 16> shares;
};

WorkerPool::WorkerPool(int n_workers)
    : n_workers_(n_workers > 0 ? n_workers : CoresOfThisProcess()) {
  for (int worker = 1; worker < n_workers_; ++worker) {
    threads_.emplace_back([this, worker] { WorkerLoop(worker); });
  }
}

WorkerPool::~WorkerPool() {
  stopping_.store(true);
  {
    MutexLock lock(sleep_mutex_);
    generation_.fetch_add(1);
  }
  wake_.NotifyAll();
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::Run(int64_t n_pieces, absl::FunctionRef<void(int64_t, int)> body) {
  if (n_pieces <= 0) return;
  MutexLock run_lock(run_mutex_);
  if (n_workers_ == 1 || n_pieces == 1) {
    for (int64_t piece = 0; piece < n_pieces; ++piece) body(piece, 0);
    return;
  }
  Phase phase(n_pieces, n_workers_, body, nullptr);
  RunPhase(phase);
}

bool WorkerPool::RunBackground(int64_t n_pieces, absl::FunctionRef<void(int64_t, int)> body,
                               const std::stop_token& stop) {
  Phase phase(n_pieces, n_workers_, body, &n_foreground_);
  while (!phase.AllTaken()) {
    {
      MutexLock lock(background_mutex_);
      // Woken by the last Foreground; a stop is looked for now and then.
      while (n_foreground_.load() > 0 && !stop.stop_requested()) {
        foreground_left_.WaitUntil(background_mutex_, absl::Now() + kStopPollTime);
      }
    }
    if (stop.stop_requested()) return false;
    MutexLock run_lock(run_mutex_);
    RunPhase(phase);
  }
  return true;
}

WorkerPool::Foreground::~Foreground() {
  if (pool_.n_foreground_.fetch_sub(1) > 1) return;
  { MutexLock lock(pool_.background_mutex_); }
  pool_.foreground_left_.NotifyAll();
}

void WorkerPool::RunPhase(Phase& phase) {
  phase_.store(&phase);
  generation_.fetch_add(1);
  if (n_asleep_.load() > 0) {
    // Taking the mutex orders this wake-up after the sleeper's last look at generation_.
    { MutexLock lock(sleep_mutex_); }
    wake_.NotifyAll();
  }
  phase.Work(0);
  // The phase lives on the caller's stack: take it down, then wait until no worker can see it. All
  // pieces taken are done by then.
  phase_.store(nullptr);
  SpinUntil([&] { return n_inside_.load() == 0; });
}

void WorkerPool::WorkerLoop(int worker) {
  uint64_t seen = 0;
  while (true) {
    const auto spin_end = std::chrono::steady_clock::now() + kSpinTime;
    int n_spins = 0;
    while (generation_.load() == seen) {
      Pause();
      if ((++n_spins & 63) != 0 || std::chrono::steady_clock::now() < spin_end) continue;
      MutexLock lock(sleep_mutex_);
      n_asleep_.fetch_add(1);
      while (generation_.load() == seen) wake_.Wait(sleep_mutex_);
      n_asleep_.fetch_sub(1);
    }
    seen = generation_.load();
    if (stopping_.load()) return;
    n_inside_.fetch_add(1);
    if (Phase* phase = phase_.load()) phase->Work(worker);
    n_inside_.fetch_sub(1);
  }
}

}  // namespace coterie
