#include "lora/adapter_config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "nlohmann/json.hpp"

#include "core/base/quote.h"
#include "core/base/status_macros.h"
#include "core/formats/json_file.h"

namespace coterie {
namespace {

using Json = nlohmann::json;

constexpr absl::string_view kModules[kLayerLinearCount] = {
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};
constexpr absl::string_view kLayers = "model.layers.";
constexpr size_t kMaxPatterns = 4096;

bool IsEmpty(const Json& value) {
  return value.is_null() || value == false || value == "" ||
         ((value.is_array() || value.is_object()) && value.empty());
}
bool IsAnything(const Json&) { return true; }
bool IsNone(const Json& value) { return value.is_null() || value == "none"; }
// Ways to begin that leave the base's weights as they are; the others move a part of them into the
// adapter, which then belongs to changed weights.
bool KeepsBase(const Json& value) {
  return value.is_boolean() || value.is_null() || value == "gaussian" || value == "eva" ||
         value == "orthogonal";
}
bool IsCausal(const Json& value) { return value.is_null() || value == "CAUSAL_LM"; }
bool IsLora(const Json& value) { return value == "LORA"; }

// Every field of PEFT 0.21, with the values that change nothing about what is computed here. Those
// that are read are allowed anything here and checked where they are read.
struct Field {
  absl::string_view name;
  bool (*is_allowed)(const Json& value);
  absl::string_view allowed;
};
constexpr Field kFields[] = {
    {"peft_type", IsLora, "\"LORA\""},
    {"task_type", IsCausal, "\"CAUSAL_LM\""},
    {"r", IsAnything, ""},
    {"lora_alpha", IsAnything, ""},
    {"use_rslora", IsAnything, ""},
    {"rank_pattern", IsAnything, ""},
    {"alpha_pattern", IsAnything, ""},
    {"target_modules", IsAnything, ""},
    {"layers_to_transform", IsAnything, ""},
    {"base_model_name_or_path", IsAnything, ""},
    // Said of training, or of the modules that PEFT made: the tensors say which there are.
    {"auto_mapping", IsAnything, ""},
    {"peft_version", IsAnything, ""},
    {"revision", IsAnything, ""},
    {"inference_mode", IsAnything, ""},
    {"lora_dropout", IsAnything, ""},
    {"exclude_modules", IsAnything, ""},
    {"layers_pattern", IsAnything, ""},
    {"megatron_core", IsAnything, ""},
    {"qalora_group_size", IsAnything, ""},
    {"runtime_config", IsAnything, ""},
    {"eva_config", IsAnything, ""},
    {"ensure_weight_tying", IsAnything, ""},
    {"init_lora_weights", KeepsBase, "true, false, \"gaussian\", \"eva\" or \"orthogonal\""},
    {"bias", IsNone, "\"none\""},
    // Empty or absent, as is every field that is not listed.
    {"fan_in_fan_out", IsEmpty, "false"},
    {"modules_to_save", IsEmpty, "null"},
    {"use_dora", IsEmpty, "false"},
    {"lora_bias", IsEmpty, "false"},
    {"alora_invocation_tokens", IsEmpty, "null"},
    {"use_qalora", IsEmpty, "false"},
    {"layer_replication", IsEmpty, "null"},
    {"target_parameters", IsEmpty, "null"},
    {"trainable_token_indices", IsEmpty, "null"},
    {"megatron_config", IsEmpty, "null"},
    {"loftq_config", IsEmpty, "{}"},
    {"corda_config", IsEmpty, "null"},
    {"lora_ga_config", IsEmpty, "null"},
    {"velora_config", IsEmpty, "null"},
    {"monteclora_config", IsEmpty, "null"},
    {"use_bdlora", IsEmpty, "false"},
    {"arrow_config", IsEmpty, "null"},
    {"kasa_config", IsEmpty, "null"},
};

const Field* FindField(absl::string_view name) {
  for (const Field& field : kFields) {
    if (field.name == name) return &field;
  }
  return nullptr;
}

absl::Status CheckFields(const Json& config, absl::string_view path) {
  for (const auto& [name, value] : config.items()) {
    const Field* field = FindField(name);
    if (field == nullptr ? IsEmpty(value) : field->is_allowed(value)) continue;
    std::string shown = value.dump(-1, ' ', true, Json::error_handler_t::replace);
    return absl::UnimplementedError(absl::StrCat(
        "the adapter uses what is not implemented: field=", Quote(name), ", value=", Quote(shown),
        ", allowed=", field == nullptr ? "null" : field->allowed, ", file=", path));
  }
  if (!config.contains("peft_type")) {
    return absl::DataLossError(absl::StrCat("it has no \"peft_type\": file=", path));
  }
  return absl::OkStatus();
}

}  // namespace

class AdapterConfigReader {
 public:
  AdapterConfigReader(const Json& json, AdapterConfig& config) : json_(json), config_(config) {}

