#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"

#include "core/base/random_bits.h"

namespace coterie {

// The same on every machine and in every build: what is split or ordered by it stays so. FNV-1a,
// mixed.
inline uint64_t StableHash(absl::string_view text, uint64_t seed = 0) {
  uint64_t hash = 0xcbf29ce484222325u ^ seed;
  for (const char c : text) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  }
  return MixBits(hash);
}

}  // namespace coterie
