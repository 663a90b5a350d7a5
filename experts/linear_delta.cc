#include "experts/linear_delta.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "core/kernels/kernels.h"

namespace coterie {
namespace {

constexpr float kLargestF16 = 65504;

std::string Where(const LinearDelta& delta) {
  return absl::StrCat("layer=", delta.layer, ", linear=", LayerLinearName(delta.linear));
}

// One step of FNV-1a.
uint64_t Mixed(uint64_t hash, uint64_t value) { return (hash ^ value) * 0x100000001b3u; }

// [n / n_cols, n_cols] to [n_cols, n / n_cols].
std::vector<float> Transposed(const std::vector<float>& values, int64_t n_cols) {
  const size_t columns = static_cast<size_t>(n_cols), rows = values.size() / columns;
  std::vector<float> turned(values.size());
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < columns; ++c) turned[c * rows + r] = values[r * columns + c];
  }
  return turned;
}

}  // namespace

absl::string_view LayerLinearName(LayerLinear linear) {
  static constexpr absl::string_view kNames[kLayerLinearCount] = {"q",    "k",  "v",   "o",
                                                                  "gate", "up", "down"};
  return kNames[static_cast<int>(linear)];
}

LinearShape ShapeOf(const ArchSpec& spec, LayerLinear linear) {
  switch (linear) {
    case LayerLinear::kQ:
      return {spec.d_model, spec.d_q()};
    case LayerLinear::kK:
    case LayerLinear::kV:
      return {spec.d_model, spec.d_kv()};
    case LayerLinear::kO:
      return {spec.d_q(), spec.d_model};
    case LayerLinear::kGate:
    case LayerLinear::kUp:
      return {spec.d_model, spec.d_ff};
    case LayerLinear::kDown:
      return {spec.d_ff, spec.d_model};
  }
  return {};
}

absl::Status LinearDeltaSet::Check(const ArchSpec& spec, const LinearDelta& delta) {
  if (delta.layer < 0 || delta.layer >= spec.n_layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("the adapter changes a layer that its base does not have: ", Where(delta),
                     ", n_layers=", spec.n_layers));
  }
  const LinearShape shape = ShapeOf(spec, delta.linear);
  if (delta.rank < 1 || static_cast<int64_t>(delta.a.size()) != delta.rank * shape.in ||
      static_cast<int64_t>(delta.b.size()) != shape.out * delta.rank) {
    return absl::InvalidArgumentError(
        absl::StrCat("the adapter's matrices do not have the base's extents: ", Where(delta),
                     ", rank=", delta.rank, ", A has ", delta.a.size(), " values for [rank, ",
                     shape.in, "], B has ", delta.b.size(), " for [", shape.out, ", rank]"));
  }
  const auto is_bad = [](float x) { return !(std::fabs(x) <= kLargestF16); };
  if (is_bad(delta.scale) || std::any_of(delta.a.begin(), delta.a.end(), is_bad) ||
      std::any_of(delta.b.begin(), delta.b.end(), is_bad)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the adapter has values that are not finite or too large: ", Where(delta)));
  }
  return absl::OkStatus();
}

int64_t LinearDeltaSet::Bytes(const ArchSpec& spec, const std::vector<LinearDelta>& deltas) {
  int64_t values = 0;
  for (const LinearDelta& delta : deltas) {
    const LinearShape shape = ShapeOf(spec, delta.linear);
    values += delta.rank * (shape.in + shape.out);
  }
  return values * static_cast<int64_t>(sizeof(uint16_t));
}

absl::StatusOr<std::shared_ptr<const LinearDeltaSet>> LinearDeltaSet::Create(
    const ArchSpec& spec, std::string version, std::vector<LinearDelta> deltas) {
  if (deltas.empty()) return absl::InvalidArgumentError("the adapter changes nothing");
  std::shared_ptr<LinearDeltaSet> set(new LinearDeltaSet());
  set->version_ = std::move(version);
  for (const LinearDelta& delta : deltas) COTERIE_RETURN_IF_ERROR(Check(spec, delta));
  set->values_ = AlignedBuffer(Bytes(spec, deltas));
  set->values_.PreferLargePages();
  set->layers_.resize(static_cast<size_t>(spec.n_layers));
  for (int i = 0; i < kLayerLinearCount; ++i) {
    set->shapes_[static_cast<size_t>(i)] = ShapeOf(spec, static_cast<LayerLinear>(i));
  }
  uint16_t* next = set->values_.as<uint16_t>();
  const auto keep = [&next](const std::vector<float>& values, int64_t n_rows) {
    const int64_t n = static_cast<int64_t>(values.size());
    Kernels().f32_to_f16(values.data(), n, next);
    const MatrixView view{TensorType::kF16, n_rows, n / n_rows,
                          reinterpret_cast<const uint8_t*>(next)};
    next += n;
    return view;
  };
  for (const LinearDelta& delta : deltas) {
    ServedDelta& served =
        set->layers_[static_cast<size_t>(delta.layer)][static_cast<size_t>(delta.linear)];
    if (served.a.data != nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("the adapter changes a linear layer twice: ", Where(delta)));
    }
    served.a = keep(delta.a, delta.rank);
    served.b = keep(Transposed(delta.b, delta.rank), delta.rank);
    served.scale = delta.scale;
    set->max_rank_ = std::max(set->max_rank_, delta.rank);
    set->fingerprint_ = Mixed(set->fingerprint_, static_cast<uint64_t>(delta.layer));
    set->fingerprint_ = Mixed(set->fingerprint_, static_cast<uint64_t>(delta.linear));
    set->fingerprint_ = Mixed(set->fingerprint_, static_cast<uint64_t>(delta.rank));
    set->fingerprint_ = Mixed(set->fingerprint_, std::bit_cast<uint32_t>(delta.scale));
  }
  for (const uint16_t* value = set->values_.as<uint16_t>(); value < next; ++value) {
    set->fingerprint_ = Mixed(set->fingerprint_, *value);
  }
  return set;
}

bool LinearDeltaSet::Fits(const ArchSpec& spec) const {
  if (static_cast<int64_t>(layers_.size()) != spec.n_layers) return false;
  for (int i = 0; i < kLayerLinearCount; ++i) {
    if (shapes_[static_cast<size_t>(i)] != ShapeOf(spec, static_cast<LayerLinear>(i))) return false;
  }
  return true;
}

const ServedDelta* LinearDeltaSet::Find(int64_t layer, LayerLinear linear) const {
  const ServedDelta& served = layers_[static_cast<size_t>(layer)][static_cast<size_t>(linear)];
  return served.a.data == nullptr || served.scale == 0 ? nullptr : &served;
}

}  // namespace coterie