  absl::Status Read() {
    COTERIE_ASSIGN_OR_RETURN(config_.rank_, Rank("r", Get("r")));
    COTERIE_ASSIGN_OR_RETURN(config_.alpha_, Alpha("lora_alpha", Get("lora_alpha")));
    const Json& rslora = Get("use_rslora");
    if (!rslora.is_null() && !rslora.is_boolean()) return Wrong("use_rslora", "true or false");
    config_.rslora_ = rslora == true;
    const Json& base = Get("base_model_name_or_path");
    if (!base.is_null() && !base.is_string()) return Wrong("base_model_name_or_path", "text");
    if (base.is_string()) config_.base_name_ = base.get<std::string>();
    COTERIE_RETURN_IF_ERROR(Patterns("rank_pattern", config_.rank_pattern_));
    COTERIE_RETURN_IF_ERROR(Patterns("alpha_pattern", config_.alpha_pattern_));
    COTERIE_RETURN_IF_ERROR(Targets());
    return Layers();
  }

 private:
  const Json& Get(const char* name) const {
    static const Json kNull;
    const auto found = json_.find(name);
    return found == json_.end() ? kNull : *found;
  }
  absl::Status Wrong(absl::string_view field, absl::string_view wanted) const {
    return absl::DataLossError(absl::StrCat("a field of the adapter is wrong: field=", Quote(field),
                                            ", wanted=", wanted, ", file=", config_.path_));
  }
  absl::StatusOr<double> Rank(absl::string_view field, const Json& value) const {
    if (!value.is_number_integer() || value < 1 || value > kMaxAdapterRank) {
      return Wrong(field, absl::StrCat("an integer from 1 to ", kMaxAdapterRank));
    }
    return value.get<double>();
  }
  absl::StatusOr<double> Alpha(absl::string_view field, const Json& value) const {
    if (!value.is_number() || !(std::fabs(value.get<double>()) <= 1e6)) {
      return Wrong(field, "a number of at most 1e6");
    }
    return value.get<double>();
  }
  absl::Status Patterns(const char* field, std::vector<AdapterConfig::Pattern>& patterns) const {
    const Json& table = Get(field);
    if (table.is_null()) return absl::OkStatus();
    if (!table.is_object() || table.size() > kMaxPatterns) {
      return Wrong(field, absl::StrCat("an object of at most ", kMaxPatterns, " patterns"));
    }
    for (const auto& [text, value] : table.items()) {
      absl::StatusOr<ModulePattern> matcher = ModulePattern::Parse(text);
      if (!matcher.ok()) {
        return absl::Status(
            matcher.status().code(),
            absl::StrCat(matcher.status().message(), ", field=", field, ", file=", config_.path_));
      }
      absl::StatusOr<double> number =
          absl::StartsWith(field, "rank") ? Rank(field, value) : Alpha(field, value);
      if (!number.ok()) return number.status();
      patterns.push_back({text, *std::move(matcher), *number});
    }
    return absl::OkStatus();
  }
  absl::Status Targets() const {
    const Json& targets = Get("target_modules");
    // A regular expression or "all-linear" says no more than the tensors do.
    if (targets.is_null() || targets.is_string()) return absl::OkStatus();
    if (!targets.is_array()) return Wrong("target_modules", "a list of names, or text");
    for (const Json& target : targets) {
      if (!target.is_string()) return Wrong("target_modules", "a list of names, or text");
      config_.targets_.push_back(target.get<std::string>());
    }
    return absl::OkStatus();
  }
  absl::Status Layers() const {
    const Json& layers = Get("layers_to_transform");
    if (layers.is_null()) return absl::OkStatus();
    const Json list = layers.is_array() ? layers : Json::array({layers});
    for (const Json& layer : list) {
      if (!layer.is_number_integer() || layer < 0 || layer > ArchSpec::kMaxLayers) {
        return Wrong("layers_to_transform", "numbers of layers");
      }
      config_.layers_.push_back(layer.get<int64_t>());
    }
    return absl::OkStatus();
  }

  const Json& json_;
  AdapterConfig& config_;
};

absl::StatusOr<AdapterConfig> AdapterConfig::Parse(absl::string_view json, absl::string_view path) {
  COTERIE_ASSIGN_OR_RETURN(const Json object, ParseJsonObject(json, path));
  COTERIE_RETURN_IF_ERROR(CheckFields(object, path));
  AdapterConfig config;
  config.path_ = std::string(path);
  COTERIE_RETURN_IF_ERROR(AdapterConfigReader(object, config).Read());
  return config;
}

absl::StatusOr<double> AdapterConfig::Resolve(const std::vector<Pattern>& patterns,
                                              double otherwise, absl::string_view what,
                                              absl::string_view module) const {
  // PEFT takes the first pattern that matches, in the order of the file, which JSON does not keep.
  const Pattern* found = nullptr;
  for (const Pattern& pattern : patterns) {
    if (!pattern.matcher.Matches(module)) continue;
    if (found != nullptr && found->value != pattern.value) {
      return absl::UnimplementedError(absl::StrCat(
          "two patterns give a module different values: field=", what, ", module=", module,
          ", patterns=", Quote(found->text), " and ", Quote(pattern.text), ", file=", path_));
    }
    found = &pattern;
  }
  return found == nullptr ? otherwise : found->value;
}

absl::Status AdapterConfig::CheckTargeted(absl::string_view module, int64_t layer) const {
  const auto names = [module](const std::string& target) {
    return module == target || absl::EndsWith(module, absl::StrCat(".", target));
  };
  const bool is_target = targets_.empty() || std::any_of(targets_.begin(), targets_.end(), names);
  const bool is_layer =
      layers_.empty() || std::find(layers_.begin(), layers_.end(), layer) != layers_.end();
  if (is_target && is_layer) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      "the file has matrices of a module that the configuration does not adapt: "
      "module=",
      module, ", field=", is_target ? "layers_to_transform" : "target_modules", ", file=", path_));
}

