#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/types/span.h"

#include "core/formats/token_table.h"
#include "core/memory/aligned_buffer.h"
#include "core/memory/memory_budget.h"
#include "core/threads/mutex.h"
#include "experts/expendable_memory.h"
#include "experts/kv_cache.h"

namespace coterie {

struct PrefixCacheStats {
  int64_t held_bytes = 0;
  int64_t max_bytes = 0;  // Of the budget as it is now.
  int64_t n_blocks = 0;
  int64_t n_added = 0;    // Blocks since the start.
  int64_t n_dropped = 0;  // For room, for others, or cleared.
};

// Keys and values of what conversations begin with, so that the same beginning need not be computed
// again: blocks of KvCache::kBlockTokens tokens, each after the block before it. Thread-safe.
//
// A block is found by its own tokens and the block that it follows, both compared and not hashed:
// what is found was computed for exactly these tokens. The first of a chain is also found by its
// scope, a text that names everything else that the values depend on: base, adapter, kernels.
//
// Every block is charged as Purpose::kPrefixCache. Blocks take free memory only, never more than
// their share of the budget, and are the first to go when others need theirs: least recently used
// first, no block before those that follow it.
class PrefixCache : public ExpendableMemory {
 public:
  static constexpr int64_t kBlockTokens = KvCache::kBlockTokens;

  // The budget outlives the cache. share: [0, 1] of the budget; 0 keeps nothing.
  PrefixCache(MemoryBudget& budget, double share);
  // Requires that no call is under way.
  ~PrefixCache() override;
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  // Appends to `kv`, which holds the first kv.n_tokens() of `tokens`, the blocks of `tokens` that
  // follow and are known. Does nothing unless those it holds are whole blocks. Requires that kv has
  // room for `tokens`.
  void Continue(const std::string& scope, absl::Span<const TokenId> tokens, KvCache& kv);

  // Keeps the whole blocks of `tokens`, which `kv` begins with, as far as there is room.
  void Keep(const std::string& scope, absl::Span<const TokenId> tokens, const KvCache& kv,
            uint64_t era);

  // Keeps one block, the last of `tokens`, whose keys and values `write` fills in; it returns false
  // if it cannot. Returns whether the block is here afterwards: not without the block before it or
  // without room.
  bool Add(const std::string& scope, absl::Span<const TokenId> tokens, int64_t bytes, uint64_t era,
           absl::FunctionRef<bool(uint8_t* block)> write);

  // Passes the last block of `tokens` to `read`, if it is here. It stays until `read` returns.
  bool Read(const std::string& scope, absl::Span<const TokenId> tokens,
            absl::FunctionRef<void(absl::Span<const uint8_t> block)> read);

  // Frees what exceeds the share of a budget that was lowered, or all.
  void TrimToShare() { TrimTo(MaxBytes()); }
  void TrimTo(int64_t bytes);
  // Frees everything, and keeps nothing more that was begun before.
  void Clear();
  // How often it was cleared: what is kept names the era that it was begun in.
  uint64_t era() const;

  std::vector<Reservation> Reclaim(int64_t bytes_needed) override;
  int64_t expendable_bytes() const override;

  PrefixCacheStats Stats() const;

 private:
  struct Key {
    uint64_t parent = 0;  // 0: the first of its scope.
    std::string scope;    // Of a first block; else empty.
    std::array<TokenId, kBlockTokens> tokens;
    auto operator<=>(const Key&) const = default;
  };
  struct Contents {
    Reservation charge;  // Given back after the bytes are freed.
    AlignedBuffer bytes;
  };
  struct Block {
    uint64_t id = 0;
    uint64_t last_use = 0;
    Block* parent = nullptr;  // Null: the first of its scope.
    int64_t n_children = 0;
    std::shared_ptr<Contents> contents;  // Shared with who reads it just now.
  };
  using Blocks = std::map<Key, Block>;
  // Blocks of one chain from its first on.
  using Chain = std::vector<Blocks::iterator>;

  Chain FindLocked(const std::string& scope, absl::Span<const TokenId> tokens)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static Key KeyOf(const Chain& before, const std::string& scope, absl::Span<const TokenId> tokens);
  bool IsHere(const std::string& scope, absl::Span<const TokenId> tokens);
  std::shared_ptr<Contents> MakeRoom(const std::string& scope, absl::Span<const TokenId> tokens,
                                     int64_t bytes, uint64_t era);
  bool InsertLocked(const std::string& scope, absl::Span<const TokenId> tokens,
                    std::shared_ptr<Contents>& contents, uint64_t era)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::shared_ptr<Contents> TakeOldestLocked(uint64_t used_before)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WaitForReadersLocked(absl::Span<const std::shared_ptr<Contents>> taken)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int64_t MaxBytes() const;

  MemoryBudget& budget_;
  const double share_;

  // Held for bookkeeping only, never while keys and values are copied. A leaf but for the budget's.
  mutable Mutex mutex_;
  CondVar changed_;  // A reader is done, or an addition.
  Blocks blocks_ ABSL_GUARDED_BY(mutex_);
  uint64_t n_ids_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t clock_ ABSL_GUARDED_BY(mutex_) = 0;  // Of uses.
  uint64_t era_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t held_bytes_ ABSL_GUARDED_BY(mutex_) = 0;    // Of blocks_.
  int64_t adding_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // Charged for blocks being written.
  int64_t n_reclaiming_ ABSL_GUARDED_BY(mutex_) = 0;  // Calls; meanwhile nothing is added.
  int64_t n_added_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t n_dropped_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace coterie
