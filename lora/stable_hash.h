#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"

namespace coterie {

// The finaliser of SplitMix64 (Steele et al., OOPSLA 2014): near numbers get bits that have nothing
// to do with each other.
inline uint64_t MixBits(uint64_t bits) {
  bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9u;
  bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebu;
  return bits ^ (bits >> 31);
}

// The same on every machine and in every build: what is split or ordered by it stays so. FNV-1a,
// mixed.
inline uint64_t StableHash(absl::string_view text, uint64_t seed = 0) {
  uint64_t hash = 0xcbf29ce484222325u ^ seed;
  for (const char c : text) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  }
  return MixBits(hash);
}

// A hash, or what a generator gave, as a number in [0, 1); the same everywhere, which
// std::uniform_real_distribution is not.
inline double UnitInterval(uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1p-53; }

}  // namespace coterie
