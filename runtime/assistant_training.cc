// How Assistant turns what users said of its answers into adapters.

#include <algorithm>
#include <iterator>
#include <limits>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

#include "core/base/status_macros.h"
#include "lora/general_text.h"
#include "lora/rehearsal.h"
#include "lora/replay_source.h"
#include "lora/training_sequence.h"
#include "runtime/assistant.h"
#include "runtime/open_interaction_log.h"

namespace coterie {
namespace {

constexpr char kAdapterSuffix[] = "-tuned";

// Of what a training makes.
std::string AdapterNameFor(const ExpertSpec& spec, const std::string& wanted) {
  if (!wanted.empty()) return wanted;
  return spec.adapter.empty() ? absl::StrCat(spec.name, kAdapterSuffix) : spec.adapter;
}

// Whose interactions a ledger's version was trained from.
std::vector<std::string> ExpertsOf(const AdapterLedger& ledger) {
  const auto trainer = nlohmann::json::parse(ledger.trainer, nullptr, /*allow_exceptions=*/false);
  std::vector<std::string> experts;
  if (!trainer.is_object()) return experts;
  for (const char* key : {"expert", "experts"}) {
    const auto it = trainer.find(key);
    if (it == trainer.end()) continue;
    for (const nlohmann::json& name : it->is_array() ? *it : nlohmann::json::array({*it})) {
      if (name.is_string()) experts.push_back(name.get<std::string>());
    }
  }
  return experts;
}

// The order in which interactions are learnt from.
void SortByTime(std::vector<Interaction>& interactions) {
  std::sort(interactions.begin(), interactions.end(),
            [](const Interaction& a, const Interaction& b) {
              return std::tie(a.time, a.id) < std::tie(b.time, b.id);
            });
}

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
  if (!(plan.replay_share > 0)) return 0;
  int64_t n_tokens = 0;
  for (const TrainingExample& example : plan.examples) {
    n_tokens += static_cast<int64_t>(example.sequence.tokens.size()) * plan.n_epochs;
  }
  const double share = std::min(0.9, plan.replay_share);
  return static_cast<int64_t>(static_cast<double>(n_tokens) * share / (1 - share)) + 1;
}

absl::Status AddProbe(const Tokenizer& tokenizer, AdapterTrainingPlan& plan) {
  for (const absl::string_view passage : ProbePassages()) {
    COTERIE_ASSIGN_OR_RETURN(plan.probe.emplace_back(),
                             TeachText(tokenizer, passage, std::numeric_limits<int64_t>::max()));
  }
  return absl::OkStatus();
}

nlohmann::json TrainerJson(const TrainingRequest& request, bool is_bf16) {
  const TrainerOptions& options = request.options;
  nlohmann::json targets = nlohmann::json::array();
  for (const LayerLinear target : options.targets) {
    targets.push_back(std::string(LayerLinearName(target)));
  }
  return {{"expert", request.expert},
          {"rank", options.rank},
          {"alpha", options.alpha},
          {"rslora", options.rslora},
          {"targets", targets},
          {"top_layers", options.top_layers},
          {"learning_rate", options.learning_rate},
          {"weight_decay", options.weight_decay},
          {"preference_beta", options.preference_beta},
          {"preference_weight", options.preference_weight},
          {"seed", options.seed},
          {"precision", is_bf16 ? "bf16" : "f32"},  // As it was: bits depend on it.
          {"epochs", request.n_epochs},
          {"batch_examples", request.batch_examples},
          {"replay_share", request.replay_share},
          {"replay", request.replay}};
}

// What a ledger says an adapter was trained with.
TrainingRequest RequestFrom(const nlohmann::json& trainer, const std::string& adapter) {
  TrainingRequest request;
  request.adapter = adapter;
  request.expert = trainer.value("expert", "");
  TrainerOptions& options = request.options;
  options.rank = trainer.value("rank", options.rank);
  options.alpha = trainer.value("alpha", options.alpha);
  options.rslora = trainer.value("rslora", options.rslora);
  options.top_layers = trainer.value("top_layers", options.top_layers);
  options.learning_rate = trainer.value("learning_rate", options.learning_rate);
  options.weight_decay = trainer.value("weight_decay", options.weight_decay);
  options.preference_beta = trainer.value("preference_beta", options.preference_beta);
  options.preference_weight = trainer.value("preference_weight", options.preference_weight);
  options.seed = trainer.value("seed", options.seed);
  options.precision =
      trainer.value("precision", "") == "f32" ? TrainingPrecision::kF32 : TrainingPrecision::kBF16;
  request.n_epochs = trainer.value("epochs", request.n_epochs);
  request.batch_examples = trainer.value("batch_examples", request.batch_examples);
  request.replay_share = trainer.value("replay_share", request.replay_share);
  request.replay = trainer.value("replay", "");
  for (const std::string& name : trainer.value("targets", std::vector<std::string>())) {
    for (int i = 0; i < kLayerLinearCount; ++i) {
      const LayerLinear linear = static_cast<LayerLinear>(i);
      if (LayerLinearName(linear) == name) options.targets.push_back(linear);
    }
  }
  request.set.seed = options.seed;
  return request;
}

nlohmann::json MetricsJson(const TrainingReport& report) {
  const GateReport& gate = report.result.gate;
  return {{"examples", report.n_examples},
          {"held_out", report.n_held_out},
          {"verdict", gate.verdict},
          {"gain", gate.gain.mean},
          {"gain_low", gate.gain.low},
          {"gain_high", gate.gain.high},
          {"held_out_before", gate.held_out_before},
          {"held_out_after", gate.held_out_after},
          {"forgetting", gate.forgetting},
          {"seconds", report.result.seconds},
          {"tokens_per_second", report.result.tokens_per_second},
          {"served_difference", report.result.served_difference}};
}

std::set<std::string> ExpertsIn(absl::Span<const Interaction> interactions) {
  std::set<std::string> experts;
  for (const Interaction& one : interactions) experts.insert(one.expert);
  return experts;
}

AdapterLedger LedgerOf(const TrainingSet& set, absl::Span<const Interaction> interactions,
                       const TrainingRequest& request, const TrainingReport& report) {
  AdapterLedger ledger;
  // Held-out cases decided on the version: it stands for them too.
  std::set<std::string> ids;
  for (const auto* examples : {&set.train, &set.held_out}) {
    for (const TrainingExample& example : *examples) ids.insert(example.id);
  }
  ledger.interactions.assign(ids.begin(), ids.end());
  nlohmann::json trainer = TrainerJson(request, report.result.is_bf16);
  trainer["experts"] = ExpertsIn(interactions);
  ledger.trainer = trainer.dump();
  ledger.metrics = MetricsJson(report).dump();
  return ledger;
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
  return TrainOn(interactions, adapter, whole, /*judge=*/true, std::move(cancel));
}

// Trains on these interactions and publishes what the gate lets pass; without `judge`, whatever
// came out, because what it replaces has to go.
absl::StatusOr<TrainingReport> Assistant::TrainOn(absl::Span<const Interaction> interactions,
                                                  const std::string& adapter_name,
                                                  const TrainingRequest& request, bool judge,
                                                  std::stop_token cancel) {
  COTERIE_RETURN_IF_ERROR(CheckAdapterName(adapter_name));
  MutexLock one_at_a_time(training_mutex_);
  const std::shared_ptr<const ExpertCatalog> catalog = Catalog();
  COTERIE_ASSIGN_OR_RETURN(const ExpertSpec* spec, catalog->Find(request.expert));
  COTERIE_ASSIGN_OR_RETURN(const Lease lease,
                           cache_->Acquire({spec->base_id, 0, 0}, absl::InfiniteFuture(), cancel));
  const Expert& expert = static_cast<const Expert&>(lease.model());

  const auto it = templates_.find(spec->name);
  const ChatTemplate* chat_template =
      it != templates_.end() ? it->second.get() : expert.chat_template();
  TrainingSet set = BuildTrainingSet(interactions, expert.tokenizer(), chat_template, request.set);
  TrainingReport report;
  report.expert = request.expert;
  report.n_examples = static_cast<int64_t>(set.train.size());
  report.n_held_out = static_cast<int64_t>(set.held_out.size());
  report.left_out = set.left_out;
  if (set.train.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("there is no feedback to learn from yet: accept, edit or reject answers of ",
                     request.expert, " first, for example `coterie feedback last edit TEXT`"));
  }

