#pragma once

#include <deque>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "core/threads/mutex.h"
#include "python/bindings/native_thread.h"
#include "runtime/assistant.h"

namespace coterie {

// An answer being written on a thread of its own, taken piece by piece. Thread-safe. Destruction
// cancels the answer and waits for the thread.
class ReplyStream {
 public:
  ReplyStream(std::shared_ptr<Assistant> assistant, Request request);

  enum class Next : uint8_t { kPiece, kEnd, kNothingYet };
  // Waits at most `patience` for the next piece.
  Next Take(absl::Duration patience, std::string& piece);

  void Cancel() { thread_.RequestStop(); }

  // Waits at most `patience` for the end of the answer, taken or not; true if it has come.
  bool WaitForEnd(absl::Duration patience) { return thread_.WaitFor(patience); }
  // The reply, or the error, once the answer has ended.
  absl::StatusOr<Reply> Result();

 private:
  void Write(const Request& request, std::stop_token stop);

  std::shared_ptr<Assistant> assistant_;
  Mutex mutex_;
  CondVar changed_;
  std::deque<std::string> pieces_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  absl::StatusOr<Reply> result_ ABSL_GUARDED_BY(mutex_);
  NativeThread thread_;  // Last: it uses the others, and is joined before they go.
};

}  // namespace coterie
