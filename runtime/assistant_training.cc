// How Assistant turns what users said of its answers into adapters.

#include <algorithm>
#include <iterator>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "lora/replay_source.h"
#include "runtime/assistant.h"
#include "runtime/open_interaction_log.h"
#include "runtime/training_ledger.h"

namespace coterie {
namespace {

constexpr char kAdapterSuffix[] = "-tuned";

// Of what a training makes.
std::string AdapterNameFor(const ExpertSpec& spec, const std::string& wanted) {
  if (!wanted.empty()) return wanted;
  return spec.adapter.empty() ? absl::StrCat(spec.name, kAdapterSuffix) : spec.adapter;
}

// The order in which interactions are learnt from.
void SortByTime(std::vector<Interaction>& interactions) {
  std::sort(interactions.begin(), interactions.end(),
            [](const Interaction& a, const Interaction& b) {
              return std::tie(a.time, a.id) < std::tie(b.time, b.id);
            });
}

}  // namespace

std::vector<std::string> Assistant::ExpertsBehind(const ExpertSpec& spec,
                                                  const std::string& adapter) const {
  std::set<std::string> names = {spec.name};
  if (!adapter.empty()) {
    names.insert(adapter);
    const AdapterStore& store = adapters_->store();
    const absl::StatusOr<int64_t> version = store.CurrentVersion(adapter);
    const absl::StatusOr<AdapterLedger> ledger =
        version.ok() ? store.Ledger(adapter, *version) : version.status();
    // One that was imported, or is not there yet, comes from nobody's.
    if (ledger.ok()) {
      for (std::string& name : ExpertsOf(*ledger)) names.insert(std::move(name));
    }
  }
  return {names.begin(), names.end()};
}

absl::StatusOr<std::vector<Interaction>> Assistant::InteractionsToLearnFrom(
    const std::vector<std::string>& experts) const {
  std::vector<Interaction> found;
  for (const std::string& expert : experts) {
    InteractionFilter filter;
    filter.expert = expert;
    filter.with_feedback = true;
    COTERIE_ASSIGN_OR_RETURN(std::vector<Interaction> some, interactions_->List(filter));
    std::move(some.begin(), some.end(), std::back_inserter(found));
  }
  SortByTime(found);
  return found;
}

absl::StatusOr<TrainingReport> Assistant::Train(const TrainingRequest& request,
                                                std::stop_token cancel) {
  if (interactions_ == nullptr) return NoInteractionLog(configuration_);
  const std::shared_ptr<const ExpertCatalog> catalog = Catalog();  // Holds the expert.
  COTERIE_ASSIGN_OR_RETURN(const ExpertSpec* spec, catalog->Find(request.expert));
  const std::string adapter = AdapterNameFor(*spec, request.adapter);
  COTERIE_ASSIGN_OR_RETURN(const std::vector<Interaction> interactions,
                           InteractionsToLearnFrom(ExpertsBehind(*spec, adapter)));
  TrainingRequest whole = request;
  if (whole.replay.empty()) whole.replay = configuration_.learning.replay;
  if (whole.episode_tokens == 0) whole.episode_tokens = configuration_.learning.retrieval_tokens;
  return TrainOn(interactions, adapter, whole, /*judge=*/true, std::move(cancel));
}

// What trains an adapter of this expert again: of those that stand for its interactions the first
// by name, as it was trained; else a new one.
TrainingRequest Assistant::RequestForIdle(const std::string& expert) const {
  const AdapterStore& store = adapters_->store();
  const absl::StatusOr<std::vector<AdapterSummary>> adapters = store.List();
  for (const AdapterSummary& adapter : adapters.ok() ? *adapters : std::vector<AdapterSummary>()) {
    const absl::StatusOr<AdapterLedger> ledger = store.Ledger(adapter.name, adapter.current);
    if (!ledger.ok()) continue;
    const std::vector<std::string> experts = ExpertsOf(*ledger);
    const bool is_its = adapter.name == expert ||
                        std::find(experts.begin(), experts.end(), expert) != experts.end();
    std::optional<TrainingRequest> request = RequestOf(*ledger, adapter.name);
    if (is_its && request.has_value()) return *std::move(request);
  }
  TrainingRequest request;
  request.expert = expert;
  return request;
}

void Assistant::TrainIfIdle() {
  const IdleTrainingOptions& options = configuration_.learning.idle;
  if (!options.enabled || interactions_ == nullptr || is_idle_training_) return;
  const absl::Duration idle_for = std::min(scheduler_.IdleFor(), absl::Now() - opened_);
  if (idle_for < options.idle || memory_is_short_) return;
  const int64_t change = interactions_->LastChange().value_or(0);
  if (change == idle_tried_change_) return;  // Nothing new since it was last tried.
  const auto counts = interactions_->NewFeedback();
  if (!counts.ok()) return;
  const std::string expert = ExpertToTrain(options, idle_for, OnAcPower(), *counts);
  if (expert.empty()) return;
  idle_tried_change_ = change;
  is_idle_training_ = true;
  idle_trainer_ = std::jthread([this, expert](std::stop_token stop) {
    TrainingRequest request = RequestForIdle(expert);
    request.n_report_cases = 0;  // Nobody reads it.
    const absl::StatusOr<TrainingReport> report = Train(request, stop);
    if (!absl::IsCancelled(report.status())) {
      Event event;
      event.kind = report.ok() ? "trained" : "training_failed";
      event.expert = expert;
      event.text = report.ok() ? absl::StrCat(report->adapter.empty() ? expert : report->adapter,
                                              ": ", report->result.gate.verdict)
                               : std::string(report.status().message());
      Tell(std::move(event));
    }
    is_idle_training_ = false;
  });
}

TrainingProgress Assistant::training_progress() const {
  MutexLock lock(mutex_);
  return training_progress_;
}

// Every version that was trained on the interaction goes; where the current one was, its training
// is done again without it, by the options and the seed of its ledger.
absl::Status Assistant::ForgetInAdapters(absl::string_view id, std::stop_token cancel) {
  AdapterStore& store = adapters_->store();
  COTERIE_ASSIGN_OR_RETURN(const std::vector<AdapterSummary> adapters, store.List());
  bool changed = false;
  for (const AdapterSummary& summary : adapters) {
    std::vector<int64_t> tainted;
    AdapterLedger current;
    for (const AdapterVersionSummary& version : summary.versions) {
      COTERIE_ASSIGN_OR_RETURN(const AdapterLedger ledger,
                               store.Ledger(summary.name, version.version));
      const std::vector<std::string>& ids = ledger.interactions;
      if (std::find(ids.begin(), ids.end(), id) == ids.end()) continue;
      tainted.push_back(version.version);
      if (version.version == summary.current) current = ledger;
    }
    if (tainted.empty()) continue;
    changed = true;
    if (!current.interactions.empty()) {
      COTERIE_RETURN_IF_ERROR(RetrainWithout(summary.name, current, id, cancel));
    }
    for (const int64_t version : tainted) {
      const absl::Status removed = store.RemoveVersion(summary.name, version);
      if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
    }
  }
  return changed ? ReloadAdapters() : absl::OkStatus();
}

absl::Status Assistant::RetrainWithout(const std::string& adapter, const AdapterLedger& ledger,
                                       absl::string_view id, std::stop_token cancel) {
  std::optional<TrainingRequest> request = RequestOf(ledger, adapter);
  std::vector<Interaction> rest;
  for (const std::string& other : ledger.interactions) {
    if (other == id) continue;
    absl::StatusOr<Interaction> interaction = interactions_->Get(other);
    if (interaction.ok()) rest.push_back(*std::move(interaction));
  }
  absl::Status status = absl::FailedPreconditionError("its ledger does not say how it was trained");
  if (request.has_value() && !rest.empty()) {
    SortByTime(rest);
    if (!ReplaySource::Open(request->replay).ok()) request->replay.clear();  // Gone since.
    status = TrainOn(rest, adapter, *request, /*judge=*/false, cancel).status();
  }
  // With nothing left to learn from, or no way to tell how, it goes with all its versions.
  if (!absl::IsFailedPrecondition(status)) return status;
  return adapters_->store().Remove(adapter);
}

}  // namespace coterie
