#include "runtime/training_ledger.h"

#include "nlohmann/json.hpp"

namespace coterie {
namespace {

nlohmann::json TrainerJson(const TrainingRequest& request) {
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
          {"dropout", options.dropout},
          {"learning_rate", options.learning_rate},
          {"warmup_steps", options.warmup_steps},
          {"clip_norm", options.clip_norm},
          {"weight_decay", options.weight_decay},
          {"preference_beta", options.preference_beta},
          {"preference_weight", options.preference_weight},
          {"seed", options.seed},
          {"precision", std::string(PrecisionName(options.precision))},
          {"device", options.device},
          {"epochs", request.n_epochs},
          {"batch_examples", request.batch_examples},
          {"held_out_share", request.set.held_out_share},
          {"max_tokens", request.set.max_tokens},
          {"episode_share", request.episode_share},
          {"episode_tokens", request.episode_tokens},
          {"replay_share", request.replay_share},
          {"replay", request.replay}};
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
  request.expert = trainer.value("expert", "");
  TrainerOptions& options = request.options;
  options.rank = trainer.value("rank", options.rank);
  options.alpha = trainer.value("alpha", options.alpha);
  options.rslora = trainer.value("rslora", options.rslora);
  options.top_layers = trainer.value("top_layers", options.top_layers);
  options.dropout = trainer.value("dropout", options.dropout);
  options.learning_rate = trainer.value("learning_rate", options.learning_rate);
  options.warmup_steps = trainer.value("warmup_steps", options.warmup_steps);
  options.clip_norm = trainer.value("clip_norm", options.clip_norm);
  options.weight_decay = trainer.value("weight_decay", options.weight_decay);
  options.preference_beta = trainer.value("preference_beta", options.preference_beta);
  options.preference_weight = trainer.value("preference_weight", options.preference_weight);
  options.seed = trainer.value("seed", options.seed);
  options.precision = PrecisionFromName(trainer.value("precision", "")).value_or(options.precision);
  options.device = trainer.value("device", options.device);
  request.n_epochs = trainer.value("epochs", request.n_epochs);
  request.batch_examples = trainer.value("batch_examples", request.batch_examples);
  request.set.held_out_share = trainer.value("held_out_share", request.set.held_out_share);
  request.set.max_tokens = trainer.value("max_tokens", request.set.max_tokens);
  request.episode_share = trainer.value("episode_share", 0.0);  // Older ledgers: there were none.
  request.episode_tokens = trainer.value("episode_tokens", request.episode_tokens);
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

}  // namespace coterie
