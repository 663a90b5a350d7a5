#pragma once

#include <cstdint>
#include <optional>
#include <stop_token>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "core/threads/worker_pool.h"
#include "experts/cpu_decoder.h"
#include "experts/expert.h"
#include "experts/kv_cache.h"
#include "experts/sequence_batch.h"

namespace coterie {

// How much memory a session takes; charge it before creating one.
struct SessionShape {
  int64_t capacity_tokens = 0;  // Longest conversation: prompt and answer.
  int64_t chunk_tokens = 0;     // Prompt tokens per forward pass.
  int64_t adapter_rank = 0;     // Of the adapter it is held with; 0: none.
  int64_t ahead_tokens = 0;     // Proposed ones per pass, at most, that are computed ahead.

  // Kernels take eight tokens at once; each more would take room for a row of logits.
  static constexpr int64_t kMostAheadTokens = 7;

  int64_t KvBytes(const ArchSpec& spec) const { return spec.KvBytes(capacity_tokens); }
  int64_t ScratchBytes(const ArchSpec& spec, int n_workers) const {
    return DecoderScratch::Bytes(spec, chunk_tokens, 1, n_workers, adapter_rank, ScoredTokens());
  }
  // Tokens of a pass that all get logits.
  int64_t ScoredTokens() const { return ahead_tokens > 0 ? 1 + ahead_tokens : 0; }
  // A shape for at most n_tokens, with the chunk size that prefills fastest.
  static SessionShape ForTokens(int64_t n_tokens, const LinearDeltaSet* adapter = nullptr);
};

// One conversation with one expert, or with one version of an adapter on it: its tokens so far and
// their KV. Thread-compatible.
//
// After an error inside a pass the session is poisoned: every call but Reset returns
// kFailedPrecondition. Bad arguments and cancellation do not poison it.
class Session {
 public:
  // The expert and the pool outlive the session. The adapter, if not null, stays the same for the
  // session's life: what is in its KV was computed with it. The shape is for its rank, or the first
  // pass returns kResourceExhausted.
  Session(const Expert& expert, WorkerPool& pool, const SessionShape& shape,
          Activations activations = Activations::kInt8, DeltaSnapshot adapter = nullptr);
  // Passes are shared with the other sessions of a batch of the same expert, pool and activations,
  // which outlives the session.
  Session(const Expert& expert, WorkerPool& pool, const SessionShape& shape, SequenceBatch& batch,
          DeltaSnapshot adapter = nullptr);

  const Expert& expert() const { return expert_; }
  const DeltaSnapshot& adapter() const { return adapter_; }  // Null: none.
  int64_t n_tokens() const { return kv_.n_tokens(); }
  int64_t capacity_tokens() const { return kv_.capacity_tokens(); }

  // Appends tokens in chunks; logits() then belongs to the last one. kInvalidArgument if there are
  // none, kResourceExhausted if they do not fit the capacity, kCancelled within a layer's time,
  // or with the pass if it is shared: whole chunks appended until then stay, Rewind drops them.
  absl::Status Prefill(absl::Span<const TokenId> tokens, std::stop_token cancel);

  // Appends one token. `proposed` is what may come after it: the same pass computes the first of
  // these ahead, as far as shape and capacity allow, or none if the pass is shared. They are no
  // part of the conversation before they are taken.
  absl::Status Decode(TokenId token, absl::Span<const TokenId> proposed = {});
  // Appends a token that the last pass computed ahead, bit for bit as a pass of its own would.
  // False, and nothing more is ahead, if that is not the next one ahead.
  bool TakeAhead(TokenId token);
  int64_t n_ahead() const { return static_cast<int64_t>(run_.size()) - n_taken_; }
  int64_t max_ahead() const { return ahead_tokens_; }
  // Whether passes may be shared with others just now, which then advance them better than
  // proposals do.
  bool has_company() const { return member_ && !member_->IsAlone(); }

  // Which logits will be looked at, from the next pass on; all of them unless told otherwise.
  void Want(LogitNeed need) { need_ = need; }

  // Logits after the last token, [n_vocab]; empty before the first pass and after Rewind. Those
  // that nobody wanted may be -infinity.
  absl::Span<const float> logits() const { return logits_; }

  // Forgets all but the first n_tokens.
  absl::Status Rewind(int64_t n_tokens);

  // For prefixes that are kept and taken up again: what is appended to it was computed by passes
  // like this session's own. Not on a poisoned session.
  KvCache& kv() { return kv_; }
  // Ends the session but for its KV.
  KvCache TakeKv() && { return std::move(kv_); }

  // Back to an empty conversation, healthy again.
  void Reset();

 private:
  absl::Status CheckRoom(int64_t n_tokens) const;
  absl::StatusOr<int64_t> Append(const SequenceSlice& slice, const std::stop_token& cancel);
  absl::StatusOr<int64_t> RunPass(const SequenceSlice& slice, const std::stop_token& cancel);
  void ForgetLogits();

  const Expert& expert_;
  WorkerPool& pool_;
  const Activations activations_;
  const DeltaSnapshot adapter_;
  const int64_t ahead_tokens_;
  KvCache kv_;
  DecoderScratch scratch_;
  absl::Span<const float> logits_;
  LogitNeed need_;
  // Tokens of the last pass that has some ahead, each with logits in the scratch, and KV behind
  // what kv_ counts: that of the first n_taken_ is counted.
  std::vector<TokenId> run_;
  int64_t n_taken_ = 0;
  bool poisoned_ = false;
  std::optional<SequenceBatch::Member> member_;  // None: every pass is its own.
};

}  // namespace coterie
