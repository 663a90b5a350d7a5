#pragma once

// What an adapter adds to the linear layers of a base: y = W x + scale * B (A x) (LoRA, Hu et al.,
// arXiv 2106.09685). Experts apply deltas; who makes them is no matter here.

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "core/kernels/tensor_type.h"
#include "core/memory/aligned_buffer.h"
#include "experts/arch_spec.h"

namespace coterie {

// The linear layers that a decoder layer has, in the order of the pass.
enum class LayerLinear : uint8_t { kQ, kK, kV, kO, kGate, kUp, kDown };
inline constexpr int kLayerLinearCount = 7;

// "q", "k", "v", "o", "gate", "up", "down".
absl::string_view LayerLinearName(LayerLinear linear);

// Input and output features of a linear layer.
struct LinearShape {
  int64_t in = 0;
  int64_t out = 0;

  bool operator==(const LinearShape&) const = default;
};
LinearShape ShapeOf(const ArchSpec& spec, LayerLinear linear);

// A rank-r change of one linear layer, f32, row-major. The rows of b are in the order of the base
// as it is served: those of q and k of llama's GGUF files are permuted (see RopeKind).
struct LinearDelta {
  int64_t layer = 0;
  LayerLinear linear = LayerLinear::kQ;
  int64_t rank = 0;
  float scale = 0;       // alpha / rank, or alpha / sqrt(rank).
  std::vector<float> a;  // [rank, in]
  std::vector<float> b;  // [out, rank]
};

// One delta as passes read it: 16-bit floats in place.
struct ServedDelta {
  MatrixView a;  // [rank, in], F16
  MatrixView b;  // [rank, out], F16: transposed, so that passes add whole vectors of y at a time
  float scale = 0;
};

// All deltas of one version of an adapter. Immutable, thread-safe; a pass, a KV cache and a prefix
// that began with it keep it.
class LinearDeltaSet {
 public:
  // kInvalidArgument, naming layer and linear, for a delta whose layer or extents the base does not
  // have, and for values that are not finite or exceed f16.
  static absl::Status Check(const ArchSpec& spec, const LinearDelta& delta);

  // Rounds the deltas to f16, which is how they are served. Check's errors, and kInvalidArgument
  // for two deltas of one linear layer and for no deltas at all.
  static absl::StatusOr<std::shared_ptr<const LinearDeltaSet>> Create(
      const ArchSpec& spec, std::string version, std::vector<LinearDelta> deltas);

  // Bytes of deltas of such ranks before there are any: what to charge for a set.
  static int64_t Bytes(const ArchSpec& spec, const std::vector<LinearDelta>& deltas);

  // Whether the set was made for a base of these extents.
  bool Fits(const ArchSpec& spec) const;

  // Null where the linear layer has none. A delta of scale 0 is none: it changes no bit.
  const ServedDelta* Find(int64_t layer, LayerLinear linear) const;

  // Unique among the adapters of a base: part of the key of every KV cache and prefix.
  const std::string& version() const { return version_; }
  // Of the deltas as they are served: tells versions of one name apart that stem from an adapter
  // and from its namesake after it was removed.
  uint64_t fingerprint() const { return fingerprint_; }
  int64_t max_rank() const { return max_rank_; }
  int64_t bytes() const { return values_.bytes(); }

 private:
  LinearDeltaSet() = default;

  std::string version_;
  uint64_t fingerprint_ = 0xcbf29ce484222325u;
  int64_t max_rank_ = 0;
  AlignedBuffer values_;
  std::vector<std::array<ServedDelta, kLayerLinearCount>> layers_;
  std::array<LinearShape, kLayerLinearCount> shapes_;  // Of the base.
};

using DeltaSnapshot = std::shared_ptr<const LinearDeltaSet>;

}  // namespace coterie
