#pragma once

#include <cstdint>

#include "absl/status/status.h"

#include "core/memory/aligned_buffer.h"
#include "experts/arch_spec.h"

namespace coterie {

// Keys and values of one sequence in f16, head-major: for each layer and KV head the keys
// [capacity, head_dim], then the values alike, so that attention of one head streams through
// contiguous memory. Move-only, thread-compatible.
//
// Its bytes, ArchSpec::KvBytes(capacity), are charged by whoever creates it.
class KvCache {
 public:
  KvCache(const ArchSpec& spec, int64_t capacity_tokens);

  int64_t n_tokens() const { return n_tokens_; }
  int64_t capacity_tokens() const { return capacity_tokens_; }

  // Keys or values of one layer and head, [capacity, head_dim].
  uint16_t* keys(int64_t layer, int64_t kv_head) { return At(2 * layer, kv_head); }
  uint16_t* values(int64_t layer, int64_t kv_head) { return At(2 * layer + 1, kv_head); }

  // Counts n more tokens as present, once their keys and values are written. Requires room.
  void Extend(int64_t n);

  // Forgets all but the first n_tokens. kInvalidArgument if there are fewer.
  absl::Status Truncate(int64_t n_tokens);

 private:
  uint16_t* At(int64_t plane, int64_t kv_head) {
    return buffer_.as<uint16_t>() + (plane * n_kv_heads_ + kv_head) * capacity_tokens_ * head_dim_;
  }

  int64_t n_kv_heads_;
  int64_t head_dim_;
  int64_t capacity_tokens_;
  int64_t n_tokens_ = 0;
  AlignedBuffer buffer_;
};

}  // namespace coterie
