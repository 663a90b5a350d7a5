#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <stop_token>
#include <thread>

#include "absl/time/time.h"

namespace coterie {

// Calls a function every so often on a thread of its own, until destroyed. Destruction waits for a
// call under way.
class PeriodicTask {
 public:
  PeriodicTask(absl::Duration period, std::function<void()> task)
      : thread_([period, task = std::move(task)](std::stop_token stop) {
          std::mutex mutex;
          std::condition_variable_any stopped;
          std::unique_lock<std::mutex> lock(mutex);
          while (!stopped.wait_for(lock, stop, absl::ToChronoNanoseconds(period),
                                   [&] { return stop.stop_requested(); })) {
            task();
          }
        }) {}

 private:
  std::jthread thread_;
};

}  // namespace coterie
