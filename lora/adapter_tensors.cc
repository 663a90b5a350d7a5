#include "lora/adapter_tensors.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

#include "core/base/quote.h"
#include "core/base/status_macros.h"
#include "core/kernels/kernels.h"
#include "lora/adapter.h"

namespace coterie {

absl::Status InFile(const absl::Status& status, absl::string_view path) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(status.message(), ", file=", path));
}

absl::Status AdapterTensors::Error(absl::string_view what, absl::string_view name) const {
  return absl::DataLossError(absl::StrCat(what, ": tensor=", Quote(name), ", file=", path_));
}

absl::Status AdapterTensors::Add(int64_t layer, LayerLinear linear, bool is_a,
                                 absl::string_view name, TensorType type,
                                 absl::Span<const int64_t> shape, const uint8_t* data) {
  if (shape.size() != 2 || shape[0] < 1 || shape[1] < 1) {
    return Error("a tensor of the adapter is no matrix", name);
  }
  if (shape[is_a ? 0 : 1] > kMaxAdapterRank || shape[is_a ? 1 : 0] > ArchSpec::kMaxExtent) {
    return Error("a tensor of the adapter is too large", name);
  }
  Pair& pair = pairs_[{layer, linear}];
  Matrix& matrix = is_a ? pair.a : pair.b;
  if (matrix.view.data != nullptr) return Error("a tensor of the adapter is there twice", name);
  matrix = {std::string(name), {type, shape[0], shape[1], data}};
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> AdapterTensors::Values(const Matrix& matrix) const {
  const MatrixView& view = matrix.view;
  std::vector<float> values(static_cast<size_t>(view.n_rows * view.n_cols));
  for (int64_t row = 0; row < view.n_rows; ++row) {
    Kernels().dequantize_row(view.type, view.row(row), view.n_cols,
                             values.data() + row * view.n_cols);
  }
  if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); })) {
    return Error("a tensor of the adapter has values that are not finite", matrix.name);
  }
  return values;
}

absl::StatusOr<std::vector<LinearDelta>> AdapterTensors::Take() {
  std::vector<LinearDelta> deltas;
  for (const auto& [place, pair] : pairs_) {
    if (pair.a.view.data == nullptr) return Error("B has no A beside it", pair.b.name);
    if (pair.b.view.data == nullptr) return Error("A has no B beside it", pair.a.name);
    if (pair.a.view.n_rows != pair.b.view.n_cols) {
      return Error("A and B have different ranks", pair.a.name);
    }
    LinearDelta delta;
    delta.layer = place.first;
    delta.linear = place.second;
    delta.rank = pair.a.view.n_rows;
    COTERIE_ASSIGN_OR_RETURN(delta.a, Values(pair.a));
    COTERIE_ASSIGN_OR_RETURN(delta.b, Values(pair.b));
    deltas.push_back(std::move(delta));
  }
  if (deltas.empty()) {
    return absl::DataLossError(absl::StrCat("the adapter has no tensors: file=", path_));
  }
  pairs_.clear();
  return deltas;
}

}  // namespace coterie
