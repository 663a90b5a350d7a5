#pragma once

#include <optional>
#include <stop_token>
#include <utility>

#include "core/threads/mutex.h"

namespace coterie {

// How a training is told to give its memory back. Thread-safe.
class TrainingPause {
 public:
  // A stretch of training that `stop` ends.
  void Begin(std::stop_source stop) {
    MutexLock lock(mutex_);
    stretch_ = std::move(stop);
    asked_ = false;
  }

  // Others want memory: the stretch under way, if there is one, ends within a step.
  void Ask() {
    std::optional<std::stop_source> stretch;
    {
      MutexLock lock(mutex_);
      if (!stretch_.has_value()) return;
      asked_ = true;
      stretch = stretch_;
    }
    stretch->request_stop();
  }

  // It ended; whether because it was asked to.
  bool End() {
    MutexLock lock(mutex_);
    stretch_.reset();
    return std::exchange(asked_, false);
  }

 private:
  Mutex mutex_;
  std::optional<std::stop_source> stretch_ ABSL_GUARDED_BY(mutex_);  // None: nothing is trained.
  bool asked_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace coterie
