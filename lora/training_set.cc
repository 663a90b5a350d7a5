#include "lora/training_set.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

#include "core/base/edit_distance.h"
#include "core/base/random_bits.h"
#include "core/base/status_macros.h"
#include "lora/stable_hash.h"
#include "lora/training_sequence.h"

namespace coterie {
namespace {

constexpr size_t kMaxCompared = 2000;

const std::string& FirstQuestion(const Interaction& interaction) {
  for (const Message& message : interaction.messages) {
    if (message.role == "user") return message.content;
  }
  return AskedText(interaction.messages);
}

// Which interactions are one conversation: union-find over what they have in common.
class Conversations {
 public:
  explicit Conversations(absl::Span<const Interaction> interactions)
      : parent_(interactions.size()) {
    std::iota(parent_.begin(), parent_.end(), size_t{0});
    std::map<std::string, size_t> seen;
    for (size_t i = 0; i < interactions.size(); ++i) {
      const Interaction& one = interactions[i];
      std::vector<std::string> keys = {
          absl::StrCat("text:", NormalisedText(FirstQuestion(one))),
          absl::StrCat("text:", NormalisedText(AskedText(one.messages)))};
      if (!one.conversation.empty()) keys.push_back(absl::StrCat("name:", one.conversation));
      for (std::string& key : keys) {
        const auto [it, is_new] = seen.try_emplace(std::move(key), i);
        if (!is_new) Join(it->second, i);
      }
    }
  }

  // The oldest interaction of this one's conversation.
  size_t Oldest(size_t i) {
    while (parent_[i] != i) i = parent_[i] = parent_[parent_[i]];
    return i;
  }

 private:
  void Join(size_t a, size_t b) {
    a = Oldest(a), b = Oldest(b);
    parent_[std::max(a, b)] = std::min(a, b);
  }

  std::vector<size_t> parent_;
};

// Examples of one interaction, or why there are none.
class ExampleMaker {
 public:
  ExampleMaker(const Tokenizer& tokenizer, const ChatTemplate* chat_template,
               const TrainingSetOptions& options)
      : tokenizer_(tokenizer), template_(chat_template), options_(options) {}

  absl::StatusOr<std::vector<TrainingExample>> Make(const Interaction& interaction) const {
    const bool ended = interaction.finish_reason == "stop";
    absl::StatusOr<TrainingSequence> reply = Teach(interaction.messages, interaction.reply, ended);
    if (interaction.feedback.verdict == Verdict::kEdited) {
      return MakeOfEdit(interaction, std::move(reply));
    }
    COTERIE_RETURN_IF_ERROR(reply.status());
    if (!HasTargets(*reply)) return absl::InvalidArgumentError("the reply is empty");
    const bool accepted = interaction.feedback.verdict == Verdict::kAccepted;
    TrainingExample example;
    example.id = interaction.id;
    example.objective = accepted ? Objective::kImitate : Objective::kDiscourage;
    example.sequence = *std::move(reply);
    example.weight = accepted ? options_.accepted_weight : options_.rejected_weight;
    return std::vector<TrainingExample>{std::move(example)};
  }

 private:
  // Of a reply that is too long, or empty, the edit alone is learned.
  absl::StatusOr<std::vector<TrainingExample>> MakeOfEdit(
      const Interaction& interaction, absl::StatusOr<TrainingSequence> reply) const {
    const std::string& edit = interaction.feedback.text;
    TrainingExample example;
    example.id = interaction.id;
    example.weight = options_.edited_weight;
    COTERIE_ASSIGN_OR_RETURN(example.sequence, Teach(interaction.messages, edit, /*ends=*/true));
    if (reply.ok() && HasTargets(*reply)) {
      example.objective = Objective::kPrefer;
      example.instead = *std::move(reply);
      example.preference = static_cast<float>(EditShare(interaction.reply, edit));
    }
    return std::vector<TrainingExample>{std::move(example)};
  }

  static bool HasTargets(const TrainingSequence& sequence) {
    return std::find(sequence.is_target.begin(), sequence.is_target.end(), true) !=
           sequence.is_target.end();
  }

