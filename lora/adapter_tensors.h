#pragma once

// Pairs the matrices of an adapter's file, whatever its format calls them.

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "core/kernels/tensor_type.h"
#include "experts/linear_delta.h"

namespace coterie {

// An error about a file with the file's name at its end; OK stays OK.
absl::Status InFile(const absl::Status& status, absl::string_view path);

// Collects A and B of every linear layer; both formats store A as [rank, in] and B as [out, rank].
// Tensors live until Take. Thread-compatible.
class AdapterTensors {
 public:
  explicit AdapterTensors(absl::string_view path) : path_(path) {}

  // kDataLoss, naming tensor and file, for one that is no matrix, a rank that is not within
  // [1, kMaxAdapterRank], and a second tensor of one place.
  absl::Status Add(int64_t layer, LayerLinear linear, bool is_a, absl::string_view name,
                   TensorType type, absl::Span<const int64_t> shape, const uint8_t* data);

  // The deltas in the order of the pass, with scale 0. kDataLoss for a matrix without its partner,
  // two of different ranks, values that are not finite, and for no tensors.
  absl::StatusOr<std::vector<LinearDelta>> Take();

 private:
  struct Matrix {
    std::string name;
    MatrixView view;
  };
  struct Pair {
    Matrix a, b;
  };

  absl::Status Error(absl::string_view what, absl::string_view name) const;
  absl::StatusOr<std::vector<float>> Values(const Matrix& matrix) const;

  std::string path_;
  std::map<std::pair<int64_t, LayerLinear>, Pair> pairs_;
};

}  // namespace coterie
