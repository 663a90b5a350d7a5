#include "runtime/training_plan.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "lora/general_text.h"
#include "lora/rehearsal.h"
#include "lora/replay_source.h"
#include "lora/shown_answers.h"
#include "lora/training_sequence.h"

namespace coterie {
namespace {

// Passages to rehearse: those that are built in, and between them those of the user's file.
absl::StatusOr<std::vector<TrainingSequence>> ReplayPassages(const Tokenizer& tokenizer,
                                                             const std::string& file,
                                                             int64_t n_tokens, uint64_t seed) {
  constexpr int64_t kPassageTokens = 96;
  constexpr int64_t kLeastTokens = 24;  // Of nearly all of them.
  std::vector<std::vector<TrainingExample>> kinds;
  const auto add = [&](absl::StatusOr<ReplaySource> source) -> absl::Status {
    COTERIE_RETURN_IF_ERROR(source.status());
    COTERIE_ASSIGN_OR_RETURN(
        kinds.emplace_back(),
        source->Examples(tokenizer, 1 + n_tokens / kLeastTokens, kPassageTokens, seed));
    return absl::OkStatus();
  };
  COTERIE_RETURN_IF_ERROR(add(ReplaySource::FromText(GeneralText(), "built in")));
  if (!file.empty()) COTERIE_RETURN_IF_ERROR(add(ReplaySource::Open(file)));
  std::vector<TrainingSequence> passages;
  size_t longest = 0;
  for (const auto& examples : kinds) longest = std::max(longest, examples.size());
  for (size_t i = 0; i < longest; ++i) {
    for (std::vector<TrainingExample>& examples : kinds) {
      if (i < examples.size()) passages.push_back(std::move(examples[i].sequence));
    }
  }
  return passages;
}

// Of general text, in all epochs.
int64_t ReplayTokens(const AdapterTrainingPlan& plan) {
  if (!(plan.order.replay_share > 0)) return 0;
  int64_t n_tokens = 0;
  for (const TrainingExample& example : plan.material.examples) {
    n_tokens += static_cast<int64_t>(example.sequence.tokens.size()) * plan.order.n_epochs;
  }
  const double share = std::min(0.9, plan.order.replay_share);
  return static_cast<int64_t>(static_cast<double>(n_tokens) * share / (1 - share)) + 1;
}

absl::Status CheckShares(const TrainingRequest& request) {
  for (const auto& [name, share] : {std::pair("episode_share", request.episode_share),
                                    std::pair("replay_share", request.replay_share)}) {
    if (share >= 0 && share <= 1) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("a share is a number from 0 to 1: ", name, "=", share));
  }
  return absl::OkStatus();
}

absl::Status AddProbe(const Tokenizer& tokenizer, AdapterTrainingPlan& plan) {
  for (const absl::string_view passage : ProbePassages()) {
    COTERIE_ASSIGN_OR_RETURN(plan.probe.emplace_back(),
                             TeachText(tokenizer, passage, std::numeric_limits<int64_t>::max()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TrainingMaterial> PrepareTraining(const Expert& expert,
                                                 const ChatTemplate* chat_template,
                                                 absl::Span<const Interaction> interactions,
                                                 const TrainingRequest& request, WorkerPool& pool,
                                                 MemoryBudget& budget,
                                                 const std::stop_token& stop) {
  COTERIE_RETURN_IF_ERROR(CheckShares(request));
  TrainingMaterial material;
  TrainingSet& set = material.set;
  set = BuildTrainingSet(interactions, expert.tokenizer(), chat_template, request.set);
  if (set.train.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("there is no feedback to learn from yet: accept, edit or reject answers of ",
                     request.expert, " first, for example `coterie feedback last edit TEXT`"));
  }
  AdapterTrainingPlan& plan = material.plan;
  plan.material.examples = set.train;
  if (request.episode_share > 0) {
    ShownAnswersOptions shown;
    shown.max_example_tokens = request.episode_tokens;
    plan.material.episodes =
        ShownAnswers(interactions, set, expert.tokenizer(), chat_template, shown)
            .Episodes(request.set.max_tokens + request.episode_tokens, request.options.seed);
  }
  for (const TrainingExample& example : set.held_out) {
    if (example.objective != Objective::kDiscourage) plan.held_out.push_back(example.sequence);
  }
  plan.options = request.options;
  plan.order.n_epochs = request.n_epochs;
  plan.order.batch_examples = request.batch_examples;
  plan.order.episode_share = request.episode_share;
  plan.order.replay_share = request.replay_share;
  plan.order.seed = request.options.seed;
  plan.gate = request.gate;
  COTERIE_RETURN_IF_ERROR(AddProbe(expert.tokenizer(), plan));
  COTERIE_ASSIGN_OR_RETURN(
      const std::vector<TrainingSequence> passages,
      ReplayPassages(expert.tokenizer(), request.replay, ReplayTokens(plan), request.options.seed));
  COTERIE_ASSIGN_OR_RETURN(
      plan.material.replay,
      Rehearse(expert, passages, ReplayTokens(plan), request.options.seed, pool, budget, stop));
  return material;
}

}  // namespace coterie
