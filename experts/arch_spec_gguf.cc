// ArchSpec from the keys of a GGUF file (llama.cpp:src/llama-arch.cpp names them).

#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "core/base/quote.h"
#include "core/base/status_macros.h"
#include "experts/arch_spec.h"

namespace coterie {
namespace {

// Of gemma3, where the file does not say otherwise: five layers with a window, then one without.
constexpr int64_t kGemmaWindowPeriod = 6;
constexpr double kGemmaWindowRopeBase = 10000;
// Gemma 3 27B alone scales its queries by the width of a head that d_model would give.
constexpr int64_t kGemma27bLayers = 62;

// Reads the keys "ARCHITECTURE.*" of one file.
class KeyReader {
 public:
  KeyReader(const GgufFile& file, absl::string_view architecture)
      : file_(file), prefix_(absl::StrCat(architecture, ".")) {}

  std::string Key(absl::string_view name) const { return absl::StrCat(prefix_, name); }
  bool Has(absl::string_view name) const { return file_.Has(Key(name)); }

  absl::Status Extent(absl::string_view name, int64_t max, int64_t& value) const {
    COTERIE_ASSIGN_OR_RETURN(value, file_.GetInt(Key(name)));
    if (value >= 1 && value <= max) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat("model description is out of range: key=", Key(name),
                                            ", value=", value, ", allowed=1..", max,
                                            ", file=", file_.path()));
  }
  absl::Status ExtentOr(absl::string_view name, int64_t max, int64_t fallback,
                        int64_t& value) const {
    if (Has(name)) return Extent(name, max, value);
    value = fallback;
    return absl::OkStatus();
  }
  absl::Status FactorOr(absl::string_view name, double fallback, float& value) const {
    COTERIE_ASSIGN_OR_RETURN(const double wide, file_.GetFloat(Key(name), fallback));
    if (!ArchSpec::IsSoundFactor(wide)) {
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

absl::Status ReadDimensions(const GgufFile& file, const KeyReader& keys, ArchSpec& spec) {
  constexpr int64_t kMaxExtent = ArchSpec::kMaxExtent;
  COTERIE_RETURN_IF_ERROR(keys.Extent("block_count", ArchSpec::kMaxLayers, spec.n_layers));
  COTERIE_RETURN_IF_ERROR(keys.Extent("embedding_length", kMaxExtent, spec.d_model));
  COTERIE_RETURN_IF_ERROR(keys.Extent("feed_forward_length", kMaxExtent, spec.d_ff));
  COTERIE_RETURN_IF_ERROR(keys.Extent("attention.head_count", ArchSpec::kMaxHeads, spec.n_heads));
  COTERIE_RETURN_IF_ERROR(
      keys.ExtentOr("attention.head_count_kv", ArchSpec::kMaxHeads, spec.n_heads, spec.n_kv_heads));
  COTERIE_RETURN_IF_ERROR(keys.ExtentOr("attention.key_length", ArchSpec::kMaxHeadDim,
                                        spec.d_model / spec.n_heads, spec.head_dim));
  int64_t value_dim = 0;
  COTERIE_RETURN_IF_ERROR(
      keys.ExtentOr("attention.value_length", ArchSpec::kMaxHeadDim, spec.head_dim, value_dim));
  if (value_dim != spec.head_dim || spec.head_dim < 1) {
    return absl::UnimplementedError(absl::StrCat(
        "keys and values of different sizes are not supported: key_length=", spec.head_dim,
        ", value_length=", value_dim, ", file=", file.path()));
  }
  COTERIE_RETURN_IF_ERROR(
      keys.Extent("context_length", ArchSpec::kMaxContextTokens, spec.context_tokens));
  // The embedding says how many tokens there are; "vocab_size" is often absent.
  COTERIE_ASSIGN_OR_RETURN(const TensorRef embedding, file.Find("token_embd.weight"));
  spec.n_vocab = embedding.matrix().n_rows;
  return keys.FactorOr("attention.layer_norm_rms_epsilon", 1e-5, spec.norm_epsilon);
}

// The factors of Llama 3's scaling, which files keep as a tensor.
absl::Status ReadRopeDivisors(const GgufFile& file, ArchSpec& spec) {
  constexpr absl::string_view kName = "rope_freqs.weight";
  if (!file.HasTensor(kName)) return absl::OkStatus();
  COTERIE_ASSIGN_OR_RETURN(const TensorRef tensor, file.Find(kName));
  const std::vector<int64_t> wanted = {spec.rope_dims / 2};
  if (tensor.type != TensorType::kF32 || tensor.shape != wanted) {
    return absl::DataLossError(absl::StrCat("tensor has the wrong shape or type: tensor=", kName,
                                            ", shape=[", absl::StrJoin(tensor.shape, ", "),
                                            "], type=", Traits(tensor.type).name, ", wanted=[",
                                            wanted[0], "] F32, file=", file.path()));
  }
  std::vector<float>& divisors = spec.rope_angles.divisors;
  divisors.resize(static_cast<size_t>(wanted[0]));
  std::memcpy(divisors.data(), tensor.bytes.data(), tensor.bytes.size());
  for (const float divisor : divisors) {
    if (ArchSpec::IsSoundFactor(divisor)) continue;
    return absl::DataLossError(absl::StrCat("a factor of RoPE is out of range: tensor=", kName,
                                            ", value=", divisor, ", file=", file.path()));
  }
  return absl::OkStatus();
}

absl::Status ReadRope(const GgufFile& file, const KeyReader& keys, ArchSpec& spec) {
  COTERIE_RETURN_IF_ERROR(keys.FactorOr("rope.freq_base", 10000, spec.rope_angles.base));
  COTERIE_RETURN_IF_ERROR(
      keys.ExtentOr("rope.dimension_count", spec.head_dim, spec.head_dim, spec.rope_dims));
  COTERIE_ASSIGN_OR_RETURN(const absl::string_view scaling,
                           file.GetString(keys.Key("rope.scaling.type"), "none"));
  if (scaling == "linear") {
    float factor = 1;
    COTERIE_RETURN_IF_ERROR(keys.FactorOr("rope.scaling.factor", 1, factor));
    spec.rope_angles.position_scale = 1 / factor;
  } else if (scaling != "none") {
    return absl::UnimplementedError(absl::StrCat(
        "RoPE scaling is not supported (none and linear are): scaling=", Quote(scaling),
        ", file=", file.path()));
  }
  return ReadRopeDivisors(file, spec);
}

// Linear scaling, where a file has it, is for the layers that see everything only.
absl::Status ReadGemma(const KeyReader& keys, ArchSpec& spec) {
  spec.embedding_scale = std::sqrt(static_cast<float>(spec.d_model));
  const bool is_27b = spec.n_layers == kGemma27bLayers;
  spec.query_scale =
      1 / std::sqrt(static_cast<float>(is_27b ? spec.d_model / spec.n_heads : spec.head_dim));
  COTERIE_RETURN_IF_ERROR(
      keys.ExtentOr("attention.sliding_window", ArchSpec::kMaxContextTokens, 0, spec.window));
  if (spec.window == 0) return absl::OkStatus();
  int64_t period = 0;
  COTERIE_RETURN_IF_ERROR(keys.ExtentOr("attention.sliding_window_pattern", ArchSpec::kMaxLayers,
                                        kGemmaWindowPeriod, period));
  for (int64_t layer = 1; layer <= spec.n_layers; ++layer) {
    spec.windowed.push_back(layer % period != 0);
  }
  return keys.FactorOr("rope.freq_base_swa", kGemmaWindowRopeBase, spec.window_rope_angles.base);
}

}  // namespace

absl::StatusOr<ArchSpec> ArchSpec::FromGguf(const GgufFile& file) {
  COTERIE_ASSIGN_OR_RETURN(const absl::string_view architecture,
                           file.GetString("general.architecture"));
  COTERIE_ASSIGN_OR_RETURN(ArchSpec spec, ForArchitecture(architecture, file.path()));
  if (architecture == "llama") spec.rope = RopeKind::kAdjacent;
  const KeyReader keys(file, architecture);
  COTERIE_ASSIGN_OR_RETURN(const int64_t n_experts, file.GetInt(keys.Key("expert_count"), 0));
  if (n_experts > 0) {
    return absl::UnimplementedError(absl::StrCat(
        "models with experts inside a layer are not supported: expert_count=", n_experts,
        ", file=", file.path()));
  }
  COTERIE_RETURN_IF_ERROR(ReadDimensions(file, keys, spec));
  COTERIE_RETURN_IF_ERROR(ReadRope(file, keys, spec));
  spec.query_scale = 1 / std::sqrt(static_cast<float>(spec.head_dim));
  if (architecture == "gemma3") COTERIE_RETURN_IF_ERROR(ReadGemma(keys, spec));
  COTERIE_RETURN_IF_ERROR(spec.CheckConsistency(file.path()));
  return spec;
}

}  // namespace coterie