  AdapterTrainingPlan plan;
  plan.examples = std::move(set.train);
  for (const TrainingExample& example : set.held_out) {
    if (example.objective != Objective::kDiscourage) plan.held_out.push_back(example.sequence);
  }
  COTERIE_RETURN_IF_ERROR(AddProbe(expert.tokenizer(), plan));
  plan.options = request.options;
  plan.n_epochs = request.n_epochs;
  plan.batch_examples = request.batch_examples;
  plan.replay_share = request.replay_share;
  COTERIE_ASSIGN_OR_RETURN(
      const std::vector<TrainingSequence> passages,
      ReplayPassages(expert.tokenizer(), request.replay, ReplayTokens(plan), request.options.seed));
  COTERIE_ASSIGN_OR_RETURN(plan.replay, Rehearse(expert, passages, ReplayTokens(plan),
                                                 request.options.seed, pool_, budget_, cancel));
  plan.gate = request.gate;
  plan.checkpoint_path = absl::StrCat(configuration_.home, "/training-", adapter_name, ".state");
  AdapterStore& store = adapters_->store();
  absl::StatusOr<StoredAdapter> incumbent = store.Current(adapter_name);
  if (incumbent.ok()) plan.incumbent = ServedDeltas(incumbent->adapter, expert.spec());

