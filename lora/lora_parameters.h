#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "core/kernels/tensor_type.h"
#include "experts/arch_spec.h"
#include "experts/linear_delta.h"
#include "lora/trainer.h"

namespace coterie {

// The two matrices of one adapted linear layer. Both are wide: a [rank, in] as PEFT has it, and bt
// [rank, out], the transpose of its B, so that every product reads them along their rows.
struct LoraPair {
  int64_t layer = 0;
  LayerLinear linear = LayerLinear::kQ;
  int64_t rank = 0;
  LinearShape shape;
  int64_t a_at = 0;  // Where they begin among all values.
  int64_t bt_at = 0;
};

// Which linear layers are adapted, and where their matrices stand. Const after construction.
class LoraPlan {
 public:
  LoraPlan(const ArchSpec& spec, const TrainerOptions& options);

  // kInvalidArgument naming an option that is out of range for this base.
  static absl::Status Check(const ArchSpec& spec, const TrainerOptions& options);

  float scale() const { return scale_; }
  int64_t rank() const { return rank_; }
  int64_t first_layer() const { return first_layer_; }  // Of those adapted.
  int64_t n_values() const { return n_values_; }        // Of all matrices.

  // Null if that linear layer is not adapted.
  const LoraPair* Find(int64_t layer, LayerLinear linear) const;
  const std::vector<LoraPair>& pairs() const { return pairs_; }

  // All values as they begin: a uniform in +-1/sqrt(in), as PEFT's Kaiming initialisation with
  // a = sqrt(5); b zero. The same seed gives the same bytes everywhere.
  std::vector<float> InitialValues(uint64_t seed) const;

  // All values from deltas: lower ranks are filled up with zeros, scales moved into b.
  // kInvalidArgument for a delta that has no place here.
  absl::StatusOr<std::vector<float>> ValuesOf(absl::Span<const LinearDelta> deltas) const;

  // An array of values as deltas, in the order of the pairs.
  std::vector<LinearDelta> AsDeltas(const std::vector<float>& array) const;

 private:
  float scale_ = 0;
  int64_t rank_ = 0;
  int64_t first_layer_ = 0;
  int64_t n_values_ = 0;
  std::vector<LoraPair> pairs_;
  std::vector<std::array<int, kLayerLinearCount>> index_;  // Into pairs_, by layer; -1: none.
};

// What is trained: all matrices of a plan in one array, and their gradients in another.
class LoraParameters : public LoraPlan {
 public:
  LoraParameters(LoraPlan plan, uint64_t seed);

  std::vector<float>& values() { return values_; }
  std::vector<float>& gradients() { return gradients_; }
  const std::vector<float>& values() const { return values_; }
  const std::vector<float>& gradients() const { return gradients_; }

  MatrixView A(const LoraPair& pair) const { return View(pair.a_at, pair.rank, pair.shape.in); }
  MatrixView Bt(const LoraPair& pair) const { return View(pair.bt_at, pair.rank, pair.shape.out); }
  float* gradient_a(const LoraPair& pair) { return gradients_.data() + pair.a_at; }
  float* gradient_bt(const LoraPair& pair) { return gradients_.data() + pair.bt_at; }

 private:
  MatrixView View(int64_t at, int64_t n_rows, int64_t n_cols) const {
    return {TensorType::kF32, n_rows, n_cols,
            reinterpret_cast<const uint8_t*>(values_.data() + at)};
  }

  std::vector<float> values_;
  std::vector<float> gradients_;
};

}  // namespace coterie
