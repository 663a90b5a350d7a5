#include "experts/generation.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "core/base/status_macros.h"
#include "experts/lookup_decoder.h"
#include "experts/stop_matcher.h"

namespace coterie {
namespace {

// What a base model without a template reads: the messages' texts, one after another.
std::vector<TextPiece> PlainPieces(absl::Span<const Message> messages) {
  std::vector<TextPiece> pieces;
  for (const Message& message : messages) {
    if (!pieces.empty()) pieces.back().text += "\n";
    pieces.push_back({message.content, /*trusted=*/false, RoleFromName(message.role)});
  }
  return pieces;
}

std::string TokenText(const Tokenizer& tokenizer, TokenId token) {
  const TokenId ids[] = {token};
  return tokenizer.Decode(ids);
}

// Writes one answer: samples, decodes and hands text on until something ends it.
class Writer {
 public:
  Writer(Session& session, const GenerationOptions& options, Sampler sampler, StopMatcher stop,
         TextSink sink, std::stop_token cancel)
      : session_(session),
        options_(options),
        sink_(sink),
        cancel_(std::move(cancel)),
        tokenizer_(session.expert().tokenizer()),
        sampler_(std::move(sampler)),
        stop_(std::move(stop)) {}

  absl::StatusOr<Generation> Write(absl::Span<const TokenId> prompt) {
    const absl::Time start = absl::Now();
    session_.Want({sampler_.n_decisive(), tokenizer_.n_vocab()});
    result_.n_prompt_tokens = static_cast<int64_t>(prompt.size());
    result_.n_cached_tokens = session_.n_tokens();
    absl::Status status =
        session_.Prefill(prompt.subspan(static_cast<size_t>(session_.n_tokens())), cancel_);
    result_.prefill_time = absl::Now() - start;
    if (absl::IsCancelled(status)) {
      result_.finish_reason = FinishReason::kCancelled;
      return std::move(result_);
    }
    COTERIE_RETURN_IF_ERROR(status);
    sampler_.Observe(prompt);
    if (options_.lookup && session_.max_ahead() > 0) lookup_.emplace(session_, prompt);
    COTERIE_ASSIGN_OR_RETURN(result_.finish_reason, Continue(start));
    if (lookup_) {
      result_.n_lookup_tokens = lookup_->n_taken();
      result_.n_proposed_tokens = lookup_->n_proposed();
    }
    Emit(stop_.Flush());
    result_.decode_time = absl::Now() - start - result_.first_token_time;
    return std::move(result_);
  }

 private:
  absl::StatusOr<FinishReason> Continue(absl::Time start) {
    while (true) {
      if (cancelled_ || cancel_.stop_requested()) return FinishReason::kCancelled;
      if (result_.n_tokens >= options_.max_tokens) return FinishReason::kLength;
      COTERIE_ASSIGN_OR_RETURN(const SampledToken sampled, sampler_.Sample(Drawable()));
      if (result_.n_tokens++ == 0) result_.first_token_time = absl::Now() - start;
      result_.tokens.push_back(sampled.id);
      if (tokenizer_.IsEndOfGeneration(sampled.id)) return FinishReason::kStop;
      if (options_.sampling.n_logprobs >= 0) KeepLogprobs(sampled);
      bytes_.clear();
      tokenizer_.AppendBytes(sampled.id, /*is_first=*/result_.n_tokens == 1, &bytes_);
      Emit(stop_.Append(bytes_));
      if (stop_.stopped()) return FinishReason::kStop;
      if (result_.n_tokens >= options_.max_tokens) return FinishReason::kLength;
      if (session_.n_tokens() == session_.capacity_tokens()) return FinishReason::kContext;
      COTERIE_RETURN_IF_ERROR(Append(sampled.id));
    }
  }

  absl::Status Append(TokenId token) {
    if (!lookup_) return session_.Decode(token);
    // The last token drawn is not appended any more.
    return lookup_->Decode(token, options_.max_tokens - result_.n_tokens - 1);
  }

  // Embeddings may have more rows than the tokenizer has tokens: what has no text cannot be drawn.
  absl::Span<const float> Drawable() const {
    return session_.logits().first(static_cast<size_t>(tokenizer_.n_vocab()));
  }

  void Emit(const std::string& text) {
    if (text.empty()) return;
    result_.text += text;
    if (!sink_(text)) cancelled_ = true;
  }

  void KeepLogprobs(const SampledToken& sampled) {
    TokenLogprobs kept{TokenText(tokenizer_, sampled.id), sampled.logprob, {}};
    for (const auto& [id, logprob] : sampled.top) {
      kept.top.emplace_back(TokenText(tokenizer_, id), logprob);
    }
    result_.logprobs.push_back(std::move(kept));
  }

  Session& session_;
  const GenerationOptions& options_;
  TextSink sink_;
  const std::stop_token cancel_;
  const Tokenizer& tokenizer_;
  Sampler sampler_;
  StopMatcher stop_;
  std::optional<LookupDecoder> lookup_;
  std::string bytes_;  // Of the last token.
  bool cancelled_ = false;
  Generation result_;
};

}  // namespace

absl::string_view FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kContext:
      return "context";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

double Generation::decode_tokens_per_second() const {
  const double seconds = absl::ToDoubleSeconds(decode_time);
  return n_tokens > 1 && seconds > 0 ? static_cast<double>(n_tokens - 1) / seconds : 0;
}

absl::StatusOr<Encoding> EncodeConversation(const Expert& expert,
                                            absl::Span<const Message> messages,
                                            const ChatTemplate* instead) {
  return EncodeConversation(expert.tokenizer(),
                            instead != nullptr ? instead : expert.chat_template(), messages);
}

absl::StatusOr<Encoding> EncodeConversation(const Tokenizer& tokenizer,
                                            const ChatTemplate* chat_template,
                                            absl::Span<const Message> messages,
                                            bool awaits_answer) {
  if (messages.empty()) return absl::InvalidArgumentError("a conversation needs a message");
  if (chat_template == nullptr) {
    return tokenizer.Encode(PlainPieces(messages), EncodeOptions{.add_special = true});
  }
  RenderOptions options;
  options.add_generation_prompt = awaits_answer;
  if (tokenizer.bos()) options.bos_token = TokenText(tokenizer, *tokenizer.bos());
  if (tokenizer.eos()) options.eos_token = TokenText(tokenizer, *tokenizer.eos());
  COTERIE_ASSIGN_OR_RETURN(const std::vector<TextPiece> pieces,
                           chat_template->Render(messages, options));
  // The template writes the special tokens itself.
  return tokenizer.Encode(pieces, EncodeOptions{.add_special = false});
}

absl::StatusOr<Generation> Generate(Session& session, absl::Span<const TokenId> prompt,
                                    const GenerationOptions& options, TextSink sink,
                                    std::stop_token cancel) {
  if (options.max_tokens < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_tokens is negative: max_tokens=", options.max_tokens));
  }
  if (session.n_tokens() > static_cast<int64_t>(prompt.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("the session holds more than the prompt: n_tokens=", session.n_tokens(),
                     ", prompt_tokens=", prompt.size()));
  }
  COTERIE_ASSIGN_OR_RETURN(
      Sampler sampler, Sampler::Create(options.sampling, session.expert().tokenizer().n_vocab()));
  COTERIE_ASSIGN_OR_RETURN(StopMatcher stop, StopMatcher::Create(options.stop));
  return Writer(session, options, std::move(sampler), std::move(stop), sink, std::move(cancel))
      .Write(prompt);
}

}  // namespace coterie
