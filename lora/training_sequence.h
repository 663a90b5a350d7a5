#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "core/formats/chat_template.h"
#include "core/formats/tokenizer.h"
#include "lora/trainer.h"

namespace coterie {

// A conversation and the reply to it as tokens, exactly as they pass through the model when it
// answers: the prompt as it is served, then the reply. Targets are the tokens of the reply and, if
// it `ends` there, the token that closes a turn in this template (for a base model without one: the
// end of the text). Tokens of earlier answers are no targets; nothing follows the last target.
//   kInvalidArgument  no messages, text that is not UTF-8, a conversation that the template refuses
absl::StatusOr<TrainingSequence> TeachReply(const Tokenizer& tokenizer,
                                            const ChatTemplate* chat_template,
                                            absl::Span<const Message> messages,
                                            absl::string_view reply, bool ends);

// The same, of which the answers among the first `n_shown` messages are targets too, each as
// TeachReply teaches it after what stands before it. Where a template writes an earlier turn in
// another way than when it was answered, that answer is none.
absl::StatusOr<TrainingSequence> TeachConversation(const Tokenizer& tokenizer,
                                                   const ChatTemplate* chat_template,
                                                   absl::Span<const Message> messages,
                                                   absl::string_view reply, bool ends,
                                                   size_t n_shown);

// A text of which every token but the first is a target.
absl::StatusOr<TrainingSequence> TeachText(const Tokenizer& tokenizer, absl::string_view text,
                                           int64_t max_tokens);

}  // namespace coterie
