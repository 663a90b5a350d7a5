#include "core/formats/merge_table.h"

namespace coterie {
namespace {

constexpr int kMaxProbes = 4096;

}  // namespace

MergeTable::MergeTable(int64_t n_merges) {
  size_t capacity = 16;
  while (capacity < static_cast<size_t>(n_merges) * 3 / 2) capacity *= 2;
  slots_.resize(capacity);
  mask_ = capacity - 1;
}

TokenTable::Insertion MergeTable::Add(TokenId left, TokenId right, Merge merge) {
  const uint64_t key = KeyOf(left, right);
  uint64_t i = Hash(key) & mask_;
  for (int n_probes = 0; slots_[i].key != kEmpty; i = (i + 1) & mask_) {
    if (slots_[i].key == key) return TokenTable::Insertion::kDuplicate;
    if (++n_probes == kMaxProbes) return TokenTable::Insertion::kTooManyCollisions;
  }
  slots_[i] = {key, merge};
  return TokenTable::Insertion::kDone;
}

}  // namespace coterie
