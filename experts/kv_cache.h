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

  // Keys or values of one layer and head: keys in tiles (core/kernels/kernels.h), values
  // [capacity, head_dim].
  uint16_t* keys(int64_t layer, int64_t kv_head) { return At(2 * layer, kv_head); }
  uint16_t* values(int64_t layer, int64_t kv_head) { return At(2 * layer + 1, kv_head); }

  // Counts n more tokens as present, once their keys and values are written. Requires room.
  void Extend(int64_t n);

  // Forgets all but the first n_tokens. kInvalidArgument if there are fewer.
  absl::Status Truncate(int64_t n_tokens);

  // A block is what prefixes are kept and shared in: keys and values of kBlockTokens tokens, which
  // do not depend on this cache's capacity, [layer, keys or values, kv_head, kBlockTokens,
  // head_dim].
  static constexpr int64_t kBlockTokens = 64;
  int64_t block_bytes() const { return n_planes_ * block_plane_bytes(); }

  // Copies the tokens from `index` * kBlockTokens on into `block`. Requires that they are there.
  void ExportBlock(int64_t index, uint8_t* block) const;

  // Appends the tokens of a block. Requires room for them, and whole blocks before them.
  void ImportBlock(const uint8_t* block);

 private:
  uint16_t* At(int64_t plane, int64_t kv_head) {
    return buffer_.as<uint16_t>() + (plane * n_kv_heads_ + kv_head) * plane_tokens_ * head_dim_;
  }
  int64_t block_plane_bytes() const { return 2 * kBlockTokens * head_dim_; }
  // Of the first token of a block in one plane, in bytes.
  int64_t OffsetOf(int64_t plane, int64_t index) const {
    return 2 * (plane * plane_tokens_ + index * kBlockTokens) * head_dim_;
  }

  int64_t n_kv_heads_;
  int64_t n_planes_;  // Keys and values of all layers and heads.
  int64_t head_dim_;
  int64_t capacity_tokens_;
  int64_t plane_tokens_;  // Whole tiles of them.
  int64_t n_tokens_ = 0;
  AlignedBuffer buffer_;
};

}  // namespace coterie
