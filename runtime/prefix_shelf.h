#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "core/formats/token_table.h"
#include "core/memory/memory_budget.h"
#include "core/threads/mutex.h"
#include "experts/cpu_decoder.h"
#include "experts/kv_cache.h"
#include "experts/linear_delta.h"
#include "experts/prefix_cache.h"
#include "runtime/prefix_store.h"

namespace coterie {

struct PrefixStats {
  int64_t n_hits = 0;  // Answers that found a part of their prompt, however small.
  int64_t n_misses = 0;
  int64_t cached_tokens = 0;  // Found by all of them.
  int64_t disk_tokens = 0;    // Of those, read from disk.
  int64_t n_written = 0;      // Blocks.
  int64_t n_failures = 0;     // Blocks that could not be written.
  int64_t n_damaged = 0;      // Files that were removed because they could not be trusted.
  PrefixCacheStats memory;
};

// What prompts begin with, kept from one answer to the next: each takes up what is known of its
// prompt and keeps what it computed, in memory and, where that is asked for, on disk, which is
// written on a thread of the shelf's own. Thread-safe.
class PrefixShelf {
 public:
  // Where the values of one answer belong: everything that they depend on beside the tokens, and
  // what had been forgotten when it began, here and by any process.
  struct Place {
    std::string scope;
    uint64_t memory_era = 0;
    std::string disk_era;
  };

  // The budget outlives the shelf. share: of the budget, at most. folder: of the blocks on disk,
  // which it shares with other processes; they are not used before UseDisk.
  PrefixShelf(MemoryBudget& budget, double share, std::string folder);
  // What is still to be written is.
  ~PrefixShelf();

  // Reads and writes blocks on disk too, up to max_bytes > 0, sealed if there is a key
  // (kSealKeyBytes). Before any answer.
  void UseDisk(int64_t max_bytes, std::string key);

  // base_version: of the base's files. The adapter may be null.
  Place PlaceFor(const std::string& base, uint64_t base_version, const LinearDeltaSet* adapter,
                 Activations activations);

  // Fills an empty KV cache with what is known of the prompt, but for its last token, which a pass
  // needs to say what comes next.
  void TakeUp(const Place& place, absl::Span<const TokenId> prompt, KvCache& kv);

  // Keeps whole blocks of `tokens`, which `kv` holds, unless something was forgotten since the
  // place was made: it may be in them. on_disk: there too, if the disk is used.
  void Keep(const Place& place, absl::Span<const TokenId> tokens, const KvCache& kv, bool on_disk);

  // Drops everything, in memory and on disk, because an interaction was forgotten, whose tokens
  // nobody knows any more. Other processes follow when they next answer or LookForForgotten. The
  // error of a file that could not be removed.
  absl::Status Forget();
  // Drops what is in memory if another process forgot something.
  void LookForForgotten();

  PrefixCache& memory() { return memory_; }
  const PrefixCache& memory() const { return memory_; }
  PrefixStats Stats() const;

 private:
  // Whole blocks to be written, from the first of their chain on.
  struct Work {
    Place place;
    std::vector<TokenId> tokens;
    int64_t block_bytes = 0;
  };

  void ReadFromDisk(const Place& place, absl::Span<const TokenId> tokens, KvCache& kv);
  bool ReadBlock(const Place& place, const BlockPlace& block, absl::Span<const TokenId> tokens);
  void RunWriter();
  void Write(const Work& work);
  bool WriteBlock(const Work& work, const BlockPlace& block, absl::Span<const TokenId> tokens);
  std::vector<BlockPlace> BlocksOf(const std::string& scope, absl::Span<const TokenId> tokens,
                                   int64_t block_bytes) const;
  absl::StatusOr<Reservation> ReserveForFile(const BlockPlace& block, int64_t n_copies);

  MemoryBudget& budget_;
  PrefixCache memory_;
  const std::string folder_;
  std::unique_ptr<PrefixStore> store_;  // Replaced by UseDisk only.

  mutable Mutex mutex_;
  CondVar changed_;
  std::string seen_era_ ABSL_GUARDED_BY(mutex_);  // Of the disk, which memory is of.
  std::deque<Work> work_ ABSL_GUARDED_BY(mutex_);
  bool stops_ ABSL_GUARDED_BY(mutex_) = false;
  PrefixStats stats_ ABSL_GUARDED_BY(mutex_);
  std::thread writer_;  // Once the disk is used.
};

}  // namespace coterie
