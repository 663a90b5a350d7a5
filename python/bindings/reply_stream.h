#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "core/threads/mutex.h"
#include "runtime/assistant.h"

namespace coterie {

// An answer being written on a thread of its own, taken piece by piece. Thread-safe. Destruction
// cancels the answer and waits for the thread.
class ReplyStream {
 public:
  ReplyStream(std::shared_ptr<Assistant> assistant, Request request);
  ~ReplyStream();

  enum class Next : uint8_t { kPiece, kEnd, kNothingYet };
  // Waits at most `patience` for the next piece.
  Next Take(absl::Duration patience, std::string& piece);

  void Cancel() { stop_.request_stop(); }

  // The reply, or the error, once Take returned kEnd. Waits for the end otherwise.
  absl::StatusOr<Reply> Result();

 private:
  void Write(const Request& request);

  std::shared_ptr<Assistant> assistant_;
  std::stop_source stop_;
  Mutex mutex_;
  CondVar changed_;
  std::deque<std::string> pieces_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  absl::StatusOr<Reply> result_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace coterie