  COTERIE_ASSIGN_OR_RETURN(report.result, TrainAdapter(
                                              expert, pool_, budget_, plan,
                                              [this](const TrainingProgress& progress) {
                                                MutexLock lock(mutex_);
                                                training_progress_ = progress;
                                              },
                                              cancel));
  set.train = std::move(plan.examples);
  for (const std::string& name : judge ? ExpertsIn(interactions) : std::set<std::string>()) {
    COTERIE_RETURN_IF_ERROR(interactions_->MarkTrained(name, set.through_change));
  }
  std::vector<LinearDelta> deltas = std::exchange(report.result.deltas, {});
  if (judge && !report.result.gate.promote) return report;

  Adapter adapter;
  adapter.name = adapter_name;
  adapter.base = IdentityOf(expert, spec->base_id, spec->adapter.empty() ? spec->name : "");
  adapter.rslora = request.options.rslora;
  adapter.deltas = DeltasFromServed(std::move(deltas), expert.spec());
  const AdapterLedger ledger = LedgerOf(set, interactions, request, report);
  COTERIE_ASSIGN_OR_RETURN(const int64_t version, store.Publish(adapter, ledger));
  report.adapter = AdapterLabel(adapter_name, version);
  COTERIE_RETURN_IF_ERROR(interactions_->MarkInAdapter(ledger.interactions));
  COTERIE_RETURN_IF_ERROR(ReloadAdapters());
  return report;
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
  const auto trainer = nlohmann::json::parse(ledger.trainer, nullptr, /*allow_exceptions=*/false);
  std::vector<Interaction> rest;
  for (const std::string& other : ledger.interactions) {
    if (other == id) continue;
    absl::StatusOr<Interaction> interaction = interactions_->Get(other);
    if (interaction.ok()) rest.push_back(*std::move(interaction));
  }
  absl::Status status = absl::FailedPreconditionError("its ledger does not say how it was trained");
  if (trainer.is_object() && !rest.empty()) {
    SortByTime(rest);
    TrainingRequest request = RequestFrom(trainer, adapter);
    if (!ReplaySource::Open(request.replay).ok()) request.replay.clear();  // Gone since.
    status = TrainOn(rest, adapter, request, /*judge=*/false, cancel).status();
  }
  // With nothing left to learn from, or no way to tell how, it goes with all its versions.
  if (!absl::IsFailedPrecondition(status)) return status;
  return adapters_->store().Remove(adapter);
}

}  // namespace coterie
