#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

#include "core/formats/piece_merger.h"
#include "core/formats/token_table.h"
#include "core/formats/tokenizer_vocabulary.h"

namespace coterie {

// A file's list of merges: what two neighbouring tokens become, and how early. Filled once, then
// const and thread-safe.
class MergeTable {
 public:
  // Reads vocabulary.merges, whose tokens `table` has indexed. kDataLoss for merges that name no
  // tokens, stand twice or make a control token. Merges of SentencePiece's that concern special
  // tokens are left out: only text that may not become special would need them.
  static absl::StatusOr<MergeTable> Create(const TokenizerVocabulary& vocabulary,
                                           const TokenTable& table);

  MergeKey Find(TokenId left, TokenId right) const {
    const uint64_t pair = PairOf(left, right);
    for (uint64_t i = Hash(pair) & mask_;; i = (i + 1) & mask_) {
      if (slots_[i].pair == pair) return slots_[i].merge;
      if (slots_[i].pair == kEmpty) return kNoMerge;
    }
  }

  int64_t memory_bytes() const { return static_cast<int64_t>(slots_.capacity() * sizeof(Slot)); }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};  // Ids are not negative: no pair is this.
  struct Slot {
    uint64_t pair = kEmpty;
    MergeKey merge = kNoMerge;
  };
  static uint64_t PairOf(TokenId left, TokenId right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  static uint64_t Hash(uint64_t pair) {
    const uint64_t hash = pair * 0x9E3779B97F4A7C15;
    return hash ^ hash >> 32;
  }

  explicit MergeTable(size_t n_merges);
  // kDuplicate if the pair has a merge, which then stays: the earlier one is the stronger.
  TokenTable::Insertion Add(TokenId left, TokenId right, MergeKey merge);

  std::vector<Slot> slots_;  // Open addressing, never full.
  uint64_t mask_ = 0;
};

}  // namespace coterie