absl::StatusOr<float> AdapterConfig::ScaleOf(absl::string_view module, int64_t layer,
                                             int64_t rank) const {
  COTERIE_RETURN_IF_ERROR(CheckTargeted(module, layer));
  COTERIE_ASSIGN_OR_RETURN(const double stated,
                           Resolve(rank_pattern_, rank_, "rank_pattern", module));
  if (stated != static_cast<double>(rank)) {
    return absl::DataLossError(absl::StrCat(
        "the rank of a module is not that of its matrices: module=", module, ", rank=", stated,
        ", matrices have ", rank, ", field=rank_pattern, file=", path_));
  }
  COTERIE_ASSIGN_OR_RETURN(const double alpha,
                           Resolve(alpha_pattern_, alpha_, "alpha_pattern", module));
  return static_cast<float>(alpha / (rslora_ ? std::sqrt(stated) : stated));
}

std::string ModuleName(int64_t layer, LayerLinear linear) {
  return absl::StrCat(kLayers, layer, ".", kModules[static_cast<size_t>(linear)]);
}

bool ParseModuleName(absl::string_view module, int64_t& layer, LayerLinear& linear) {
  if (!absl::ConsumePrefix(&module, kLayers)) return false;
  const size_t dot = module.find('.');
  // "03" and "+3" are other names, which no module has.
  if (dot == absl::string_view::npos || !absl::SimpleAtoi(module.substr(0, dot), &layer) ||
      layer < 0 || layer >= ArchSpec::kMaxLayers || absl::StrCat(layer) != module.substr(0, dot)) {
    return false;
  }
  for (int i = 0; i < kLayerLinearCount; ++i) {
    linear = static_cast<LayerLinear>(i);
    if (kModules[i] == module.substr(dot + 1)) return true;
  }
  return false;
}

namespace {

double AlphaOf(const Adapter& adapter, const LinearDelta& delta) {
  const double rank = static_cast<double>(delta.rank);
  return static_cast<double>(delta.scale) * (adapter.rslora ? std::sqrt(rank) : rank);
}

// The value that most deltas have: the fewest are left for the patterns.
template <typename Of>
auto MostCommon(const std::vector<LinearDelta>& deltas, Of of) {
  std::map<decltype(of(deltas[0])), int> counts;
  for (const LinearDelta& delta : deltas) ++counts[of(delta)];
  return std::max_element(counts.begin(), counts.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; })
      ->first;
}

// The short names of the linear layers and the layers, where every such layer has all of them; else
// the modules' full names.
void SetTargets(const Adapter& adapter, Json& config) {
  std::set<int64_t> layers;
  std::set<std::string> kinds, modules;
  for (const LinearDelta& delta : adapter.deltas) {
    const absl::string_view kind = kModules[static_cast<size_t>(delta.linear)];
    layers.insert(delta.layer);
    kinds.emplace(kind.substr(kind.find('.') + 1));
    modules.insert(ModuleName(delta.layer, delta.linear));
  }
  const bool is_product = layers.size() * kinds.size() == modules.size();
  config["target_modules"] = is_product ? kinds : modules;
  config["layers_to_transform"] = is_product ? Json(layers) : Json();
}

}  // namespace

std::string AdapterConfigJson(const Adapter& adapter) {
  const int64_t rank = MostCommon(adapter.deltas, [](const LinearDelta& d) { return d.rank; });
  const double alpha =
      MostCommon(adapter.deltas, [&](const LinearDelta& d) { return AlphaOf(adapter, d); });
  Json config = {
      {"peft_type", "LORA"},
      {"task_type", "CAUSAL_LM"},
      {"base_model_name_or_path", adapter.base.name.empty() ? Json() : Json(adapter.base.name)},
      {"inference_mode", true},
      {"r", rank},
      {"lora_alpha", alpha},
      {"lora_dropout", 0.0},
      {"use_rslora", adapter.rslora},
      {"bias", "none"},
      {"fan_in_fan_out", false},
      {"init_lora_weights", true},
      {"rank_pattern", Json::object()},
      {"alpha_pattern", Json::object()}};
  SetTargets(adapter, config);
  for (const LinearDelta& delta : adapter.deltas) {
    const std::string module = ModuleName(delta.layer, delta.linear);
    if (delta.rank != rank) config["rank_pattern"][module] = delta.rank;
    if (AlphaOf(adapter, delta) != alpha) config["alpha_pattern"][module] = AlphaOf(adapter, delta);
  }
  return config.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace coterie
