#include "python/bindings/native_thread.h"

#include <pthread.h>

#include <algorithm>
#include <vector>

#include "absl/time/clock.h"
#include "pybind11/pybind11.h"

#include "core/threads/mutex.h"
#include "python/bindings/gil.h"

namespace coterie {
namespace {

// How long an interrupted call may take to stop before it is left to itself.
constexpr absl::Duration kStopPatience = absl::Milliseconds(150);
// How long the end of the interpreter waits for all threads.
constexpr absl::Duration kExitPatience = absl::Seconds(3);

}  // namespace

struct NativeThread::State {
  std::stop_source stop;
  Mutex mutex;
  CondVar changed;
  bool ended ABSL_GUARDED_BY(mutex) = false;
  const pid_t process = getpid();
};

// All threads of this process. Never destroyed: threads may end after static destruction began.
class NativeThreads {
 public:
  using State = NativeThread::State;

  static NativeThreads& OfProcess() {
    static NativeThreads* const threads = new NativeThreads();
    return *threads;
  }

  void Add(std::shared_ptr<State> state) {
    MutexLock lock(mutex_);
    std::erase_if(running_, [](const std::shared_ptr<State>& old) {
      MutexLock old_lock(old->mutex);
      return old->ended;
    });
    running_.push_back(std::move(state));
  }

  void StopAll() {
    std::vector<std::shared_ptr<State>> running;
    {
      MutexLock lock(mutex_);
      running.swap(running_);
    }
    for (const auto& state : running) state->stop.request_stop();
    const absl::Time deadline = absl::Now() + kExitPatience;
    for (const auto& state : running) {
      MutexLock lock(state->mutex);
      while (!state->ended && state->changed.WaitUntil(state->mutex, deadline)) {
      }
    }
  }

 private:
  NativeThreads() {
    // A child of fork() has none of the threads, and must find the mutex free.
    pthread_atfork([] { OfProcess().mutex_.Lock(); }, [] { OfProcess().mutex_.Unlock(); },
                   [] {
                     OfProcess().running_ = {};
                     OfProcess().mutex_.Unlock();
                   });
  }

  Mutex mutex_;  // Held before a State's mutex.
  std::vector<std::shared_ptr<State>> running_;
};

NativeThread::NativeThread(std::function<void(std::stop_token)> work)
    : state_(std::make_shared<State>()) {
  thread_ = std::thread([state = state_, work = std::move(work)]() mutable {
    work(state->stop.get_token());
    work = nullptr;  // What it owned goes before anybody is told that it ended.
    MutexLock lock(state->mutex);
    state->ended = true;
    state->changed.NotifyAll();
  });
  NativeThreads::OfProcess().Add(state_);
}

NativeThread::~NativeThread() {
  if (getpid() != state_->process) {
    new std::thread(std::move(thread_));  // A thread of the parent: neither joined nor destroyed.
    return;
  }
  RequestStop();
  if (thread_.joinable()) thread_.join();
}

void NativeThread::RequestStop() { state_->stop.request_stop(); }

bool NativeThread::WaitFor(absl::Duration patience) {
  const absl::Time deadline = absl::Now() + patience;
  MutexLock lock(state_->mutex);
  while (!state_->ended && state_->changed.WaitUntil(state_->mutex, deadline)) {
  }
  return state_->ended;
}

void NativeThread::Abandon(std::unique_ptr<NativeThread> thread) { thread->thread_.detach(); }

void StopNativeThreadsAtExit() {
  Py_AtExit([] { NativeThreads::OfProcess().StopAll(); });
}

void WaitInterruptibly(std::unique_ptr<NativeThread> thread) {
  while (true) {
    bool ended = false;
    {
      GilReleased released;
      ended = thread->WaitFor(kSignalPatience);
      if (ended) thread.reset();
    }
    if (ended) return;
    if (PyErr_CheckSignals() == 0) continue;
    {
      GilReleased released;
      thread->RequestStop();
      if (thread->WaitFor(kStopPatience)) {
        thread.reset();
      } else {
        NativeThread::Abandon(std::move(thread));
      }
    }
    throw pybind11::error_already_set();
  }
}

}  // namespace coterie
