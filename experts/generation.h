#pragma once

#include <cstdint>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

#include "core/formats/chat_template.h"
#include "core/formats/tokenizer.h"
#include "experts/sampler.h"
#include "experts/session.h"

namespace coterie {

enum class FinishReason : uint8_t {
  kStop,       // The model ended its answer, or a stop string appeared.
  kLength,     // max_tokens were written.
  kContext,    // The session's capacity, and with it the model's context, is full.
  kCancelled,  // The caller asked for the end.
};
absl::string_view FinishReasonName(FinishReason reason);  // "stop", "length", ...

struct GenerationOptions {
  SamplingOptions sampling;
  int64_t max_tokens = 256;
  std::vector<std::string> stop;  // Strings that end the answer; they are not part of it.
  // Compute ahead what may repeat something of the conversation (experts/lookup_decoder.h), in a
  // session with room for it: the same answer, sooner.
  bool lookup = true;
};

struct TokenLogprobs {
  std::string text;  // Bytes of the token.
  float logprob = 0;
  std::vector<std::pair<std::string, float>> top;  // Most likely first.
};

struct Generation {
  std::string text;
  FinishReason finish_reason = FinishReason::kStop;
  int64_t n_prompt_tokens = 0;
  int64_t n_cached_tokens = 0;          // Of the prompt, which the session had already.
  int64_t n_tokens = 0;                 // Sampled, the closing token included.
  int64_t n_lookup_tokens = 0;          // Of those, computed ahead with one before.
  int64_t n_proposed_tokens = 0;        // Computed ahead, whether or not they came.
  std::vector<TokenId> tokens;          // Those sampled.
  std::vector<TokenLogprobs> logprobs;  // Only if asked for.
  absl::Duration prefill_time;
  absl::Duration first_token_time;  // From the start of the prefill to the first sampled token.
  absl::Duration decode_time;       // From the first sampled token to the last.

  // Tokens after the first one per second of decoding; 0 if there is at most one.
  double decode_tokens_per_second() const;
};

// Receives the answer piece by piece, only whole UTF-8 characters. Returning false cancels.
using TextSink = absl::FunctionRef<bool(absl::string_view piece)>;

// A conversation as tokens: through the expert's chat template, which writes the special tokens,
// or, for a base model without one, the messages' text joined by line ends. Text of messages never
// becomes a special token. kInvalidArgument for text that is not UTF-8, for no messages, and for a
// conversation that the template refuses.
// `instead` replaces the expert's own template if not null.
absl::StatusOr<Encoding> EncodeConversation(const Expert& expert,
                                            absl::Span<const Message> messages,
                                            const ChatTemplate* instead = nullptr);

// The same by tokenizer and template, which may be null. Without awaits_answer the conversation
// ends with its last message, as it does in training.
absl::StatusOr<Encoding> EncodeConversation(const Tokenizer& tokenizer,
                                            const ChatTemplate* chat_template,
                                            absl::Span<const Message> messages,
                                            bool awaits_answer = true);

// Brings the session to the prompt, of which it may hold a part from the first token on but not
// all, and writes an answer. A cancel is a result, not an error: the
// answer so far, with kCancelled. Errors are those of Session and Sampler.
absl::StatusOr<Generation> Generate(Session& session, absl::Span<const TokenId> prompt,
                                    const GenerationOptions& options, TextSink sink,
                                    std::stop_token cancel);

}  // namespace coterie
