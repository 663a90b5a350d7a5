#include "lora/lora_parameters.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/random_bits.h"

namespace coterie {
namespace {

constexpr int64_t kMaxRank = 256;

absl::Status OutOfRange(absl::string_view option, absl::string_view value,
                        absl::string_view allowed) {
  return absl::InvalidArgumentError(absl::StrCat("a training option is out of range: ", option, "=",
                                                 value, "; allowed: ", allowed));
}

bool IsTarget(const TrainerOptions& options, LayerLinear linear) {
  return options.targets.empty() ||
         std::find(options.targets.begin(), options.targets.end(), linear) != options.targets.end();
}

int64_t FirstLayer(const ArchSpec& spec, const TrainerOptions& options) {
  return options.top_layers == 0 ? 0 : spec.n_layers - options.top_layers;
}

}  // namespace

absl::Status LoraPlan::Check(const ArchSpec& spec, const TrainerOptions& options) {
  if (options.rank < 1 || options.rank > kMaxRank) {
    return OutOfRange("rank", absl::StrCat(options.rank), absl::StrCat("1 to ", kMaxRank));
  }
  if (!(options.alpha > 0) || !std::isfinite(options.alpha)) {
    return OutOfRange("alpha", absl::StrCat(options.alpha), "above 0");
  }
  if (options.top_layers < 0 || options.top_layers > spec.n_layers) {
    return OutOfRange("top_layers", absl::StrCat(options.top_layers),
                      absl::StrCat("0 (all) to ", spec.n_layers));
  }
  if (!(options.learning_rate > 0) || !std::isfinite(options.learning_rate)) {
    return OutOfRange("learning_rate", absl::StrCat(options.learning_rate), "above 0");
  }
  if (!(options.clip_norm >= 0)) {
    return OutOfRange("clip_norm", absl::StrCat(options.clip_norm), "0 (none) or above");
  }
  if (!(options.weight_decay >= 0)) {
    return OutOfRange("weight_decay", absl::StrCat(options.weight_decay), "0 or above");
  }
  if (!(options.preference_beta > 0)) {
    return OutOfRange("preference_beta", absl::StrCat(options.preference_beta), "above 0");
  }
  if (!(options.preference_weight >= 0) || !std::isfinite(options.preference_weight)) {
    return OutOfRange("preference_weight", absl::StrCat(options.preference_weight), "0 or above");
  }
  if (!(options.dropout >= 0 && options.dropout < 1)) {
    return OutOfRange("dropout", absl::StrCat(options.dropout), "0 to below 1");
  }
  return absl::OkStatus();
}

LoraPlan::LoraPlan(const ArchSpec& spec, const TrainerOptions& options)
    : scale_(options.alpha / (options.rslora ? std::sqrt(static_cast<float>(options.rank))
                                             : static_cast<float>(options.rank))),
      rank_(options.rank),
      first_layer_(FirstLayer(spec, options)) {
  index_.resize(static_cast<size_t>(spec.n_layers));
  for (auto& layer : index_) layer.fill(-1);
  int64_t at = 0;
  for (int64_t layer = first_layer_; layer < spec.n_layers; ++layer) {
    for (int i = 0; i < kLayerLinearCount; ++i) {
      const LayerLinear linear = static_cast<LayerLinear>(i);
      if (!IsTarget(options, linear)) continue;
      LoraPair pair{layer, linear, rank_, ShapeOf(spec, linear), at, 0};
      pair.bt_at = at + rank_ * pair.shape.in;
      at = pair.bt_at + rank_ * pair.shape.out;
      index_[static_cast<size_t>(layer)][static_cast<size_t>(i)] = static_cast<int>(pairs_.size());
      pairs_.push_back(pair);
    }
  }
  n_values_ = at;
}

LoraParameters::LoraParameters(LoraPlan plan, uint64_t seed)
    : LoraPlan(std::move(plan)),
      values_(InitialValues(seed)),
      gradients_(static_cast<size_t>(n_values())) {}

std::vector<float> LoraPlan::InitialValues(uint64_t seed) const {
  std::vector<float> values(static_cast<size_t>(n_values_));
  std::mt19937_64 random(seed);
  for (const LoraPair& pair : pairs()) {
    const double bound = 1 / std::sqrt(static_cast<double>(pair.shape.in));
    for (int64_t i = pair.a_at; i < pair.bt_at; ++i) {
      // 53 random bits: std's distributions differ between libraries.
      const double unit = UnitInterval(random());
      values[static_cast<size_t>(i)] = static_cast<float>((2 * unit - 1) * bound);
    }
  }
  return values;
}

const LoraPair* LoraPlan::Find(int64_t layer, LayerLinear linear) const {
  const int i = index_[static_cast<size_t>(layer)][static_cast<size_t>(linear)];
  return i < 0 ? nullptr : &pairs_[static_cast<size_t>(i)];
}

absl::StatusOr<std::vector<float>> LoraPlan::ValuesOf(absl::Span<const LinearDelta> deltas) const {
  for (const LinearDelta& delta : deltas) {
    const LoraPair* pair = Find(delta.layer, delta.linear);
    const bool fits = pair != nullptr && delta.rank <= pair->rank &&
                      static_cast<int64_t>(delta.a.size()) == delta.rank * pair->shape.in &&
                      static_cast<int64_t>(delta.b.size()) == delta.rank * pair->shape.out;
    if (fits) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("an adapter has no place in this trainer: layer=", delta.layer,
                     ", linear=", LayerLinearName(delta.linear), ", rank=", delta.rank));
  }
  std::vector<float> values(static_cast<size_t>(n_values_));
  for (const LinearDelta& delta : deltas) {
    const LoraPair& pair = *Find(delta.layer, delta.linear);
    std::copy(delta.a.begin(), delta.a.end(), values.begin() + pair.a_at);
    for (int64_t r = 0; r < delta.rank; ++r) {
      for (int64_t o = 0; o < pair.shape.out; ++o) {
        values[static_cast<size_t>(pair.bt_at + r * pair.shape.out + o)] =
            delta.b[static_cast<size_t>(o * delta.rank + r)] * (delta.scale / scale());
      }
    }
  }
  return values;
}

std::vector<LinearDelta> LoraPlan::AsDeltas(const std::vector<float>& array) const {
  std::vector<LinearDelta> deltas;
  for (const LoraPair& pair : pairs()) {
    LinearDelta delta{pair.layer, pair.linear, pair.rank, scale(), {}, {}};
    delta.a.assign(array.begin() + pair.a_at, array.begin() + pair.bt_at);
    delta.b.resize(static_cast<size_t>(pair.shape.out * pair.rank));
    for (int64_t r = 0; r < pair.rank; ++r) {
      for (int64_t o = 0; o < pair.shape.out; ++o) {
        delta.b[static_cast<size_t>(o * pair.rank + r)] =
            array[static_cast<size_t>(pair.bt_at + r * pair.shape.out + o)];
      }
    }
    deltas.push_back(std::move(delta));
  }
  return deltas;
}

}  // namespace coterie
