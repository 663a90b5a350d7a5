#include "experts/kv_cache.h"

#include "absl/strings/str_cat.h"

#include "core/base/check.h"

namespace coterie {

KvCache::KvCache(const ArchSpec& spec, int64_t capacity_tokens)
    : n_kv_heads_(spec.n_kv_heads),
      head_dim_(spec.head_dim),
      capacity_tokens_(capacity_tokens),
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

}  // namespace coterie
