#pragma once

#include <cstdint>
#include <vector>

#include "core/formats/token_table.h"

namespace coterie {

// What two neighbouring tokens become, and how early. Filled once, then const and thread-safe.
class MergeTable {
 public:
  static constexpr uint32_t kNever = 0xFFFFFFFF;
  struct Merge {
    uint32_t rank;  // The lowest goes first; kNever: the two do not merge.
    TokenId merged;
  };

  explicit MergeTable(int64_t n_merges);

  // kDuplicate if the pair has a merge, which then stays: the earlier one is the stronger.
  TokenTable::Insertion Add(TokenId left, TokenId right, Merge merge);

  Merge Find(TokenId left, TokenId right) const {
    const uint64_t key = KeyOf(left, right);
    for (uint64_t i = Hash(key) & mask_;; i = (i + 1) & mask_) {
      if (slots_[i].key == key) return slots_[i].merge;
      if (slots_[i].key == kEmpty) return {kNever, -1};
    }
  }

  int64_t memory_bytes() const { return static_cast<int64_t>(slots_.capacity() * sizeof(Slot)); }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};  // Ids are not negative: no key is this.
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge = {kNever, -1};
  };
  static uint64_t KeyOf(TokenId left, TokenId right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  static uint64_t Hash(uint64_t key) {
    const uint64_t hash = key * 0x9E3779B97F4A7C15;
    return hash ^ hash >> 32;
  }

  std::vector<Slot> slots_;  // Open addressing, never full.
  uint64_t mask_ = 0;
};

}  // namespace coterie
