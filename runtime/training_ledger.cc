#include "runtime/training_ledger.h"

#include "nlohmann/json.hpp"

namespace coterie {
namespace {

// Names and values of what training again needs, but for targets and precision: the one list that
// ledgers are written and read by. A request, const or not.
template <typename Request, typename Visit>
void VisitFields(Request& request, Visit visit) {
  auto& options = request.options;
  visit("expert", request.expert);
  visit("rank", options.rank);
  visit("alpha", options.alpha);
  visit("rslora", options.rslora);
  visit("top_layers", options.top_layers);
  visit("dropout", options.dropout);
  visit("learning_rate", options.learning_rate);
  visit("warmup_steps", options.warmup_steps);
  visit("clip_norm", options.clip_norm);
  visit("weight_decay", options.weight_decay);
  visit("preference_beta", options.preference_beta);
  visit("preference_weight", options.preference_weight);
  visit("seed", options.seed);
  visit("device", options.device);
  visit("epochs", request.n_epochs);
  visit("batch_examples", request.batch_examples);
  visit("held_out_share", request.set.held_out_share);
  visit("max_tokens", request.set.max_tokens);
  visit("episode_share", request.episode_share);
  visit("episode_tokens", request.episode_tokens);
  visit("replay_share", request.replay_share);
  visit("replay", request.replay);
}

nlohmann::json TrainerJson(const TrainingRequest& request) {
  nlohmann::json trainer;
  VisitFields(request, [&](const char* name, const auto& value) { trainer[name] = value; });
  trainer["precision"] = std::string(PrecisionName(request.options.precision));
  trainer["targets"] = nlohmann::json::array();
  for (const LayerLinear target : request.options.targets) {
    trainer["targets"].push_back(std::string(LayerLinearName(target)));
  }
  return trainer;
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

}  // namespace

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
  nlohmann::json trainer = TrainerJson(request);
  trainer["experts"] = ExpertsIn(interactions);
  ledger.trainer = trainer.dump();
  ledger.metrics = MetricsJson(report).dump();
  return ledger;
}

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

std::optional<TrainingRequest> RequestOf(const AdapterLedger& ledger, const std::string& adapter) {
  const auto trainer = nlohmann::json::parse(ledger.trainer, nullptr, /*allow_exceptions=*/false);
  if (!trainer.is_object()) return std::nullopt;
  TrainingRequest request;
  request.adapter = adapter;
  request.episode_share = 0;  // Older ledgers do not say: there were none.
  VisitFields(request, [&](const char* name, auto& value) { value = trainer.value(name, value); });
  TrainerOptions& options = request.options;
  options.precision = PrecisionFromName(trainer.value("precision", "")).value_or(options.precision);
  for (const std::string& name : trainer.value("targets", std::vector<std::string>())) {
    for (int i = 0; i < kLayerLinearCount; ++i) {
      const LayerLinear linear = static_cast<LayerLinear>(i);
      if (LayerLinearName(linear) == name) options.targets.push_back(linear);
    }
  }
  request.set.seed = options.seed;
  return request;
}

}  // namespace coterie
