#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"

namespace coterie {

// Which two characters stand side by side inside of any token: where two do not, no merge can reach
// across. Answers "perhaps" for a few pairs that do not, which costs time and never ids. Filled
// once, then const and thread-safe.
class PairFilter {
 public:
  PairFilter() : others_(kOtherWords) {}

  // Takes the pairs of a token's text, which is well-formed UTF-8.
  void Add(absl::string_view token);

  bool MayHold(uint32_t left, uint32_t right) const {
    if ((left | right) < kAscii) return (ascii_[left][right / 64] >> right % 64 & 1) != 0;
    const uint32_t bit = BitOf(left, right);
    return (others_[bit / 64] >> bit % 64 & 1) != 0;
  }

  int64_t memory_bytes() const {
    return static_cast<int64_t>(sizeof(*this) + others_.capacity() * sizeof(uint64_t));
  }

 private:
  static constexpr uint32_t kAscii = 128;
  static constexpr int kOtherBits = 22;
  static constexpr uint32_t kOtherWords = (1u << kOtherBits) / 64;

  static uint32_t BitOf(uint32_t left, uint32_t right) {
    const uint64_t pair = static_cast<uint64_t>(left) << 32 | right;
    return static_cast<uint32_t>((pair * 0x9E3779B97F4A7C15) >> (64 - kOtherBits));
  }

  std::array<std::array<uint64_t, kAscii / 64>, kAscii> ascii_ = {};
  std::vector<uint64_t> others_;  // A bit for each hash of a pair that is not ASCII.
};

}  // namespace coterie
