#include "lora/held_out_report.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "core/base/status_macros.h"
#include "lora/nearest.h"
#include "lora/nearest_texts.h"
#include "lora/served_check.h"
#include "lora/training_sequence.h"

namespace coterie {
namespace {

// The training part by what was asked, under each system prompt apart.
class TrainingPart {
 public:
  TrainingPart(absl::Span<const Interaction> interactions, const TrainingSet& set)
      : interactions_(interactions) {
    std::set<std::string> ids;
    for (const TrainingExample& example : set.train) {
      if (example.objective != Objective::kDiscourage) ids.insert(example.id);
    }
    for (size_t i = 0; i < interactions.size(); ++i) {
      if (ids.count(interactions[i].id) == 0) continue;
      texts_[SystemPromptOf(interactions[i].messages)].Add(static_cast<int64_t>(i),
                                                           AskedText(interactions[i].messages));
    }
  }

  // At most n, of different questions, nearest first.
  std::vector<Interaction> Nearest(const std::vector<Message>& messages, size_t n) {
    std::vector<Interaction> found;
    const auto texts = texts_.find(SystemPromptOf(messages));
    if (texts == texts_.end()) return found;
    std::set<std::string> shown;
    for (const auto& [key, similarity] : texts->second.Nearest(AskedText(messages), 4 * n)) {
      const Interaction& one = interactions_[static_cast<size_t>(key)];
      if (similarity < NearestInteractions::kLeastSimilarity || found.size() == n) break;
      if (shown.insert(AskedText(one.messages)).second) found.push_back(one);
    }
    return found;
  }

 private:
  absl::Span<const Interaction> interactions_;
  std::map<std::string, NearestTexts> texts_;
};

absl::StatusOr<HeldOutCase> MakeCase(const Interaction& one, TrainingPart& part,
                                     const Tokenizer& tokenizer, const ChatTemplate* chat_template,
                                     const HeldOutCaseOptions& options) {
  const auto teach = [&](const std::vector<Message>& messages) {
    return TeachReply(tokenizer, chat_template, messages, WantedText(one), /*ends=*/true);
  };
  HeldOutCase made;
  COTERIE_ASSIGN_OR_RETURN(made.plain, teach(one.messages));
  made.shown = made.plain;
  const int64_t most = static_cast<int64_t>(made.plain.tokens.size()) + options.max_example_tokens;
  std::vector<Interaction> examples = part.Nearest(one.messages, options.n_examples);
  for (; !examples.empty(); examples.pop_back()) {
    absl::StatusOr<TrainingSequence> shown = teach(WithExamples(one.messages, examples));
    if (!shown.ok() || static_cast<int64_t>(shown->tokens.size()) > most) continue;
    made.shown = *std::move(shown);
    break;
  }
  return made;
}

}  // namespace

std::vector<HeldOutCase> MakeHeldOutCases(absl::Span<const Interaction> interactions,
                                          const TrainingSet& set, const Tokenizer& tokenizer,
                                          const ChatTemplate* chat_template,
                                          const HeldOutCaseOptions& options) {
  TrainingPart part(interactions, set);
  std::map<std::string, const Interaction*> by_id;
  for (const Interaction& one : interactions) by_id[one.id] = &one;
  std::vector<HeldOutCase> cases;
  for (const TrainingExample& example : set.held_out) {
    if (cases.size() == options.max_cases) break;
    const auto one = by_id.find(example.id);
    if (example.objective == Objective::kDiscourage || one == by_id.end()) continue;
    absl::StatusOr<HeldOutCase> made =
        MakeCase(*one->second, part, tokenizer, chat_template, options);
    if (made.ok()) cases.push_back(*std::move(made));
  }
  return cases;
}

absl::StatusOr<HeldOutReport> MeasureHeldOut(const Expert& expert, const LinearDeltaSet& adapter,
                                             absl::Span<const HeldOutCase> cases, WorkerPool& pool,
                                             MemoryBudget& budget, const std::stop_token& stop) {
  HeldOutReport report;
  for (const HeldOutCase& one : cases) {
    for (const auto& [deltas, sequence, mean] :
         {std::tuple(static_cast<const LinearDeltaSet*>(nullptr), &one.plain, &report.base),
          std::tuple(static_cast<const LinearDeltaSet*>(nullptr), &one.shown,
                     &report.base_retrieval),
          std::tuple(&adapter, &one.plain, &report.adapter),
          std::tuple(&adapter, &one.shown, &report.adapter_retrieval)}) {
      COTERIE_ASSIGN_OR_RETURN(const Trainer::Likelihood likelihood,
                               AnsweredLikelihood(expert, deltas, *sequence, pool, budget, stop));
      *mean += likelihood.nll / static_cast<double>(std::max<int64_t>(1, likelihood.n_tokens)) /
               static_cast<double>(cases.size());
    }
  }
  report.n_cases = static_cast<int64_t>(cases.size());
  return report;
}

}  // namespace coterie
