#pragma once

// The bytes of every token, and from bytes back to tokens.

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace coterie {

using TokenId = int32_t;

// A hash of short strings, good enough for tables whose probes are bounded.
inline uint64_t HashBytes(absl::string_view bytes) {
  constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15;
  const char* p = bytes.data();
  size_t n = bytes.size();
  uint64_t hash = n * 0xD6E8FEB86659FD93, word = 0;
  const auto mix = [&hash](uint64_t w) {
    hash = (hash ^ w) * kMultiplier;
    hash ^= hash >> 29;
  };
  for (; n > 8; n -= 8, p += 8) {
    std::memcpy(&word, p, 8);
    mix(word);
  }
  if (n >= 4) {
    uint32_t low, high;
    std::memcpy(&low, p, 4);
    std::memcpy(&high, p + n - 4, 4);
    word = static_cast<uint64_t>(high) << 32 | low;
  } else if (n > 0) {
    const auto byte = [p](size_t i) { return static_cast<uint64_t>(static_cast<uint8_t>(p[i])); };
    word = byte(0) | byte(n / 2) << 8 | byte(n - 1) << 16;
  }
  mix(word);
  return hash ^ hash >> 32;
}

// Tokens in the order of their ids. Filled once, then const and thread-safe. Copies the bytes.
class TokenTable {
 public:
  // Room for n_tokens tokens of n_bytes bytes in all (a hint), of which all may be indexed.
  TokenTable(int64_t n_tokens, int64_t n_bytes);

  // Adds the next token. Requires fewer than 2^32 bytes in all.
  void Append(absl::string_view bytes);

  enum class Insertion { kDone, kDuplicate, kTooManyCollisions };
  // Makes Lookup find the token. kTooManyCollisions is what only a vocabulary made to slow down
  // the table meets.
  Insertion Index(TokenId id);

  // The indexed token with these bytes, or -1.
  TokenId Lookup(absl::string_view bytes) const {
    if (bytes.size() > longest_) return -1;
    const uint64_t hash = HashBytes(bytes);
    for (uint64_t i = hash & mask_;; i = (i + 1) & mask_) {
      const Slot& slot = slots_[i];
      if (slot.id < 0) return -1;
      if (slot.tag == TagOf(hash) && Bytes(slot.id) == bytes) return slot.id;
    }
  }

  // Requires 0 <= id < size().
  absl::string_view Bytes(TokenId id) const {
    return absl::string_view(arena_).substr(begins_[id], begins_[id + 1] - begins_[id]);
  }
  int32_t size() const { return static_cast<int32_t>(begins_.size()) - 1; }
  int64_t memory_bytes() const;

 private:
  struct Slot {
    uint32_t tag = 0;
    TokenId id = -1;
  };
  static uint32_t TagOf(uint64_t hash) { return static_cast<uint32_t>(hash >> 32); }

  std::string arena_;
  std::vector<uint32_t> begins_ = {0};  // [size() + 1] into arena_.
  std::vector<Slot> slots_;             // Open addressing, never full.
  uint64_t mask_ = 0;
  size_t longest_ = 0;  // Bytes of the longest indexed token.
};

}  // namespace coterie
