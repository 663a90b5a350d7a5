#pragma once

#include <cstdint>

namespace coterie {

// SplitMix64 (Steele et al., OOPSLA 2014): states a step apart, mixed, are random numbers.
inline constexpr uint64_t kSplitMixStep = 0x9e3779b97f4a7c15u;

// Its finaliser: near numbers get bits that have nothing to do with each other.
inline uint64_t MixBits(uint64_t bits) {
  bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9u;
  bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebu;
  return bits ^ (bits >> 31);
}

// A hash, or what a generator gave, as a number in [0, 1); the same everywhere, which
// std::uniform_real_distribution is not.
inline double UnitInterval(uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1p-53; }

}  // namespace coterie
