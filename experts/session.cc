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
          adapter == nullptr ? 0 : adapter->max_rank()};
}

Session::Session(const Expert& expert, WorkerPool& pool, const SessionShape& shape,
                 Activations activations, DeltaSnapshot adapter)
    : expert_(expert),
      pool_(pool),
      activations_(activations),
      adapter_(std::move(adapter)),
      kv_(expert_.spec(), shape.capacity_tokens),
      scratch_(expert_.spec(), shape.chunk_tokens, 1, pool.n_workers(), shape.adapter_rank) {}

Session::Session(const Expert& expert, WorkerPool& pool, const SessionShape& shape,
                 SequenceBatch& batch, DeltaSnapshot adapter)
    : Session(expert, pool, shape, batch.activations(), std::move(adapter)) {
  member_.emplace(batch);
}

absl::Status Session::Prefill(absl::Span<const TokenId> tokens, std::stop_token cancel) {
  if (poisoned_) return PoisonedError();
  if (tokens.empty()) return absl::InvalidArgumentError("there are no tokens to append");
  if (static_cast<int64_t>(tokens.size()) > capacity_tokens() - n_tokens()) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the conversation is longer than its capacity: tokens=",
        n_tokens() + static_cast<int64_t>(tokens.size()), ", capacity_tokens=", capacity_tokens()));
  }
  logits_ = {};
  while (!tokens.empty()) {
    const absl::StatusOr<int64_t> n_appended =
        Append({&kv_, tokens, LogitRows::kLast, adapter_.get()}, cancel);
    const absl::Status& status = n_appended.status();
    if (absl::IsInvalidArgument(status) || absl::IsCancelled(status)) return status;
    if (!status.ok()) return Poison(status);
    tokens.remove_prefix(static_cast<size_t>(*n_appended));
  }
  logits_ = scratch_.logits();
  return absl::OkStatus();
}

// One pass over the first of the slice's tokens; returns how many.
absl::StatusOr<int64_t> Session::Append(const SequenceSlice& slice, const std::stop_token& cancel) {
  if (member_) return member_->Append(slice, scratch_, cancel);
  const SequenceSlice chunk = slice.First(std::min(slice.n_tokens(), scratch_.max_tokens()));
  COTERIE_RETURN_IF_ERROR(expert_.Forward({&chunk, 1}, activations_, pool_, scratch_, cancel));
  return chunk.n_tokens();
}

absl::Status Session::Rewind(int64_t n_tokens) {
  if (poisoned_) return PoisonedError();
  logits_ = {};
  return kv_.Truncate(n_tokens);
}

void Session::Reset() {
  poisoned_ = false;
  logits_ = {};
  COTERIE_CHECK(kv_.Truncate(0).ok(), "a conversation can always be emptied");
}

absl::Status Session::Poison(absl::Status status) {
  poisoned_ = true;
  return status;
}

}  // namespace coterie
