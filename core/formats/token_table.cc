#include "core/formats/token_table.h"

#include <algorithm>

namespace coterie {
namespace {

constexpr int kMaxProbes = 4096;

}  // namespace

TokenTable::TokenTable(int64_t n_tokens, int64_t n_bytes) {
  arena_.reserve(static_cast<size_t>(n_bytes));
  begins_.reserve(static_cast<size_t>(n_tokens) + 1);
  size_t capacity = 16;
  while (capacity < static_cast<size_t>(n_tokens) * 3 / 2) capacity *= 2;
  slots_.resize(capacity);
  mask_ = capacity - 1;
}

void TokenTable::Append(absl::string_view bytes) {
  arena_.append(bytes.data(), bytes.size());
  begins_.push_back(static_cast<uint32_t>(arena_.size()));
}

TokenTable::Insertion TokenTable::Index(TokenId id) {
  const absl::string_view bytes = Bytes(id);
  const uint64_t hash = HashBytes(bytes);
  uint64_t i = hash & mask_;
  for (int n_probes = 0; slots_[i].id >= 0; i = (i + 1) & mask_) {
    if (slots_[i].tag == TagOf(hash) && Bytes(slots_[i].id) == bytes) return Insertion::kDuplicate;
    if (++n_probes == kMaxProbes) return Insertion::kTooManyCollisions;
  }
  slots_[i] = {TagOf(hash), id};
  longest_ = std::max(longest_, bytes.size());
  return Insertion::kDone;
}

int64_t TokenTable::memory_bytes() const {
  return static_cast<int64_t>(arena_.capacity() + begins_.capacity() * sizeof(uint32_t) +
                              slots_.capacity() * sizeof(Slot));
}

}  // namespace coterie
