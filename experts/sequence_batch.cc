#include "experts/sequence_batch.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <utility>

#include "absl/time/clock.h"

#include "core/base/check.h"

namespace coterie {
namespace {

// How long a pass waits for those who were in the one before: a part of that one's time, so that
// nobody is slowed by more than that part.
constexpr int kPatienceDivisor = 4;
constexpr absl::Duration kMostPatience = absl::Milliseconds(20);

}  // namespace

std::vector<int64_t> ShareTokens(absl::Span<const int64_t> wanted, int64_t max_tokens) {
  std::vector<size_t> by_want(wanted.size());
  std::iota(by_want.begin(), by_want.end(), size_t{0});
  std::stable_sort(by_want.begin(), by_want.end(),
                   [&](size_t a, size_t b) { return wanted[a] < wanted[b]; });
  std::vector<int64_t> shares(wanted.size());
  int64_t left = max_tokens;
  int64_t n_left = static_cast<int64_t>(wanted.size());
  for (const size_t i : by_want) {
    // Those who want least come first, so that what they leave is shared by the others.
    shares[i] = std::min(wanted[i], std::max<int64_t>(1, left / n_left));
    left -= shares[i];
    --n_left;
  }
  return shares;
}

SequenceBatch::SequenceBatch(const Expert& expert, WorkerPool& pool, MemoryBudget& budget,
                             SequenceBatchOptions options, Activations activations,
                             HeadScreens* screens)
    : expert_(expert),
      pool_(pool),
      budget_(budget),
      options_(options),
      activations_(activations),
      screens_(screens) {}

// The scratch goes before what it is charged to.
SequenceBatch::~SequenceBatch() { scratch_.reset(); }

SequenceBatch::Member::Member(SequenceBatch& batch) : batch_(batch) {
  MutexLock lock(batch_.mutex_);
  batch_.members_.insert(this);
}

SequenceBatch::Member::~Member() {
  {
    MutexLock lock(batch_.mutex_);
    batch_.members_.erase(this);
    batch_.NoLongerExpectLocked(*this);
  }
  batch_.changed_.NotifyAll();
}

absl::StatusOr<int64_t> SequenceBatch::Member::Append(const SequenceSlice& slice,
                                                      DecoderScratch& scratch,
                                                      const std::stop_token& cancel) {
  Call call{*this,   slice.First(std::min(slice.n_tokens(), scratch.MaxTokens(slice.logits))),
            scratch, cancel,
            {},      false};
  batch_.Enter(call);
  while (true) {
    const std::vector<Call*> calls = batch_.WaitForPass(call);
    if (calls.empty()) break;
    const absl::Time start = absl::Now();
    batch_.RunPass(calls);
    batch_.EndPass(calls, absl::Now() - start);
  }
  if (!call.status.ok()) return call.status;
  return call.slice.n_tokens();
}

bool SequenceBatch::Member::IsAlone() const {
  MutexLock lock(batch_.mutex_);
  return batch_.members_.size() == 1;
}

void SequenceBatch::Enter(Call& call) {
  MutexLock lock(mutex_);
  Member& member = call.member;
  // In time is who comes before another pass has begun.
  member.is_punctual_ = member.last_pass_ == 0 || member.last_pass_ == pass_;
  NoLongerExpectLocked(member);
  waiting_.push_back(&call);
}

void SequenceBatch::NoLongerExpectLocked(Member& member) {
  if (std::exchange(member.is_expected_, false)) --n_expected_;
}

// Waits until the call is done, and returns nothing then, or until it is this thread's part to run
// the pass of the calls returned.
std::vector<SequenceBatch::Call*> SequenceBatch::WaitForPass(const Call& call) {
  MutexLock lock(mutex_);
  while (!call.is_done) {
    if (!pass_runs_ && MayBeginLocked()) return BeginLocked();
    // One of those who wait watches the time; the last to come needs none.
    const bool watches = !pass_runs_ && waiting_.front() == &call;
    changed_.WaitUntil(mutex_, watches ? expected_until_ : absl::InfiniteFuture());
  }
  return {};
}

bool SequenceBatch::MayBeginLocked() const {
  return n_expected_ == 0 || static_cast<int64_t>(waiting_.size()) >= options_.max_sequences ||
         absl::Now() >= expected_until_;
}

std::vector<SequenceBatch::Call*> SequenceBatch::BeginLocked() {
  for (Member* member : members_) {
    if (member->is_expected_) member->is_punctual_ = false;
    NoLongerExpectLocked(*member);
  }
  const size_t n =
      std::min(waiting_.size(), static_cast<size_t>(std::max(1, options_.max_sequences)));
  std::vector<Call*> calls(waiting_.begin(), waiting_.begin() + static_cast<int64_t>(n));
  waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<int64_t>(n));
  if (n == 1 && members_.size() > 1) {
    // Somebody may want to join soon, and would wait for a long pass.
    SequenceSlice& slice = calls[0]->slice;
    slice = slice.First(std::min(slice.n_tokens(), options_.max_tokens));
  }
  for (Call* call : calls) {
    if (n == 1 || call->slice.logits != LogitRows::kAll) continue;
    // What it would compute ahead, others would wait for.
    call->slice = call->slice.First(1);
    call->slice.logits = LogitRows::kLast;
  }
  pass_runs_ = true;
  ++pass_;
  for (Call* call : calls) call->member.last_pass_ = pass_;
  ++stats_.n_passes;
  stats_.n_shared_passes += n > 1;
  stats_.n_sequences += static_cast<int64_t>(n);
  return calls;
}

