#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <set>
#include <stop_token>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

#include "core/memory/memory_budget.h"
#include "core/threads/mutex.h"
#include "core/threads/worker_pool.h"
#include "experts/cpu_decoder.h"
#include "experts/expert.h"
#include "experts/head_screens.h"

namespace coterie {

struct SequenceBatchOptions {
  int max_sequences = 16;  // Of one pass; 1: no pass is shared.
  // Of a pass while there are several sequences: what those that append one token leave is for
  // prompts, whose chunks thus delay the others by no more than such a pass takes.
  int64_t max_tokens = 64;
  // How long a pass waits at least for a sequence that was in the one before.
  absl::Duration least_patience = absl::Milliseconds(1);
};

// How many tokens of each sequence a shared pass appends, if each wants `wanted` of them, first
// come first: one each, and what is left of max_tokens in equal shares to those who want more.
std::vector<int64_t> ShareTokens(absl::Span<const int64_t> wanted, int64_t max_tokens);

// What sequences of one expert have done together so far.
struct SequenceBatchStats {
  int64_t n_passes = 0;
  int64_t n_shared_passes = 0;  // Of those, with two sequences or more.
  int64_t n_sequences = 0;      // Summed over passes: n_sequences / n_passes is the mean batch.

  SequenceBatchStats& operator+=(const SequenceBatchStats& other) {
    n_passes += other.n_passes;
    n_shared_passes += other.n_shared_passes;
    n_sequences += other.n_sequences;
    return *this;
  }
};

// Lets the sequences of one expert advance together: whoever has tokens to append joins the next
// forward pass, whatever adapter it has, and all share that pass's reading of the weights. Each
// gets, bit for bit, what a pass of its own would give; errors and cancellation are each one's own.
//
// There is no thread here. Each sequence is driven by a thread of its own, which samples and hands
// text on between passes; the thread that completes a batch runs its pass, so that a single
// sequence runs its passes as if this did not exist. A pass begins when every sequence that is
// expected has come, or when the batch is full. Expected is who was in the last pass; but only for
// a quarter of that pass's time, and one that came late is not expected again before it has once
// been in time: a caller that is slow to take its text delays the others that much, once.
//
// The working memory of shared passes is charged when first needed, out of free bytes only, and
// given back with the batch. Without room for it sequences take turns.
//
// Thread-safe. Members, and all that their calls name, outlive the calls; the batch outlives its
// members.
class SequenceBatch {
 public:
  // The screens may be null: passes of one sequence alone then compute every logit.
  SequenceBatch(const Expert& expert, WorkerPool& pool, MemoryBudget& budget,
                SequenceBatchOptions options = {}, Activations activations = Activations::kInt8,
                HeadScreens* screens = nullptr);
  ~SequenceBatch();
  SequenceBatch(const SequenceBatch&) = delete;
  SequenceBatch& operator=(const SequenceBatch&) = delete;

  // One sequence. Thread-compatible.
  class Member {
   public:
    explicit Member(SequenceBatch& batch);
    ~Member();
    Member(const Member&) = delete;
    Member& operator=(const Member&) = delete;

    // Appends tokens from the front of slice.tokens in one pass and returns how many: one at least,
    // as many as `scratch` holds at most. With LogitRows::kLast the logits of the last token then
    // stand in scratch.logits(), once all are appended; with LogitRows::kAll those of all appended,
    // of which a shared pass leaves only the first. Errors as of Expert::Forward with `scratch`
    // alone; of a pass that is shared, `cancel` is noticed before and after.
    absl::StatusOr<int64_t> Append(const SequenceSlice& slice, DecoderScratch& scratch,
                                   const std::stop_token& cancel);

    // Whether the batch has no other member now.
    bool IsAlone() const;

   private:
    friend class SequenceBatch;

    SequenceBatch& batch_;
    // All guarded by the batch's mutex.
    bool is_expected_ = false;
    bool is_punctual_ = true;  // Its last call was in time.
    uint64_t last_pass_ = 0;   // That it was in.
  };

  Activations activations() const { return activations_; }
  SequenceBatchStats Stats() const;

 private:
  // A call of Append on its way; lives on its caller's stack.
  struct Call {
    Member& member;
    SequenceSlice slice;  // What is left to append, and then what a pass appends.
    DecoderScratch& scratch;
    const std::stop_token& cancel;
    absl::Status status;
    bool is_done = false;
  };

  void Enter(Call& call);
  std::vector<Call*> WaitForPass(const Call& call);
  bool MayBeginLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<Call*> BeginLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void NoLongerExpectLocked(Member& member) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunPass(absl::Span<Call* const> calls);
  void EndPass(absl::Span<Call* const> calls, absl::Duration took);

  void RunAlone(Call& call) const;
  bool RunShared(absl::Span<Call* const> calls);
  bool HaveScratch(int64_t n_sequences, int64_t rank);

  const Expert& expert_;
  WorkerPool& pool_;
  MemoryBudget& budget_;
  const SequenceBatchOptions options_;
  const Activations activations_;
  HeadScreens* const screens_;

  // Of the thread that runs the pass under way.
  Reservation scratch_bytes_;
  std::optional<DecoderScratch> scratch_;

  mutable Mutex mutex_;
  CondVar changed_;
  std::set<Member*> members_ ABSL_GUARDED_BY(mutex_);
  std::deque<Call*> waiting_ ABSL_GUARDED_BY(mutex_);  // In order of arrival.
  int64_t n_expected_ ABSL_GUARDED_BY(mutex_) = 0;     // Members that is_expected_.
  absl::Time expected_until_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  bool pass_runs_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t pass_ ABSL_GUARDED_BY(mutex_) = 0;  // The last one begun.
  SequenceBatchStats stats_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace coterie
