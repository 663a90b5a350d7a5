#include "experts/kv_cache.h"

#include <cstring>

#include "absl/strings/str_cat.h"

#include "core/base/check.h"

namespace coterie {

KvCache::KvCache(const ArchSpec& spec, int64_t capacity_tokens)
    : n_kv_heads_(spec.n_kv_heads),
      n_planes_(2 * spec.n_layers * spec.n_kv_heads),
      head_dim_(spec.head_dim),
      capacity_tokens_(capacity_tokens),
      plane_tokens_(WholeKeyTiles(capacity_tokens)),
      buffer_(spec.KvBytes(capacity_tokens)) {}

void KvCache::Extend(int64_t n) {
  COTERIE_CHECK(n >= 0 && n <= capacity_tokens_ - n_tokens_, "a KV cache has room for its tokens");
  n_tokens_ += n;
}

absl::Status KvCache::Truncate(int64_t n_tokens) {
  if (n_tokens < 0 || n_tokens > n_tokens_) {
    return absl::InvalidArgumentError(absl::StrCat(
        "cannot rewind to a token that is not there: to=", n_tokens, ", n_tokens=", n_tokens_));
  }
  n_tokens_ = n_tokens;
  return absl::OkStatus();
}

void KvCache::ExportBlock(int64_t index, uint8_t* block) const {
  COTERIE_CHECK(index >= 0 && (index + 1) * kBlockTokens <= n_tokens_, "a block is exported whole");
  for (int64_t plane = 0; plane < n_planes_; ++plane) {
    std::memcpy(block + plane * block_plane_bytes(), buffer_.data() + OffsetOf(plane, index),
                static_cast<size_t>(block_plane_bytes()));
  }
}

void KvCache::ImportBlock(const uint8_t* block) {
  COTERIE_CHECK(n_tokens_ % kBlockTokens == 0, "a block follows whole blocks");
  const int64_t index = n_tokens_ / kBlockTokens;
  Extend(kBlockTokens);
  for (int64_t plane = 0; plane < n_planes_; ++plane) {
    std::memcpy(buffer_.data() + OffsetOf(plane, index), block + plane * block_plane_bytes(),
                static_cast<size_t>(block_plane_bytes()));
  }
}

}  // namespace coterie
