#include "experts/decoder_weights.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "core/base/status_macros.h"
#include "core/kernels/kernels.h"

namespace coterie {
namespace {

class TensorFinder {
 public:
  TensorFinder(const ModelFiles& files, DecoderWeights& weights)
      : files_(files), weights_(weights) {}

  absl::Status Matrix(const std::string& name, int64_t n_rows, int64_t n_cols,
                      MatrixView& matrix) const {
    COTERIE_ASSIGN_OR_RETURN(const TensorRef tensor, files_.Find(name));
    if (tensor.shape.size() != 2 || tensor.shape[0] != n_rows || tensor.shape[1] != n_cols) {
      return WrongShape(tensor, absl::StrCat(n_rows, ", ", n_cols));
    }
    matrix = tensor.matrix();
    return absl::OkStatus();
  }

  // Values of a vector plus `offset`.
  absl::Status Vector(const std::string& name, int64_t n, float offset,
                      const float*& values) const {
    COTERIE_ASSIGN_OR_RETURN(const TensorRef tensor, files_.Find(name));
    if (tensor.shape.size() != 1 || tensor.shape[0] != n) {
      return WrongShape(tensor, absl::StrCat(n));
    }
    if (Traits(tensor.type).block_values != 1) {
      return absl::UnimplementedError(absl::StrCat("a vector is stored in blocks: tensor=", name,
                                                   ", type=", Traits(tensor.type).name,
                                                   ", file=", files_.path()));
    }
    const bool is_aligned = reinterpret_cast<uintptr_t>(tensor.bytes.data()) % alignof(float) == 0;
    if (tensor.type == TensorType::kF32 && offset == 0 && is_aligned) {
      values = reinterpret_cast<const float*>(tensor.bytes.data());
      return absl::OkStatus();
    }
    auto converted = std::make_unique<float[]>(static_cast<size_t>(n));
    Kernels().dequantize_row(tensor.type, tensor.bytes.data(), n, converted.get());
    for (int64_t i = 0; i < n; ++i) converted[i] += offset;
    values = converted.get();
    weights_.converted.push_back(std::move(converted));
    weights_.converted_bytes += n * static_cast<int64_t>(sizeof(float));
    return absl::OkStatus();
  }

  absl::Status Linear(const std::string& name, int64_t n_rows, int64_t n_cols, bool needs_bias,
                      LinearWeights& linear) const {
    COTERIE_RETURN_IF_ERROR(Matrix(name + ".weight", n_rows, n_cols, linear.w));
    if (!needs_bias && !files_.HasTensor(name + ".bias")) return absl::OkStatus();
    return Vector(name + ".bias", n_rows, 0, linear.bias);
  }

 private:
  absl::Status WrongShape(const TensorRef& tensor, absl::string_view wanted) const {
    return absl::DataLossError(absl::StrCat("tensor has the wrong shape: tensor=", tensor.name,
                                            ", shape=[", absl::StrJoin(tensor.shape, ", "),
                                            "], wanted=[", wanted, "], file=", files_.path()));
  }

  const ModelFiles& files_;
  DecoderWeights& weights_;
};

absl::Status FindAttention(const TensorFinder& find, const ArchSpec& spec,
                           const std::string& prefix, LayerWeights& layer) {
  const int64_t d = spec.d_model;
  const float offset = spec.norm_offset;
  COTERIE_RETURN_IF_ERROR(
      find.Vector(prefix + "attn_norm.weight", d, offset, layer.attention_norm));
  COTERIE_RETURN_IF_ERROR(find.Linear(prefix + "attn_q", spec.d_q(), d, spec.qkv_bias, layer.q));
  COTERIE_RETURN_IF_ERROR(find.Linear(prefix + "attn_k", spec.d_kv(), d, spec.qkv_bias, layer.k));
  COTERIE_RETURN_IF_ERROR(find.Linear(prefix + "attn_v", spec.d_kv(), d, spec.qkv_bias, layer.v));
  if (spec.qk_norm) {
    COTERIE_RETURN_IF_ERROR(
        find.Vector(prefix + "attn_q_norm.weight", spec.head_dim, offset, layer.q_norm));
    COTERIE_RETURN_IF_ERROR(
        find.Vector(prefix + "attn_k_norm.weight", spec.head_dim, offset, layer.k_norm));
  }
  COTERIE_RETURN_IF_ERROR(find.Linear(prefix + "attn_output", d, spec.d_q(), false, layer.o));
  if (!spec.post_norms) return absl::OkStatus();
  return find.Vector(prefix + "post_attention_norm.weight", d, offset, layer.post_attention_norm);
}

absl::Status FindFeedForward(const TensorFinder& find, const ArchSpec& spec,
                             const std::string& prefix, LayerWeights& layer) {
  const int64_t d = spec.d_model;
  COTERIE_RETURN_IF_ERROR(
      find.Vector(prefix + "ffn_norm.weight", d, spec.norm_offset, layer.ffn_norm));
  COTERIE_RETURN_IF_ERROR(find.Linear(prefix + "ffn_gate", spec.d_ff, d, false, layer.gate));
  COTERIE_RETURN_IF_ERROR(find.Linear(prefix + "ffn_up", spec.d_ff, d, false, layer.up));
  COTERIE_RETURN_IF_ERROR(find.Linear(prefix + "ffn_down", d, spec.d_ff, false, layer.down));
  if (!spec.post_norms) return absl::OkStatus();
  return find.Vector(prefix + "post_ffw_norm.weight", d, spec.norm_offset, layer.post_ffn_norm);
}

}  // namespace

absl::StatusOr<DecoderWeights> DecoderWeights::From(const ModelFiles& files, const ArchSpec& spec) {
  DecoderWeights weights;
  const TensorFinder find(files, weights);
  COTERIE_RETURN_IF_ERROR(
      find.Matrix("token_embd.weight", spec.n_vocab, spec.d_model, weights.embedding));
  weights.layers.resize(static_cast<size_t>(spec.n_layers));
  for (int64_t i = 0; i < spec.n_layers; ++i) {
    const std::string prefix = absl::StrCat("blk.", i, ".");
    LayerWeights& layer = weights.layers[static_cast<size_t>(i)];
    COTERIE_RETURN_IF_ERROR(FindAttention(find, spec, prefix, layer));
    COTERIE_RETURN_IF_ERROR(FindFeedForward(find, spec, prefix, layer));
  }
  COTERIE_RETURN_IF_ERROR(
      find.Vector("output_norm.weight", spec.d_model, spec.norm_offset, weights.output_norm));
  if (files.HasTensor("output.weight")) {
    COTERIE_RETURN_IF_ERROR(find.Linear("output", spec.n_vocab, spec.d_model, false, weights.head));
  } else {
    weights.head.w = weights.embedding;
  }
  return weights;
}

}  // namespace coterie
