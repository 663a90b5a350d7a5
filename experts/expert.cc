#include "experts/expert.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "experts/decoder.h"

namespace coterie {

absl::StatusOr<std::shared_ptr<const Expert>> Expert::Open(absl::string_view path) {
  COTERIE_ASSIGN_OR_RETURN(std::unique_ptr<const ModelFiles> files, ModelFiles::Open(path));
  return Open(std::move(files));
}

absl::StatusOr<std::shared_ptr<const Expert>> Expert::Open(
    std::unique_ptr<const ModelFiles> opened) {
  auto expert = std::shared_ptr<Expert>(new Expert());
  expert->files_ = std::move(opened);
  const ModelFiles& files = *expert->files_;
  COTERIE_ASSIGN_OR_RETURN(expert->spec_, files.ReadSpec());
  COTERIE_ASSIGN_OR_RETURN(expert->weights_, DecoderWeights::From(files, expert->spec_));
  COTERIE_ASSIGN_OR_RETURN(expert->tokenizer_, files.ReadTokenizer());
  if (expert->tokenizer_->n_vocab() > expert->spec_.n_vocab) {
    return absl::DataLossError(absl::StrCat(
        "the tokenizer has more tokens than token_embd.weight has rows: tokens=",
        expert->tokenizer_->n_vocab(), ", rows=", expert->spec_.n_vocab, ", file=", files.path()));
  }
  COTERIE_ASSIGN_OR_RETURN(const std::string chat_template, files.ReadChatTemplate());
  if (!chat_template.empty()) {
    COTERIE_ASSIGN_OR_RETURN(expert->chat_template_,
                             ChatTemplate::Parse(chat_template, files.path()));
  }
  return expert;
}

absl::Status Expert::Forward(absl::Span<const SequenceSlice> slices, Activations activations,
                             WorkerPool& pool, DecoderScratch& scratch,
                             const std::stop_token& cancel, HeadScreen* screen) const {
  int64_t n_rows = 0;
  int64_t n_logit_rows = 0;
  int64_t max_rank = 0;
  for (const SequenceSlice& slice : slices) {
    const int64_t n_tokens = static_cast<int64_t>(slice.tokens.size());
    if (n_tokens == 0) return absl::InvalidArgumentError("a slice has no tokens");
    for (const TokenId token : slice.tokens) {
      if (token < 0 || token >= spec_.n_vocab) {
        return absl::InvalidArgumentError(absl::StrCat(
            "token id is outside the vocabulary: id=", token, ", n_vocab=", spec_.n_vocab));
      }
    }
    if (n_tokens > slice.kv->capacity_tokens() - slice.kv->n_tokens()) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the KV cache is full: n_tokens=", slice.kv->n_tokens(), ", more=", n_tokens,
                       ", capacity=", slice.kv->capacity_tokens()));
    }
    if (slice.delta != nullptr && !slice.delta->Fits(spec_)) {
      return absl::InvalidArgumentError(
          absl::StrCat("the adapter is of another base: adapter=", slice.delta->version()));
    }
    if (slice.delta != nullptr) max_rank = std::max(max_rank, slice.delta->max_rank());
    n_rows += n_tokens;
    if (slice.logits == LogitRows::kAll) n_logit_rows += n_tokens;
    if (slice.logits == LogitRows::kLast) n_logit_rows += 1;
  }
  if (!scratch.Holds(n_rows, n_logit_rows) || max_rank > scratch.max_rank()) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the batch does not fit its scratch: rows=", n_rows, " of ", scratch.max_tokens(),
        ", logit rows=", n_logit_rows, " of ", scratch.max_logit_rows(),
        ", adapter rank=", max_rank, " of ", scratch.max_rank()));
  }
  CpuDecoder decoder(spec_, slices, activations, pool, scratch, screen);
  if (!RunDecoder(spec_, weights_, decoder, cancel)) {
    return absl::CancelledError("cancelled inside a forward pass");
  }
  return absl::OkStatus();
}

}  // namespace coterie
