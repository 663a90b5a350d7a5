#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

#include "core/formats/tokenizer.h"
#include "experts/proposal_length.h"
#include "experts/session.h"
#include "experts/token_lookup.h"

namespace coterie {

// Decodes in a session, and has it compute ahead what followed when the last few tokens stood in
// the conversation before, where that pays. Logits are the session's own, bit for bit, so that an
// answer is the same with and without; only its time differs. While the session shares passes with
// others, nothing is proposed. Thread-compatible; the session outlives it.
class LookupDecoder {
 public:
  // Of a decoder for a session of this capacity; to be charged by whoever creates one.
  static int64_t Bytes(int64_t capacity_tokens) { return TokenLookup::Bytes(capacity_tokens); }

  // For a session that holds `prompt`.
  LookupDecoder(Session& session, absl::Span<const TokenId> prompt);

  // Appends a token, as Session::Decode does. At most n_more are going to be appended after it.
  absl::Status Decode(TokenId token, int64_t n_more);

  int64_t n_proposed() const { return n_proposed_; }  // Computed ahead.
  int64_t n_taken() const { return n_taken_; }        // Of those, appended without a pass.

 private:
  Session& session_;
  TokenLookup lookup_;
  ProposalLength length_;
  std::vector<TokenId> proposal_;
  int64_t n_proposed_ = 0;
  int64_t n_taken_ = 0;
};

}  // namespace coterie
