#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

#include "core/formats/tokenizer.h"

namespace coterie {

// The tokens of a conversation so far, and where in it its last few stood before: what followed
// them there may follow again. The place is kept as long as it proves right; when it does not, the
// longest of the latest places with the same last kLeastMatch tokens takes its stead, if there is
// any. Pure: no thread, no clock, no model. Thread-compatible.
//
// A token takes a few steps, bounded ones. Places are found by a hash table of the latest, and from
// each to the one before (the chains of LZ77, as zlib keeps them).
class TokenLookup {
 public:
  static constexpr int64_t kLeastMatch = 3;
  static constexpr int64_t kLongestMatch = 64;  // Longer ones count as so long.

  // Of a lookup over so many tokens; to be charged by whoever creates one.
  static int64_t Bytes(int64_t capacity_tokens);

  explicit TokenLookup(int64_t capacity_tokens);

  // Requires room for it.
  void Append(TokenId token);

  int64_t n_tokens() const { return static_cast<int64_t>(tokens_.size()); }

  // How many of the last tokens stand at the place found as well, [kLeastMatch, kLongestMatch]; 0
  // where there is none.
  int64_t match_length() const { return match_length_; }

  // The token that followed at the place found. Requires a match.
  TokenId next() const { return tokens_[static_cast<size_t>(next_at_)]; }

  // Fills `proposal` with what followed, and what followed that; as a repetition from where the
  // conversation ends. Returns false where there is no match.
  bool Propose(absl::Span<TokenId> proposal) const;

 private:
  size_t SlotOfLast() const;
  void Find();
  int64_t LengthOfMatchBefore(int64_t at) const;

  std::vector<TokenId> tokens_;
  // Of the last kLeastMatch tokens before a place, the place; -1: none.
  std::vector<int32_t> latest_;   // By hash.
  std::vector<int32_t> earlier_;  // By place: the one before it with the same hash.
  int64_t capacity_tokens_;
  int64_t next_at_ = 0;
  int64_t match_length_ = 0;
};

}  // namespace coterie