  absl::StatusOr<TrainingSequence> Teach(const std::vector<Message>& messages,
                                         const std::string& reply, bool ends) const {
    COTERIE_ASSIGN_OR_RETURN(TrainingSequence sequence,
                             TeachReply(tokenizer_, template_, messages, reply, ends));
    const int64_t n_tokens = static_cast<int64_t>(sequence.tokens.size());
    if (n_tokens <= options_.max_tokens) return sequence;
    return absl::OutOfRangeError(absl::StrCat("longer than a training sequence may be: tokens=",
                                              n_tokens, ", allowed=", options_.max_tokens));
  }

  const Tokenizer& tokenizer_;
  const ChatTemplate* template_;
  const TrainingSetOptions& options_;
};

void Order(std::vector<TrainingExample>& examples, uint64_t seed) {
  const auto key = [seed](const TrainingExample& example) {
    return std::make_tuple(StableHash(example.id, seed), absl::string_view(example.id),
                           example.objective);
  };
  std::sort(examples.begin(), examples.end(),
            [&](const TrainingExample& a, const TrainingExample& b) { return key(a) < key(b); });
}

}  // namespace

std::string NormalisedText(absl::string_view text) {
  std::string normal;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (absl::ascii_isdigit(byte)) {
      if (normal.empty() || normal.back() != '0') normal += '0';
    } else if (absl::ascii_isalpha(byte) || byte >= 0x80) {
      normal += absl::ascii_tolower(byte);
    } else if (!normal.empty() && normal.back() != ' ') {
      normal += ' ';
    }
  }
  if (!normal.empty() && normal.back() == ' ') normal.pop_back();
  return normal;
}

double EditShare(absl::string_view before, absl::string_view after) {
  const size_t longer = std::max(before.size(), after.size());
  if (longer == 0) return 0;
  while (!before.empty() && !after.empty() && before.front() == after.front()) {
    before.remove_prefix(1), after.remove_prefix(1);
  }
  while (!before.empty() && !after.empty() && before.back() == after.back()) {
    before.remove_suffix(1), after.remove_suffix(1);
  }
  const size_t left = std::max(before.size(), after.size());
  if (left == 0) return 0;
  const absl::string_view a = before.substr(0, kMaxCompared), b = after.substr(0, kMaxCompared);
  const double share_of_left =
      static_cast<double>(EditDistance(a, b)) / static_cast<double>(std::max(a.size(), b.size()));
  return share_of_left * static_cast<double>(left) / static_cast<double>(longer);
}

TrainingSet BuildTrainingSet(absl::Span<const Interaction> interactions, const Tokenizer& tokenizer,
                             const ChatTemplate* chat_template, const TrainingSetOptions& options) {
  TrainingSet set;
  Conversations conversations(interactions);
  const ExampleMaker maker(tokenizer, chat_template, options);
  std::vector<size_t> latest_first;
  for (size_t i = 0; i < interactions.size(); ++i) {
    set.through_change = std::max(set.through_change, interactions[i].change);
    if (interactions[i].feedback.verdict != Verdict::kNone) latest_first.push_back(i);
  }
  std::stable_sort(latest_first.begin(), latest_first.end(), [&](size_t a, size_t b) {
    return interactions[a].change > interactions[b].change;
  });
  std::set<std::vector<TokenId>> taught;
  for (const size_t i : latest_first) {
    const Interaction& one = interactions[i];
    absl::StatusOr<std::vector<TrainingExample>> examples = maker.Make(one);
    if (!examples.ok()) {
      set.left_out.push_back({one.id, std::string(examples.status().message())});
      continue;
    }
    if (!taught.insert(examples->front().sequence.tokens).second) {
      set.left_out.push_back({one.id, "later feedback is about the same answer"});
      continue;
    }
    const std::string& began = FirstQuestion(interactions[conversations.Oldest(i)]);
    const double place = UnitInterval(StableHash(NormalisedText(began)));
    auto& side = place < options.held_out_share ? set.held_out : set.train;
    std::move(examples->begin(), examples->end(), std::back_inserter(side));
  }
  Order(set.train, options.seed);
  Order(set.held_out, options.seed);
  return set;
}

}  // namespace coterie
