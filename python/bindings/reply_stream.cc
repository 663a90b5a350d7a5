#include "python/bindings/reply_stream.h"

#include <utility>

#include "absl/time/clock.h"

namespace coterie {

ReplyStream::ReplyStream(std::shared_ptr<Assistant> assistant, Request request)
    : assistant_(std::move(assistant)),
      result_(absl::UnknownError("still being written")),
      thread_([this, request = std::move(request)](std::stop_token stop) {
        Write(request, std::move(stop));
      }) {}

void ReplyStream::Write(const Request& request, std::stop_token stop) {
  const auto sink = [this](absl::string_view piece) {
    MutexLock lock(mutex_);
    pieces_.emplace_back(piece);
    changed_.NotifyAll();
    return true;
  };
  absl::StatusOr<Reply> result = assistant_->Generate(request, sink, std::move(stop));
  MutexLock lock(mutex_);
  result_ = std::move(result);
  ended_ = true;
  changed_.NotifyAll();
}

ReplyStream::Next ReplyStream::Take(absl::Duration patience, std::string& piece) {
  const absl::Time deadline = absl::Now() + patience;
  MutexLock lock(mutex_);
  while (pieces_.empty() && !ended_) {
    if (!changed_.WaitUntil(mutex_, deadline) && pieces_.empty() && !ended_) {
      return Next::kNothingYet;
    }
  }
  if (pieces_.empty()) return Next::kEnd;
  piece = std::move(pieces_.front());
  pieces_.pop_front();
  return Next::kPiece;
}

absl::StatusOr<Reply> ReplyStream::Result() {
  MutexLock lock(mutex_);
  return result_;
}

}  // namespace coterie
