#include "lora/training_sequence.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/base/status_macros.h"
#include "experts/generation.h"

namespace coterie {
namespace {

bool IsPrefix(const std::vector<TokenId>& prefix, const std::vector<TokenId>& ids) {
  return prefix.size() <= ids.size() && std::equal(prefix.begin(), prefix.end(), ids.begin());
}

// The token that closes the last turn: the first end of generation that comes after the prompt. The
// reply's own text never becomes one.
std::optional<size_t> ClosingToken(const Tokenizer& tokenizer, const std::vector<TokenId>& ids,
                                   size_t begin) {
  for (size_t i = begin; i < ids.size(); ++i) {
    if (tokenizer.IsEndOfGeneration(ids[i])) return i;
  }
  return std::nullopt;
}

TrainingSequence Joined(std::vector<TokenId> prompt, absl::Span<const TokenId> reply,
                        std::optional<TokenId> closing) {
  TrainingSequence sequence;
  sequence.is_target.resize(prompt.size(), false);
  sequence.tokens = std::move(prompt);
  sequence.tokens.insert(sequence.tokens.end(), reply.begin(), reply.end());
  if (closing) sequence.tokens.push_back(*closing);
  sequence.is_target.resize(sequence.tokens.size(), true);
  return sequence;
}

}  // namespace

absl::StatusOr<TrainingSequence> TeachReply(const Tokenizer& tokenizer,
                                            const ChatTemplate* chat_template,
                                            absl::Span<const Message> messages,
                                            absl::string_view reply, bool ends) {
  COTERIE_ASSIGN_OR_RETURN(Encoding prompt, EncodeConversation(tokenizer, chat_template, messages));
  const size_t n_prompt = prompt.ids.size();
  std::optional<TokenId> closing = tokenizer.eos();
  if (chat_template != nullptr) {
    std::vector<Message> whole(messages.begin(), messages.end());
    whole.push_back({"assistant", std::string(reply), ""});
    COTERIE_ASSIGN_OR_RETURN(
        const Encoding full,
        EncodeConversation(tokenizer, chat_template, whole, /*awaits_answer=*/false));
    const bool is_prefix = IsPrefix(prompt.ids, full.ids);
    const auto end = ClosingToken(tokenizer, full.ids, std::min(n_prompt, full.ids.size()));
    if (end) closing = full.ids[*end];
    if (is_prefix && end) {
      const auto rest = absl::MakeConstSpan(full.ids).subspan(n_prompt, *end - n_prompt);
      return Joined(std::move(prompt.ids), rest, ends ? closing : std::nullopt);
    }
  }
  // Without a template a reply continues the prompt's text, and where the end of a prompt would
  // melt with the reply's first letters, they do not when it is written token by token.
  const TextPiece piece{std::string(reply), /*trusted=*/false, Role::kAssistant};
  COTERIE_ASSIGN_OR_RETURN(const Encoding written,
                           tokenizer.Encode({&piece, 1}, EncodeOptions{.add_special = false}));
  return Joined(std::move(prompt.ids), written.ids, ends ? closing : std::nullopt);
}

absl::StatusOr<TrainingSequence> TeachConversation(const Tokenizer& tokenizer,
                                                   const ChatTemplate* chat_template,
                                                   absl::Span<const Message> messages,
                                                   absl::string_view reply, bool ends,
                                                   size_t n_shown) {
  COTERIE_ASSIGN_OR_RETURN(TrainingSequence whole,
                           TeachReply(tokenizer, chat_template, messages, reply, ends));
  for (size_t i = 0; i < std::min(n_shown, messages.size()); ++i) {
    if (messages[i].role != "assistant") continue;
    const absl::StatusOr<TrainingSequence> earlier =
        TeachReply(tokenizer, chat_template, messages.first(i), messages[i].content, /*ends=*/true);
    if (!earlier.ok() || !IsPrefix(earlier->tokens, whole.tokens)) continue;
    for (size_t t = 0; t < earlier->tokens.size(); ++t) {
      if (earlier->is_target[t]) whole.is_target[t] = true;
    }
  }
  return whole;
}

absl::StatusOr<TrainingSequence> TeachText(const Tokenizer& tokenizer, absl::string_view text,
                                           int64_t max_tokens) {
  COTERIE_ASSIGN_OR_RETURN(std::vector<TokenId> ids,
                           tokenizer.Encode(text, /*add_special=*/true, /*parse_special=*/false));
  if (static_cast<int64_t>(ids.size()) > max_tokens) ids.resize(static_cast<size_t>(max_tokens));
  TrainingSequence sequence;
  sequence.is_target.resize(ids.size(), true);
  if (!ids.empty()) sequence.is_target[0] = false;
  sequence.tokens = std::move(ids);
  return sequence;
}

}  // namespace coterie
