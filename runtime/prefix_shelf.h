#pragma once

#include <cstdint>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/types/span.h"

#include "core/formats/token_table.h"
#include "core/memory/memory_budget.h"
#include "core/threads/mutex.h"
#include "experts/cpu_decoder.h"
#include "experts/expendable_memory.h"
#include "experts/kv_cache.h"
#include "experts/linear_delta.h"
#include "experts/prefix_cache.h"

namespace coterie {

struct PrefixStats {
  int64_t n_hits = 0;  // Answers that found a part of their prompt, however small.
  int64_t n_misses = 0;
  int64_t cached_tokens = 0;  // Found by all of them.
  PrefixCacheStats memory;
};

// What prompts begin with, kept from one answer to the next: each takes up what is known of its
// prompt and keeps what it computed. Thread-safe.
class PrefixShelf {
 public:
  // Where the values of one answer belong: everything that they depend on beside the tokens, and
  // how often had been forgotten when it began.
  struct Place {
    std::string scope;
    uint64_t era = 0;
  };

  // The budget outlives the shelf. share: of the budget, at most.
  PrefixShelf(MemoryBudget& budget, double share);

  // base_version: of the base's files. The adapter may be null.
  Place PlaceFor(const std::string& base, uint64_t base_version, const LinearDeltaSet* adapter,
                 Activations activations) const;

  // Fills an empty KV cache with what is known of the prompt, but for its last token, which a pass
  // needs to say what comes next.
  void TakeUp(const Place& place, absl::Span<const TokenId> prompt, KvCache& kv);

  // Keeps whole blocks of `tokens`, which `kv` holds, unless something was forgotten since the
  // place was made: it may be in them.
  void Keep(const Place& place, absl::Span<const TokenId> tokens, const KvCache& kv);

  // Frees everything, because an interaction was forgotten, whose tokens nobody knows any more.
  void Forget() { memory_.Clear(); }

  PrefixCache& memory() { return memory_; }
  const PrefixCache& memory() const { return memory_; }
  PrefixStats Stats() const;

 private:
  PrefixCache memory_;

  mutable Mutex mutex_;
  PrefixStats stats_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace coterie
