#include "experts/session.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/check.h"
#include "core/base/status_macros.h"

namespace coterie {
namespace {

// Long enough that unpacking a weight panel is spread over many tokens, short enough that the
// scratch stays in the caches' reach and a cancel is noticed soon.
constexpr int64_t kPrefillChunkTokens = 256;

absl::Status PoisonedError() {
  return absl::FailedPreconditionError("the session failed before; reset it first");
}

}  // namespace

SessionShape SessionShape::ForTokens(int64_t n_tokens, const LinearDeltaSet* adapter) {
  return {n_tokens, std::clamp<int64_t>(n_tokens, 1, kPrefillChunkTokens),
          adapter == nullptr ? 0 : adapter->max_rank(), kMostAheadTokens};
}

Session::Session(const Expert& expert, WorkerPool& pool, const SessionShape& shape,
                 Activations activations, DeltaSnapshot adapter)
    : expert_(expert),
      pool_(pool),
      activations_(activations),
      adapter_(std::move(adapter)),
      ahead_tokens_(shape.ahead_tokens),
      kv_(expert_.spec(), shape.capacity_tokens),
      scratch_(expert_.spec(), shape.chunk_tokens, 1, pool.n_workers(), shape.adapter_rank,
               shape.ScoredTokens()) {
  run_.reserve(static_cast<size_t>(shape.ScoredTokens()));
}

Session::Session(const Expert& expert, WorkerPool& pool, const SessionShape& shape,
                 SequenceBatch& batch, DeltaSnapshot adapter)
    : Session(expert, pool, shape, batch.activations(), std::move(adapter)) {
  member_.emplace(batch);
}

absl::Status Session::Prefill(absl::Span<const TokenId> tokens, std::stop_token cancel) {
  COTERIE_RETURN_IF_ERROR(CheckRoom(static_cast<int64_t>(tokens.size())));
  if (tokens.empty()) return absl::InvalidArgumentError("there are no tokens to append");
  ForgetLogits();
  while (!tokens.empty()) {
    COTERIE_ASSIGN_OR_RETURN(
        const int64_t n_appended,
        Append({&kv_, tokens, LogitRows::kLast, adapter_.get(), need_}, cancel));
    tokens.remove_prefix(static_cast<size_t>(n_appended));
  }
  logits_ = scratch_.logits();
  return absl::OkStatus();
}

absl::Status Session::Decode(TokenId token, absl::Span<const TokenId> proposed) {
  const int64_t n_ahead = std::min(
      {static_cast<int64_t>(proposed.size()), ahead_tokens_, capacity_tokens() - n_tokens() - 1});
  if (n_ahead <= 0) return Prefill({&token, 1}, std::stop_token());
  COTERIE_RETURN_IF_ERROR(CheckRoom(1 + n_ahead));
  ForgetLogits();
  run_.push_back(token);
  run_.insert(run_.end(), proposed.begin(), proposed.begin() + n_ahead);
  const int64_t n_before = n_tokens();
  const absl::StatusOr<int64_t> n_appended =
      Append({&kv_, run_, LogitRows::kAll, adapter_.get(), need_}, std::stop_token());
  run_.resize(static_cast<size_t>(n_appended.value_or(0)));
  COTERIE_RETURN_IF_ERROR(n_appended.status());
  COTERIE_RETURN_IF_ERROR(kv_.Truncate(n_before + 1));
  n_taken_ = 1;
  logits_ = scratch_.logits().first(static_cast<size_t>(expert_.spec().n_vocab));
  return absl::OkStatus();
}

bool Session::TakeAhead(TokenId token) {
  if (n_ahead() == 0 || run_[static_cast<size_t>(n_taken_)] != token) {
    run_.clear();
    n_taken_ = 0;
    return false;
  }
  // Its keys and values have been standing there since the pass.
  kv_.Extend(1);
  const size_t n_vocab = static_cast<size_t>(expert_.spec().n_vocab);
  logits_ = scratch_.logits().subspan(static_cast<size_t>(n_taken_++) * n_vocab, n_vocab);
  return true;
}

absl::Status Session::CheckRoom(int64_t n_more) const {
  if (poisoned_) return PoisonedError();
  if (n_more <= capacity_tokens() - n_tokens()) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("the conversation is longer than its capacity: tokens=", n_tokens() + n_more,
                   ", capacity_tokens=", capacity_tokens()));
}

// One pass over the first of the slice's tokens; returns how many. An error that is neither a bad
// argument nor a cancel poisons the session.
absl::StatusOr<int64_t> Session::Append(const SequenceSlice& slice, const std::stop_token& cancel) {
  const absl::StatusOr<int64_t> n_appended =
      member_ ? member_->Append(slice, scratch_, cancel) : RunPass(slice, cancel);
  const absl::Status& status = n_appended.status();
  poisoned_ = !status.ok() && !absl::IsInvalidArgument(status) && !absl::IsCancelled(status);
  return n_appended;
}

absl::StatusOr<int64_t> Session::RunPass(const SequenceSlice& slice,
                                         const std::stop_token& cancel) {
  const SequenceSlice chunk =
      slice.First(std::min(slice.n_tokens(), scratch_.MaxTokens(slice.logits)));
  COTERIE_RETURN_IF_ERROR(expert_.Forward({&chunk, 1}, activations_, pool_, scratch_, cancel));
  return chunk.n_tokens();
}

absl::Status Session::Rewind(int64_t n_tokens) {
  if (poisoned_) return PoisonedError();
  ForgetLogits();
  return kv_.Truncate(n_tokens);
}

void Session::Reset() {
  poisoned_ = false;
  ForgetLogits();
  COTERIE_CHECK(kv_.Truncate(0).ok(), "a conversation can always be emptied");
}

void Session::ForgetLogits() {
  logits_ = {};
  run_.clear();
  n_taken_ = 0;
}

}  // namespace coterie
