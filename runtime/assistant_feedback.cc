// What an Assistant keeps of its answers, and what it learns from what the user says of them.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "core/base/quote.h"
#include "core/base/status_macros.h"
#include "runtime/assistant.h"
#include "runtime/open_interaction_log.h"

namespace coterie {
namespace {

// How far back "asked again" reaches.
constexpr int64_t kRecent = 50;

constexpr size_t kMaxExamples = 6;

}  // namespace

// Answering works without.
void Assistant::OpenInteractions() {
  if (!configuration_.learning.log) return;
  absl::StatusOr<std::unique_ptr<InteractionLog>> opened = OpenInteractionLog(configuration_);
  if (!opened.ok()) {
    problems_.push_back(
        absl::StrCat("answers are not logged (log = false under [learning] silences this): ",
                     opened.status().message()));
    return;
  }
  interactions_ = *std::move(opened);
  nearest_ = std::make_unique<NearestInteractions>(*interactions_, budget_);
  if (const absl::Status status = TeachRouter(); !status.ok()) {
    problems_.push_back(
        absl::StrCat("the router's corrections are not applied: ", status.message()));
  }
}

// What cannot be recalled is not shown; the answer does not depend on it.
std::vector<Interaction> Assistant::Recall(const Request& request, const ExpertSpec& spec) {
  if (nearest_ == nullptr || !request.retrieval.value_or(configuration_.learning.retrieval)) {
    return {};
  }
  const std::vector<Message> messages = MessagesFor(spec, request.messages);
  const std::vector<std::string> experts =
      ExpertsBehind(spec, request.adapter.value_or(spec.adapter));
  return nearest_->Find(experts, messages, kMaxExamples).value_or(std::vector<Interaction>());
}

void Assistant::Log(const Request& request, const ExpertSpec& spec, absl::Time start,
                    std::vector<Message> asked, const Reply& reply) {
  if (interactions_ == nullptr || !request.log) return;
  Interaction interaction;
  interaction.id = reply.id;
  interaction.time = start;
  interaction.conversation = request.conversation;
  interaction.messages = std::move(asked);
  interaction.reply = reply.generation.text;
  interaction.expert = spec.name;
  interaction.base = spec.base_id;
  interaction.adapter = reply.adapter;
  if (!reply.route.domains.ranked.empty()) {
    interaction.route.domain = reply.route.domains.ranked.front().domain;
    interaction.route.confidence = reply.route.domains.ranked.front().probability;
  }
  interaction.route.reason = reply.route.reason;
  interaction.finish_reason = std::string(FinishReasonName(reply.generation.finish_reason));
  const absl::Status status = interactions_->Append(interaction);
  if (status.ok() || told_of_log_.exchange(true)) return;
  Event event;
  event.kind = "log_failed";
  event.expert = spec.name;
  event.text = absl::StrCat("this answer could not be logged: ", status.message());
  Tell(std::move(event));
}

// The domain that a prompt belongs to, if the user asked an expert by name what the router had
// given to another: the likeliest in which this expert is the one to ask. Empty if there is none.
absl::StatusOr<std::string> Assistant::ImpliedDomain(const Interaction& interaction) const {
  if (!interaction.route.domain.empty()) return "";  // The router chose it.
  const std::string& asked = AskedText(interaction.messages);
  COTERIE_ASSIGN_OR_RETURN(const std::vector<Interaction> recent,
                           interactions_->List({.newest_first = true, .limit = kRecent}));
  const auto earlier = std::find_if(recent.begin(), recent.end(), [&](const Interaction& other) {
    return other.time < interaction.time && !other.route.domain.empty() &&
           other.expert != interaction.expert && AskedText(other.messages) == asked;
  });
  if (earlier == recent.end()) return "";
  COTERIE_ASSIGN_OR_RETURN(const DomainScores scores, router_->Current()->Classify(asked));
  const ExpertTable table = BuildExpertTables(cache_->Snapshot()).answering;
  for (const Score& score : scores.ranked) {
    DomainScores certain;
    certain.ranked = {{score.domain, 1.0}};
    const absl::StatusOr<Choice> choice = Dispatch(certain, table, {}, {}, configuration_.dispatch);
    if (choice.ok() && choice->expert == interaction.expert) return score.domain;
  }
  return "";
}

absl::Status Assistant::GiveFeedback(absl::string_view id, Feedback feedback) {
  if (interactions_ == nullptr) return NoInteractionLog(configuration_);
  if (!feedback.domain.empty()) {
    const std::vector<std::string> domains = router_->Current()->domains();
    if (std::find(domains.begin(), domains.end(), feedback.domain) == domains.end()) {
      return absl::InvalidArgumentError(absl::StrCat("the router has no domain ",
                                                     Quote(feedback.domain),
                                                     "; it knows: ", absl::StrJoin(domains, ", ")));
    }
  } else if (feedback.verdict == Verdict::kAccepted || feedback.verdict == Verdict::kEdited) {
    COTERIE_ASSIGN_OR_RETURN(const Interaction interaction, interactions_->Get(id));
    COTERIE_ASSIGN_OR_RETURN(feedback.domain, ImpliedDomain(interaction));
  }
  COTERIE_RETURN_IF_ERROR(interactions_->SetFeedback(id, std::move(feedback)).status());
  if (configuration_.learning.retrieval) (void)nearest_->Refresh();  // Else when it is next asked.
  return TeachRouter();
}

absl::Status Assistant::Forget(absl::string_view id, std::stop_token cancel) {
  if (interactions_ == nullptr) return NoInteractionLog(configuration_);
  const absl::Status erased = interactions_->Forget(id);
  // Erased before, perhaps by a call that was cancelled: adapters may still hold it.
  if (!erased.ok() && !absl::IsNotFound(erased)) return erased;
  COTERIE_RETURN_IF_ERROR(prefixes_.Forget());
  COTERIE_RETURN_IF_ERROR(ForgetInAdapters(id, std::move(cancel)));
  COTERIE_RETURN_IF_ERROR(erased);
  return TeachRouter();
}

absl::Status Assistant::TeachRouter() {
  COTERIE_ASSIGN_OR_RETURN(const int64_t change, interactions_->LastChange());
  if (change == taught_change_) return absl::OkStatus();
  COTERIE_ASSIGN_OR_RETURN(
      std::vector<Interaction> corrected,
      interactions_->List({.with_domain = true,
                           .newest_first = true,
                           .limit = static_cast<int64_t>(TaughtRouter::kMaxPrompts)}));
  std::reverse(corrected.begin(), corrected.end());
  std::stable_sort(corrected.begin(), corrected.end(),
                   [](const Interaction& a, const Interaction& b) { return a.change < b.change; });
  std::vector<TaughtPrompt> prompts;
  for (const Interaction& one : corrected) {
    prompts.push_back({one.id, one.change, AskedText(one.messages), one.feedback.domain});
  }
  taught_change_ = change;
  return router_->Teach(std::move(prompts));
}

}  // namespace coterie
