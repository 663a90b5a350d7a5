#include "experts/arch_spec.h"

#include <cmath>

#include "absl/strings/str_cat.h"

#include "core/base/quote.h"
#include "core/base/status_macros.h"

namespace coterie {
namespace {

// Bounds far above any model meant for one machine; they keep products of extents within int64.
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxExtent = 1 << 20;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxContextTokens = 1 << 24;

// Reads the keys "ARCHITECTURE.*" of one file.
class KeyReader {
 public:
  KeyReader(const GgufFile& file, absl::string_view architecture)
      : file_(file), prefix_(absl::StrCat(architecture, ".")) {}

  std::string Key(absl::string_view name) const { return absl::StrCat(prefix_, name); }
  bool Has(absl::string_view name) const { return file_.Has(Key(name)); }

  absl::Status Extent(absl::string_view name, int64_t max, int64_t& value) const {
    COTERIE_ASSIGN_OR_RETURN(value, file_.GetInt(Key(name)));
    if (value < 1 || value > max) {
      return absl::DataLossError(absl::StrCat("model description is out of range: key=", Key(name),
                                              ", value=", value, ", allowed=1..", max,
                                              ", file=", file_.path()));
    }
    return absl::OkStatus();
  }

  absl::Status ExtentOr(absl::string_view name, int64_t max, int64_t fallback,
                        int64_t& value) const {
    if (Has(name)) return Extent(name, max, value);
    value = fallback;
    return absl::OkStatus();
  }

  absl::Status PositiveFloat(absl::string_view name, double fallback, float& value) const {
    COTERIE_ASSIGN_OR_RETURN(const double wide, file_.GetFloat(Key(name), fallback));
    // As a float it must be neither zero nor infinite.
    if (!(wide >= 1e-30 && wide <= 1e30)) {
      return absl::DataLossError(absl::StrCat("model description is out of range: key=", Key(name),
                                              ", value=", wide, ", file=", file_.path()));
    }
    value = static_cast<float>(wide);
    return absl::OkStatus();
  }

 private:
  const GgufFile& file_;
  std::string prefix_;
};

absl::Status ReadRope(const GgufFile& file, const KeyReader& keys, ArchSpec& spec) {
  COTERIE_RETURN_IF_ERROR(keys.PositiveFloat("rope.freq_base", 10000, spec.rope_base));
  COTERIE_RETURN_IF_ERROR(
      keys.ExtentOr("rope.dimension_count", spec.head_dim, spec.head_dim, spec.rope_dims));
  COTERIE_ASSIGN_OR_RETURN(const absl::string_view scaling,
                           file.GetString(keys.Key("rope.scaling.type"), "none"));
  if (scaling == "linear") {
    float factor = 1;
    COTERIE_RETURN_IF_ERROR(keys.PositiveFloat("rope.scaling.factor", 1, factor));
    spec.rope_position_scale = 1 / factor;
  } else if (scaling != "none") {
    return absl::UnimplementedError(absl::StrCat(
        "RoPE scaling is not supported (none and linear are): scaling=", Quote(scaling),
        ", file=", file.path()));
  }
  return absl::OkStatus();
}

absl::Status CheckConsistency(const GgufFile& file, const ArchSpec& spec) {
  absl::string_view problem;
  if (spec.n_heads % spec.n_kv_heads != 0) problem = "heads are no multiple of KV heads";
  if (spec.head_dim % 2 != 0 || spec.rope_dims % 2 != 0) problem = "a head has an odd size";
  if (spec.d_model % 32 != 0 || spec.d_ff % 32 != 0 || spec.d_q() % 32 != 0) {
    problem = "a width is no multiple of 32";
  }
  if (problem.empty()) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      "model description contradicts itself: ", problem, ": d_model=", spec.d_model,
      ", d_ff=", spec.d_ff, ", n_heads=", spec.n_heads, ", n_kv_heads=", spec.n_kv_heads,
      ", head_dim=", spec.head_dim, ", rope_dims=", spec.rope_dims, ", file=", file.path()));
}

}  // namespace

absl::StatusOr<ArchSpec> ArchSpec::FromGguf(const GgufFile& file) {
  ArchSpec spec;
  COTERIE_ASSIGN_OR_RETURN(const absl::string_view architecture,
                           file.GetString("general.architecture"));
  spec.architecture = std::string(architecture);
  if (architecture == "llama") {
    spec.rope = RopeKind::kAdjacent;
  } else if (architecture == "qwen2") {
    spec.rope = RopeKind::kHalves;
  } else {
    return absl::UnimplementedError(absl::StrCat(
        "architecture is not supported (llama and qwen2 are): architecture=", Quote(architecture),
        ", file=", file.path()));
  }
  const KeyReader keys(file, architecture);
  if (keys.Has("expert_count")) {
    COTERIE_ASSIGN_OR_RETURN(const int64_t n_experts, file.GetInt(keys.Key("expert_count")));
    if (n_experts > 0) {
      return absl::UnimplementedError(absl::StrCat(
          "models with experts inside a layer are not supported: expert_count=", n_experts,
          ", file=", file.path()));
    }
  }
  COTERIE_RETURN_IF_ERROR(keys.Extent("block_count", kMaxLayers, spec.n_layers));
  COTERIE_RETURN_IF_ERROR(keys.Extent("embedding_length", kMaxExtent, spec.d_model));
  COTERIE_RETURN_IF_ERROR(keys.Extent("feed_forward_length", kMaxExtent, spec.d_ff));
  COTERIE_RETURN_IF_ERROR(keys.Extent("attention.head_count", kMaxHeads, spec.n_heads));
  COTERIE_RETURN_IF_ERROR(
      keys.ExtentOr("attention.head_count_kv", kMaxHeads, spec.n_heads, spec.n_kv_heads));
  COTERIE_RETURN_IF_ERROR(
      keys.ExtentOr("attention.key_length", 4096, spec.d_model / spec.n_heads, spec.head_dim));
  int64_t value_dim = 0;
  COTERIE_RETURN_IF_ERROR(keys.ExtentOr("attention.value_length", 4096, spec.head_dim, value_dim));
  if (value_dim != spec.head_dim || spec.head_dim < 1) {
    return absl::UnimplementedError(absl::StrCat(
        "keys and values of different sizes are not supported: key_length=", spec.head_dim,
        ", value_length=", value_dim, ", file=", file.path()));
  }
  COTERIE_RETURN_IF_ERROR(keys.Extent("context_length", kMaxContextTokens, spec.context_tokens));
  COTERIE_RETURN_IF_ERROR(
      keys.PositiveFloat("attention.layer_norm_rms_epsilon", 1e-5, spec.norm_epsilon));
  COTERIE_RETURN_IF_ERROR(ReadRope(file, keys, spec));
  // The embedding says how many tokens there are; "vocab_size" is often absent.
  COTERIE_ASSIGN_OR_RETURN(const TensorRef embedding, file.Find("token_embd.weight"));
  spec.n_vocab = embedding.matrix().n_rows;
  COTERIE_RETURN_IF_ERROR(CheckConsistency(file, spec));
  return spec;
}

}  // namespace coterie
