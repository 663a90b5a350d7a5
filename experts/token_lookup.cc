#include "experts/token_lookup.h"

#include <algorithm>
#include <bit>

#include "core/base/check.h"

namespace coterie {
namespace {

// Places that are compared to find the longest match.
constexpr int kMostPlaces = 16;

int64_t SlotsFor(int64_t capacity_tokens) {
  return static_cast<int64_t>(
      std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(16, capacity_tokens))));
}

}  // namespace

int64_t TokenLookup::Bytes(int64_t capacity_tokens) {
  return capacity_tokens * static_cast<int64_t>(sizeof(TokenId) + sizeof(int32_t)) +
         SlotsFor(capacity_tokens) * static_cast<int64_t>(sizeof(int32_t));
}

TokenLookup::TokenLookup(int64_t capacity_tokens)
    : latest_(static_cast<size_t>(SlotsFor(capacity_tokens)), -1),
      capacity_tokens_(capacity_tokens) {
  tokens_.reserve(static_cast<size_t>(capacity_tokens));
  earlier_.reserve(static_cast<size_t>(capacity_tokens));
}

void TokenLookup::Append(TokenId token) {
  COTERIE_CHECK(n_tokens() < capacity_tokens_, "a lookup has room for its conversation");
  const bool came_true = match_length_ > 0 && next() == token;
  tokens_.push_back(token);
  earlier_.push_back(-1);
  if (came_true) {
    ++next_at_;
    match_length_ = std::min(match_length_ + 1, kLongestMatch);
  } else {
    Find();
  }
  if (n_tokens() < kLeastMatch) return;
  // The place after the last token, where the next one will stand.
  int32_t& latest = latest_[SlotOfLast()];
  earlier_.back() = latest;
  latest = static_cast<int32_t>(n_tokens());
}

size_t TokenLookup::SlotOfLast() const {
  uint64_t hash = 0;
  for (size_t i = tokens_.size() - kLeastMatch; i < tokens_.size(); ++i) {
    hash = (hash + static_cast<uint32_t>(tokens_[i]) + 1) * 0x9e3779b97f4a7c15u;
  }
  return static_cast<size_t>(hash >> 32) & (latest_.size() - 1);
}

void TokenLookup::Find() {
  match_length_ = 0;
  if (n_tokens() < kLeastMatch) return;
  int64_t at = latest_[SlotOfLast()];
  for (int i = 0; i < kMostPlaces && at >= 0; ++i) {
    const int64_t length = LengthOfMatchBefore(at);
    if (length > match_length_ && length >= kLeastMatch) {
      match_length_ = length;
      next_at_ = at;
    }
    at = earlier_[static_cast<size_t>(at - 1)];
  }
}

// Tokens before `at` that are also the last.
int64_t TokenLookup::LengthOfMatchBefore(int64_t at) const {
  const int64_t most = std::min(at, kLongestMatch);
  int64_t length = 0;
  while (length < most && tokens_[static_cast<size_t>(at - 1 - length)] ==
                              tokens_[static_cast<size_t>(n_tokens() - 1 - length)]) {
    ++length;
  }
  return length;
}

bool TokenLookup::Propose(absl::Span<TokenId> proposal) const {
  if (match_length_ == 0) return false;
  const size_t period = tokens_.size() - static_cast<size_t>(next_at_);
  for (size_t i = 0; i < proposal.size(); ++i) {
    proposal[i] = i < period ? tokens_[static_cast<size_t>(next_at_) + i] : proposal[i - period];
  }
  return true;
}

}  // namespace coterie
