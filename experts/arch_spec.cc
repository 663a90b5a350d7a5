#include "experts/arch_spec.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

#include "core/base/quote.h"

namespace coterie {
namespace {

absl::string_view Contradiction(const ArchSpec& spec) {
  if (spec.n_heads % spec.n_kv_heads != 0) return "heads are no multiple of KV heads";
  if (spec.head_dim % 2 != 0 || spec.rope_dims % 2 != 0) return "a head has an odd size";
  if (spec.d_model % 32 != 0 || spec.d_ff % 32 != 0 || spec.d_q() % 32 != 0) {
    return "a width is no multiple of 32";
  }
  const bool each_layer = static_cast<int64_t>(spec.windowed.size()) == spec.n_layers;
  if (!spec.windowed.empty() && !each_layer) return "not every layer is windowed or not";
  const bool any = std::count(spec.windowed.begin(), spec.windowed.end(), true) > 0;
  if (any && spec.window < 1) return "layers have a window of no tokens";
  return "";
}

}  // namespace

void RopeAngles::Rotations(int64_t first_position, int64_t n, int64_t rope_dims, float* cos,
                           float* sin) const {
  const int64_t n_pairs = rope_dims / 2;
  for (int64_t t = 0; t < n; ++t) {
    const double position = static_cast<double>(first_position + t) * position_scale;
    for (int64_t i = 0; i < n_pairs; ++i) {
      const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(rope_dims);
      double angle = position * std::pow(static_cast<double>(base), exponent);
      if (!divisors.empty()) angle /= divisors[static_cast<size_t>(i)];
      cos[t * n_pairs + i] = static_cast<float>(std::cos(angle));
      sin[t * n_pairs + i] = static_cast<float>(std::sin(angle));
    }
  }
}

absl::StatusOr<ArchSpec> ArchSpec::ForArchitecture(absl::string_view name, absl::string_view path) {
  ArchSpec spec;
  spec.architecture = std::string(name);
  if (name == "qwen2") {
    spec.qkv_bias = true;
  } else if (name == "gemma3") {
    spec.gating = Gating::kGeluTanh;
    spec.qk_norm = spec.post_norms = true;
  } else if (name != "llama") {
    return absl::UnimplementedError(absl::StrCat(
        "architecture is not supported (llama, qwen2 and gemma3 are): architecture=", Quote(name),
        ", file=", path));
  }
  return spec;
}

absl::Status ArchSpec::CheckConsistency(absl::string_view path) const {
  const absl::string_view problem = Contradiction(*this);
  if (problem.empty()) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      "model description contradicts itself: ", problem, ": d_model=", d_model, ", d_ff=", d_ff,
      ", n_heads=", n_heads, ", n_kv_heads=", n_kv_heads, ", head_dim=", head_dim,
      ", rope_dims=", rope_dims, ", window=", window, ", file=", path));
}

}  // namespace coterie
