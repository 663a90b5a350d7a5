#include "lora/shown_answers.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "lora/nearest.h"
#include "lora/stable_hash.h"
#include "lora/training_sequence.h"

namespace coterie {

ShownAnswers::ShownAnswers(absl::Span<const Interaction> interactions, const TrainingSet& set,
                           const Tokenizer& tokenizer, const ChatTemplate* chat_template,
                           const ShownAnswersOptions& options)
    : interactions_(interactions),
      set_(set),
      tokenizer_(tokenizer),
      template_(chat_template),
      options_(options) {
  std::set<std::string> taught;
  for (const TrainingExample& example : set.train) {
    if (example.objective != Objective::kDiscourage) taught.insert(example.id);
  }
  for (size_t i = 0; i < interactions.size(); ++i) {
    const Interaction& one = interactions[i];
    by_id_[one.id] = &one;
    if (taught.count(one.id) == 0) continue;
    texts_[SystemPromptOf(one.messages)].Add(static_cast<int64_t>(i), AskedText(one.messages));
  }
}

std::vector<Interaction> ShownAnswers::Nearest(const Interaction& one, size_t n) {
  std::vector<Interaction> found;
  const auto texts = texts_.find(SystemPromptOf(one.messages));
  if (texts == texts_.end() || n == 0) return found;
  std::set<std::string> seen = {AskedText(one.messages)};
  // More than are wanted: some are of one question.
  for (const auto& [key, similarity] : texts->second.Nearest(AskedText(one.messages), 4 * n + 1)) {
    const Interaction& other = interactions_[static_cast<size_t>(key)];
    if (similarity < NearestInteractions::kLeastSimilarity || found.size() == n) break;
    if (seen.insert(AskedText(other.messages)).second) found.push_back(other);
  }
  return found;
}

absl::StatusOr<ShownAnswers::Taught> ShownAnswers::Teach(const Interaction& one, size_t n,
                                                         bool teach_shown) {
  const std::string& wanted = WantedText(one);
  const bool ends = one.feedback.verdict == Verdict::kEdited || one.finish_reason == "stop";
  Taught taught;
  COTERIE_ASSIGN_OR_RETURN(taught.sequence,
                           TeachReply(tokenizer_, template_, one.messages, wanted, ends));
  const size_t most =
      taught.sequence.tokens.size() + static_cast<size_t>(options_.max_example_tokens);
  for (std::vector<Interaction> shown = Nearest(one, n); !shown.empty(); shown.pop_back()) {
    const std::vector<Message> messages = WithExamples(one.messages, shown);
    const size_t n_before =
        messages.size() - one.messages.size() + (SystemPromptOf(one.messages).empty() ? 0 : 1);
    absl::StatusOr<TrainingSequence> whole = TeachConversation(
        tokenizer_, template_, messages, wanted, ends, teach_shown ? n_before : 0);
    if (!whole.ok() || whole->tokens.size() > most) continue;
    taught.sequence = *std::move(whole);
    taught.n_shown = shown.size();
    break;
  }
  return taught;
}

absl::StatusOr<TrainingSequence> ShownAnswers::After(const std::string& id) {
  const auto one = by_id_.find(id);
  if (one == by_id_.end()) {
    return absl::NotFoundError(absl::StrCat("no such interaction to teach: id=", id));
  }
  COTERIE_ASSIGN_OR_RETURN(Taught taught,
                           Teach(*one->second, options_.n_examples, /*teach_shown=*/false));
  return std::move(taught.sequence);
}

std::map<size_t, Episode> ShownAnswers::Episodes(int64_t max_tokens, uint64_t seed) {
  std::map<size_t, Episode> episodes;
  for (size_t i = 0; i < set_.train.size(); ++i) {
    const TrainingExample& alone = set_.train[i];
    const auto one = by_id_.find(alone.id);
    if (alone.objective == Objective::kDiscourage || one == by_id_.end()) continue;
    const size_t n = StableHash(alone.id, seed) % (options_.n_examples + 1);
    absl::StatusOr<Taught> taught = Teach(*one->second, n, /*teach_shown=*/true);
    if (!taught.ok() || taught->n_shown == 0) continue;
    if (static_cast<int64_t>(taught->sequence.tokens.size()) > max_tokens) continue;
    Episode& episode = episodes[i];
    episode.example.id = alone.id;
    episode.example.weight = alone.weight;
    episode.example.sequence = std::move(taught->sequence);
    episode.n_answers = static_cast<int64_t>(taught->n_shown) + 1;
  }
  return episodes;
}

}  // namespace coterie