void SequenceBatch::RunPass(absl::Span<Call* const> calls) {
  if (calls.size() == 1) return RunAlone(*calls[0]);
  std::vector<Call*> live;
  for (Call* call : calls) {
    if (call->cancel.stop_requested()) {
      call->status = absl::CancelledError("cancelled before a forward pass");
    } else {
      live.push_back(call);
    }
  }
  std::vector<int64_t> wanted;
  for (const Call* call : live) wanted.push_back(call->slice.n_tokens());
  const std::vector<int64_t> shares = ShareTokens(wanted, options_.max_tokens);
  for (size_t i = 0; i < live.size(); ++i) live[i]->slice = live[i]->slice.First(shares[i]);
  if (live.size() > 1 && RunShared(live)) return;
  for (Call* call : live) RunAlone(*call);
}

void SequenceBatch::EndPass(absl::Span<Call* const> calls, absl::Duration took) {
  {
    MutexLock lock(mutex_);
    for (Call* call : calls) {
      call->is_done = true;
      if (!call->member.is_punctual_) continue;
      call->member.is_expected_ = true;
      ++n_expected_;
    }
    expected_until_ = absl::Now() + std::max(options_.least_patience,
                                             std::min(took / kPatienceDivisor, kMostPatience));
    pass_runs_ = false;
  }
  changed_.NotifyAll();
}

void SequenceBatch::RunAlone(Call& call) const {
  const auto run = [&](HeadScreen* screen) {
    call.status =
        expert_.Forward({&call.slice, 1}, activations_, pool_, call.scratch, call.cancel, screen);
  };
  if (screens_ != nullptr && !call.slice.need.all() && call.slice.logits == LogitRows::kLast) {
    screens_->Use(expert_, run);
  } else {
    run(nullptr);
  }
}

// False, with nothing changed, if a pass of them all is refused: then one of them is to blame, and
// finds out alone.
bool SequenceBatch::RunShared(absl::Span<Call* const> calls) {
  std::vector<SequenceSlice> slices;
  int64_t rank = 0;
  for (const Call* call : calls) {
    slices.push_back(call->slice);
    rank = std::max(rank, call->scratch.max_rank());
  }
  if (!HaveScratch(static_cast<int64_t>(calls.size()), rank)) return false;
  if (!expert_.Forward(slices, activations_, pool_, *scratch_).ok()) return false;
  std::vector<Call*> with_logits;
  for (Call* call : calls) {
    if (call->slice.logits == LogitRows::kLast) with_logits.push_back(call);
  }
  // Everyone takes its row along: the next pass may begin while one is still being looked at.
  const size_t n_vocab = static_cast<size_t>(expert_.spec().n_vocab);
  pool_.Run(static_cast<int64_t>(with_logits.size()), [&](int64_t i, int) {
    const size_t row = static_cast<size_t>(i);
    with_logits[row]->scratch.KeepLogits(scratch_->logits().subspan(row * n_vocab, n_vocab));
  });
  return true;
}

// Room for a shared pass of so many sequences with adapters of this rank.
bool SequenceBatch::HaveScratch(int64_t n_sequences, int64_t rank) {
  // Most of it is logits, a row a sequence: it grows with the batch, by doubling.
  int64_t n =
      std::min<int64_t>(options_.max_sequences,
                        static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(n_sequences))));
  if (scratch_) {
    n = std::max(n, scratch_->max_logit_rows());
    rank = std::max(rank, scratch_->max_rank());
    if (n == scratch_->max_logit_rows() && rank == scratch_->max_rank()) return true;
  }
  scratch_.reset();
  scratch_bytes_.Release();
  const int64_t max_tokens = std::max(options_.max_tokens, n);
  absl::StatusOr<Reservation> bytes = budget_.Reserve(
      Purpose::kScratch,
      DecoderScratch::Bytes(expert_.spec(), max_tokens, n, pool_.n_workers(), rank));
  if (!bytes.ok()) return false;
  scratch_bytes_ = *std::move(bytes);
  scratch_.emplace(expert_.spec(), max_tokens, n, pool_.n_workers(), rank);
  return true;
}

SequenceBatchStats SequenceBatch::Stats() const {
  MutexLock lock(mutex_);
  return stats_;
}

}  // namespace coterie
