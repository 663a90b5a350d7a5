// ArchSpec from a Hugging Face config.json (transformers: configuration_llama.py and so on, of
// versions 4 and 5, which keep RoPE in different places).

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/quote.h"
#include "core/base/status_macros.h"
#include "core/formats/json_file.h"
#include "experts/arch_spec.h"

namespace coterie {
namespace {

using Json = nlohmann::json;

// Fields of one JSON object. A field that is null counts as absent, as in transformers.
class FieldReader {
 public:
  FieldReader(const Json& object, absl::string_view path) : object_(object), path_(path) {}

  const Json* Find(absl::string_view name) const {
    const auto it = object_.find(std::string(name));
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  absl::Status Int(absl::string_view name, int64_t& value) const {
    const Json* const field = Find(name);
    if (field == nullptr) return Missing(name);
    if (!field->is_number_integer()) return Wrong(name, "an integer");
    if (field->is_number_unsigned() && field->get<uint64_t>() > uint64_t{1} << 62) {
      return Wrong(name, "an integer below 2^62");
    }
    value = field->get<int64_t>();
    return absl::OkStatus();
  }
  absl::Status Extent(absl::string_view name, int64_t max, int64_t& value) const {
    COTERIE_RETURN_IF_ERROR(Int(name, value));
    if (value >= 1 && value <= max) return absl::OkStatus();
    return Wrong(name, absl::StrCat("in 1..", max));
  }
  absl::Status ExtentOr(absl::string_view name, int64_t max, int64_t fallback,
                        int64_t& value) const {
    value = fallback;
    return Find(name) == nullptr ? absl::OkStatus() : Extent(name, max, value);
  }
  // A scale, a base or an epsilon.
  absl::Status FactorOr(absl::string_view name, double fallback, float& value) const {
    const Json* const field = Find(name);
    if (field != nullptr && !field->is_number()) return Wrong(name, "a number");
    const double wide = field == nullptr ? fallback : field->get<double>();
    if (!ArchSpec::IsSoundFactor(wide)) return Wrong(name, "a positive number in range");
    value = static_cast<float>(wide);
    return absl::OkStatus();
  }
  absl::Status TextOr(absl::string_view name, std::string fallback, std::string& value) const {
    const Json* const field = Find(name);
    if (field != nullptr && !field->is_string()) return Wrong(name, "text");
    value = field == nullptr ? std::move(fallback) : field->get<std::string>();
    return absl::OkStatus();
  }
  bool IsTrue(absl::string_view name) const {
    const Json* const field = Find(name);
    return field != nullptr && *field == true;
  }

  absl::Status Missing(absl::string_view name) const {
    return absl::DataLossError(
        absl::StrCat("model description lacks a field: field=", name, ", file=", path_));
  }
  absl::Status Wrong(absl::string_view name, absl::string_view wanted) const {
    return absl::DataLossError(absl::StrCat("model description has a field that is not ", wanted,
                                            ": field=", name, ", file=", path_));
  }
  absl::Status Unsupported(absl::string_view name) const {
    const Json* const field = Find(name);
    std::string value;
    if (field != nullptr) {
      value = field->is_string() ? field->get<std::string>()
                                 : field->dump(-1, ' ', true, Json::error_handler_t::replace);
    }
    return absl::UnimplementedError(absl::StrCat(
        "model has a property that is not supported: ", name, "=", Quote(value), ", file=", path_));
  }
  absl::string_view path() const { return path_; }

 private:
  const Json& object_;
  absl::string_view path_;
};

absl::StatusOr<std::string> ReadArchitecture(const FieldReader& fields) {
  std::string type;
  COTERIE_RETURN_IF_ERROR(fields.TextOr("model_type", "", type));
  if (type == "llama" || type == "qwen2") return type;
  if (type == "gemma3_text") return std::string("gemma3");
  return absl::UnimplementedError(absl::StrCat(
      "architecture is not supported (model_type llama, qwen2 and gemma3_text are): model_type=",
      Quote(type), ", file=", fields.path()));
}

absl::Status ReadDimensions(const FieldReader& fields, ArchSpec& spec) {
  constexpr int64_t kMaxExtent = ArchSpec::kMaxExtent;
  COTERIE_RETURN_IF_ERROR(fields.Extent("num_hidden_layers", ArchSpec::kMaxLayers, spec.n_layers));
  COTERIE_RETURN_IF_ERROR(fields.Extent("hidden_size", kMaxExtent, spec.d_model));
  COTERIE_RETURN_IF_ERROR(fields.Extent("intermediate_size", kMaxExtent, spec.d_ff));
  COTERIE_RETURN_IF_ERROR(fields.Extent("num_attention_heads", ArchSpec::kMaxHeads, spec.n_heads));
  COTERIE_RETURN_IF_ERROR(
      fields.ExtentOr("num_key_value_heads", ArchSpec::kMaxHeads, spec.n_heads, spec.n_kv_heads));
  COTERIE_RETURN_IF_ERROR(fields.ExtentOr("head_dim", ArchSpec::kMaxHeadDim,
                                          spec.d_model / spec.n_heads, spec.head_dim));
  COTERIE_RETURN_IF_ERROR(
      fields.Extent("max_position_embeddings", ArchSpec::kMaxContextTokens, spec.context_tokens));
  COTERIE_RETURN_IF_ERROR(fields.Extent("vocab_size", int64_t{1} << 24, spec.n_vocab));
  if (spec.head_dim < 1) return fields.Wrong("num_attention_heads", "at most hidden_size");
  spec.rope_dims = spec.head_dim;
  spec.query_scale = 1 / std::sqrt(static_cast<float>(spec.head_dim));
  return fields.FactorOr("rms_norm_eps", 1e-6, spec.norm_epsilon);
}

// Llama 3 stretches long waves only: pairs that turn fewer than low_freq_factor times within the
// original context by `factor`, those over high_freq_factor times not, the ones between gradually
// (transformers: modeling_rope_utils.py).
absl::Status ReadLlama3Divisors(const FieldReader& fields, int64_t n_pairs, RopeAngles& angles) {
  float factor = 0, low = 0, high = 0, original = 0;
  COTERIE_RETURN_IF_ERROR(fields.FactorOr("factor", 8, factor));
  COTERIE_RETURN_IF_ERROR(fields.FactorOr("low_freq_factor", 1, low));
  COTERIE_RETURN_IF_ERROR(fields.FactorOr("high_freq_factor", 4, high));
  COTERIE_RETURN_IF_ERROR(fields.FactorOr("original_max_position_embeddings", 8192, original));
  if (high <= low) return fields.Wrong("high_freq_factor", "larger than low_freq_factor");
  for (int64_t i = 0; i < n_pairs; ++i) {
    const double exponent = static_cast<double>(i) / static_cast<double>(n_pairs);
    const double wave = 2 * M_PI * std::pow(static_cast<double>(angles.base), exponent);
    const double turns = original / wave;
    const double share = std::min(1.0, std::max(0.0, (turns - low) / (high - low)));
    angles.divisors.push_back(static_cast<float>(1 / ((1 - share) / factor + share)));
  }
  return absl::OkStatus();
}

absl::Status ReadScaling(const FieldReader& fields, int64_t n_pairs, RopeAngles& angles) {
  std::string type;
  COTERIE_RETURN_IF_ERROR(fields.TextOr("type", "default", type));
  COTERIE_RETURN_IF_ERROR(fields.TextOr("rope_type", type, type));
  if (type == "default") return absl::OkStatus();
  if (type == "llama3") return ReadLlama3Divisors(fields, n_pairs, angles);
  if (type != "linear") {
    return absl::UnimplementedError(absl::StrCat(
        "RoPE scaling is not supported (default, linear and llama3 are): scaling=", Quote(type),
        ", file=", fields.path()));
  }
  float factor = 1;
  COTERIE_RETURN_IF_ERROR(fields.FactorOr("factor", 1, factor));
  angles.position_scale = 1 / factor;
  return absl::OkStatus();
}

// Version 5 has one object with base and scaling; gemma3 has one for each kind of layer in it.
absl::Status ReadAngles(const FieldReader& parameters, double base, int64_t n_pairs,
                        RopeAngles& angles) {
  COTERIE_RETURN_IF_ERROR(parameters.FactorOr("rope_theta", base, angles.base));
  return ReadScaling(parameters, n_pairs, angles);
}

absl::Status ReadRope(const FieldReader& fields, double base, ArchSpec& spec) {
  const int64_t n_pairs = spec.rope_dims / 2;
  float rotated = 1;
  COTERIE_RETURN_IF_ERROR(fields.FactorOr("partial_rotary_factor", 1, rotated));
  if (rotated != 1) return fields.Unsupported("partial_rotary_factor");
  COTERIE_RETURN_IF_ERROR(
      fields.FactorOr("rope_local_base_freq", 10000, spec.window_rope_angles.base));
  if (const Json* const parameters = fields.Find("rope_parameters")) {
    if (!parameters->is_object()) return fields.Wrong("rope_parameters", "an object");
    const FieldReader all(*parameters, fields.path());
    const Json* const full = all.Find("full_attention");
    if (full == nullptr) return ReadAngles(all, base, n_pairs, spec.rope_angles);
    const Json* const sliding = all.Find("sliding_attention");
    if (!full->is_object() || sliding == nullptr || !sliding->is_object()) {
      return fields.Wrong("rope_parameters", "one object for each kind of layer");
    }
    COTERIE_RETURN_IF_ERROR(
        ReadAngles(FieldReader(*full, fields.path()), base, n_pairs, spec.rope_angles));
    return ReadAngles(FieldReader(*sliding, fields.path()), 10000, n_pairs,
                      spec.window_rope_angles);
  }
  COTERIE_RETURN_IF_ERROR(fields.FactorOr("rope_theta", base, spec.rope_angles.base));
  const Json* const scaling = fields.Find("rope_scaling");
  if (scaling == nullptr) return absl::OkStatus();
  if (!scaling->is_object()) return fields.Wrong("rope_scaling", "an object");
  return ReadScaling(FieldReader(*scaling, fields.path()), n_pairs, spec.rope_angles);
}

absl::Status ReadWindows(const FieldReader& fields, ArchSpec& spec) {
  COTERIE_RETURN_IF_ERROR(
      fields.ExtentOr("sliding_window", ArchSpec::kMaxContextTokens, 0, spec.window));
  if (const Json* const types = fields.Find("layer_types")) {
    if (!types->is_array()) return fields.Wrong("layer_types", "a list");
    for (const Json& type : *types) {
      if (type != "sliding_attention" && type != "full_attention") {
        return fields.Wrong("layer_types", "a list of sliding_attention and full_attention");
      }
      spec.windowed.push_back(type == "sliding_attention");
    }
    return absl::OkStatus();
  }
  if (spec.window == 0) return absl::OkStatus();
  int64_t period = 0;
  COTERIE_RETURN_IF_ERROR(
      fields.ExtentOr("_sliding_window_pattern", ArchSpec::kMaxLayers, 6, period));
  COTERIE_RETURN_IF_ERROR(
      fields.ExtentOr("sliding_window_pattern", ArchSpec::kMaxLayers, period, period));
  for (int64_t layer = 1; layer <= spec.n_layers; ++layer) {
    spec.windowed.push_back(layer % period != 0);
  }
  return absl::OkStatus();
}

absl::Status ReadGemma(const FieldReader& fields, ArchSpec& spec) {
  for (const char* const name :
       {"attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention"}) {
    const Json* const field = fields.Find(name);
    if (field != nullptr && *field != false) return fields.Unsupported(name);
  }
  spec.norm_offset = 1;
  spec.embedding_scale = std::sqrt(static_cast<float>(spec.d_model));
  float scalar = 0;
  COTERIE_RETURN_IF_ERROR(fields.FactorOr("query_pre_attn_scalar", 256, scalar));
  spec.query_scale = 1 / std::sqrt(scalar);
  COTERIE_RETURN_IF_ERROR(ReadRope(fields, 1e6, spec));
  return ReadWindows(fields, spec);
}

absl::Status CheckActivation(const FieldReader& fields, const ArchSpec& spec) {
  const bool is_gemma = spec.gating == Gating::kGeluTanh;
  const absl::string_view name = is_gemma ? "hidden_activation" : "hidden_act";
  const std::string wanted = is_gemma ? "gelu_pytorch_tanh" : "silu";
  std::string activation;
  COTERIE_RETURN_IF_ERROR(fields.TextOr(name, wanted, activation));
  return activation == wanted ? absl::OkStatus() : fields.Unsupported(name);
}

}  // namespace

absl::StatusOr<ArchSpec> ArchSpec::FromHuggingFace(absl::string_view config_json,
                                                   absl::string_view path) {
  COTERIE_ASSIGN_OR_RETURN(const Json config, ParseJsonObject(config_json, path));
  const FieldReader fields(config, path);
  COTERIE_ASSIGN_OR_RETURN(const std::string architecture, ReadArchitecture(fields));
  COTERIE_ASSIGN_OR_RETURN(ArchSpec spec, ForArchitecture(architecture, path));
  if (fields.Find("quantization_config") != nullptr) {
    return fields.Unsupported("quantization_config");
  }
  if (fields.IsTrue("use_sliding_window")) return fields.Unsupported("use_sliding_window");
  COTERIE_RETURN_IF_ERROR(CheckActivation(fields, spec));
  COTERIE_RETURN_IF_ERROR(ReadDimensions(fields, spec));
  if (architecture == "gemma3") {
    COTERIE_RETURN_IF_ERROR(ReadGemma(fields, spec));
  } else {
    COTERIE_RETURN_IF_ERROR(ReadRope(fields, 10000, spec));
  }
  COTERIE_RETURN_IF_ERROR(spec.CheckConsistency(path));
  return spec;
}

}  // namespace coterie
