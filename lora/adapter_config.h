#pragma once

// adapter_config.json of PEFT (huggingface/peft:src/peft/tuners/lora/config.py).

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "lora/adapter.h"
#include "lora/module_pattern.h"

namespace coterie {

// What the configuration says of the tensors beside it. Const after construction.
class AdapterConfig {
 public:
  // A field that would change what the adapter computes and is not implemented is kUnimplemented by
  // its name, and so is a field nobody has heard of unless it is null, false or empty. kDataLoss
  // for what is no such configuration. All messages name `path`.
  static absl::StatusOr<AdapterConfig> Parse(absl::string_view json, absl::string_view path);

  const std::string& base_name() const { return base_name_; }  // Empty: not said.
  bool rslora() const { return rslora_; }

  // alpha / rank, or alpha / sqrt(rank), of the module of this name ("model.layers.0.mlp.up_proj"),
  // whose matrices have `rank`. kDataLoss if the configuration gives it another rank or does not
  // target it; kUnimplemented if two patterns give it different values.
  absl::StatusOr<float> ScaleOf(absl::string_view module, int64_t layer, int64_t rank) const;

 private:
  struct Pattern {
    std::string text;
    ModulePattern matcher;
    double value;
  };

  absl::StatusOr<double> Resolve(const std::vector<Pattern>& patterns, double otherwise,
                                 absl::string_view what, absl::string_view module) const;
  absl::Status CheckTargeted(absl::string_view module, int64_t layer) const;

  friend class AdapterConfigReader;

  std::string path_;
  std::string base_name_;
  bool rslora_ = false;
  double rank_ = 0;
  double alpha_ = 0;
  std::vector<Pattern> rank_pattern_, alpha_pattern_;
  std::vector<std::string> targets_;  // Empty: a regular expression, which is not evaluated.
  std::vector<int64_t> layers_;       // layers_to_transform; empty: all.
};

// The configuration of an adapter, as PEFT reads it; the deltas are not empty.
std::string AdapterConfigJson(const Adapter& adapter);

// "model.layers.3.self_attn.q_proj", PEFT's name of a linear layer, and back.
std::string ModuleName(int64_t layer, LayerLinear linear);
bool ParseModuleName(absl::string_view module, int64_t& layer, LayerLinear& linear);

}  // namespace coterie
