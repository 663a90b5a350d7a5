#include "experts/lookup_decoder.h"

#include <algorithm>
#include <chrono>

#include "core/base/status_macros.h"

namespace coterie {

LookupDecoder::LookupDecoder(Session& session, absl::Span<const TokenId> prompt)
    : session_(session), lookup_(session.capacity_tokens()) {
  for (const TokenId token : prompt) lookup_.Append(token);
  proposal_.reserve(static_cast<size_t>(session.max_ahead()));
}

absl::Status LookupDecoder::Decode(TokenId token, int64_t n_more) {
  if (lookup_.match_length() > 0) {
    length_.NotePrediction(lookup_.match_length(), lookup_.next() == token);
  }
  lookup_.Append(token);
  if (session_.TakeAhead(token)) {
    length_.NoteTaken();
    ++n_taken_;
    return absl::OkStatus();
  }
  const bool is_alone = !session_.has_company();
  const int64_t most = is_alone ? std::min(session_.max_ahead(), n_more) : 0;
  proposal_.resize(static_cast<size_t>(length_.Choose(lookup_.match_length(), most)));
  lookup_.Propose(absl::MakeSpan(proposal_));
  const auto start = std::chrono::steady_clock::now();
  COTERIE_RETURN_IF_ERROR(session_.Decode(token, proposal_));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  n_proposed_ += session_.n_ahead();
  // Times of passes that others shared, or waited for, are not this sequence's own.
  if (is_alone && !session_.has_company()) length_.NotePass(1 + session_.n_ahead(), took.count());
  return absl::OkStatus();
}

}  // namespace coterie
