#include "experts/decoder_weights.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "core/base/status_macros.h"

namespace coterie {
namespace {

class TensorFinder {
 public:
  explicit TensorFinder(const GgufFile& file) : file_(file) {}

  absl::Status Matrix(const std::string& name, int64_t n_rows, int64_t n_cols,
                      MatrixView& matrix) const {
    COTERIE_ASSIGN_OR_RETURN(const TensorRef tensor, file_.Find(name));
    if (tensor.shape.size() != 2 || tensor.shape[0] != n_rows || tensor.shape[1] != n_cols) {
      return WrongShape(tensor, absl::StrCat(n_rows, ", ", n_cols));
    }
    matrix = tensor.matrix();
    return absl::OkStatus();
  }

  absl::Status Vector(const std::string& name, int64_t n, const float*& values) const {
    COTERIE_ASSIGN_OR_RETURN(const TensorRef tensor, file_.Find(name));
    if (tensor.shape.size() != 1 || tensor.shape[0] != n) {
      return WrongShape(tensor, absl::StrCat(n));
    }
    if (tensor.type != TensorType::kF32) {
      return absl::UnimplementedError(absl::StrCat("a vector is not stored as F32: tensor=", name,
                                                   ", type=", Traits(tensor.type).name,
                                                   ", file=", file_.path()));
    }
    if (reinterpret_cast<uintptr_t>(tensor.bytes.data()) % alignof(float) != 0) {
      return absl::DataLossError(absl::StrCat("a vector of floats is not aligned: tensor=", name,
                                              ", file=", file_.path()));
    }
    values = reinterpret_cast<const float*>(tensor.bytes.data());
    return absl::OkStatus();
  }

  absl::Status Linear(const std::string& name, int64_t n_rows, int64_t n_cols,
                      LinearWeights& linear) const {
    COTERIE_RETURN_IF_ERROR(Matrix(name + ".weight", n_rows, n_cols, linear.w));
    if (!file_.HasTensor(name + ".bias")) return absl::OkStatus();
    return Vector(name + ".bias", n_rows, linear.bias);
  }

 private:
  absl::Status WrongShape(const TensorRef& tensor, absl::string_view wanted) const {
    return absl::DataLossError(absl::StrCat("tensor has the wrong shape: tensor=", tensor.name,
                                            ", shape=[", absl::StrJoin(tensor.shape, ", "),
                                            "], wanted=[", wanted, "], file=", file_.path()));
  }

  const GgufFile& file_;
};

absl::Status FindLayer(const TensorFinder& find, const ArchSpec& spec, int64_t index,
                       LayerWeights& layer) {
  const std::string prefix = absl::StrCat("blk.", index, ".");
  const int64_t d = spec.d_model;
  COTERIE_RETURN_IF_ERROR(find.Vector(prefix + "attn_norm.weight", d, layer.attention_norm));
  COTERIE_RETURN_IF_ERROR(find.Linear(prefix + "attn_q", spec.d_q(), d, layer.q));
  COTERIE_RETURN_IF_ERROR(find.Linear(prefix + "attn_k", spec.d_kv(), d, layer.k));
  COTERIE_RETURN_IF_ERROR(find.Linear(prefix + "attn_v", spec.d_kv(), d, layer.v));
  COTERIE_RETURN_IF_ERROR(find.Linear(prefix + "attn_output", d, spec.d_q(), layer.o));
  COTERIE_RETURN_IF_ERROR(find.Vector(prefix + "ffn_norm.weight", d, layer.ffn_norm));
  COTERIE_RETURN_IF_ERROR(find.Linear(prefix + "ffn_gate", spec.d_ff, d, layer.gate));
  COTERIE_RETURN_IF_ERROR(find.Linear(prefix + "ffn_up", spec.d_ff, d, layer.up));
  return find.Linear(prefix + "ffn_down", d, spec.d_ff, layer.down);
}

}  // namespace

absl::StatusOr<DecoderWeights> DecoderWeights::FromGguf(const GgufFile& file,
                                                        const ArchSpec& spec) {
  const TensorFinder find(file);
  DecoderWeights weights;
  COTERIE_RETURN_IF_ERROR(
      find.Matrix("token_embd.weight", spec.n_vocab, spec.d_model, weights.embedding));
  weights.layers.resize(spec.n_layers);
  for (int64_t i = 0; i < spec.n_layers; ++i) {
    COTERIE_RETURN_IF_ERROR(FindLayer(find, spec, i, weights.layers[i]));
  }
  COTERIE_RETURN_IF_ERROR(find.Vector("output_norm.weight", spec.d_model, weights.output_norm));
  if (file.HasTensor("output.weight")) {
    COTERIE_RETURN_IF_ERROR(find.Linear("output", spec.n_vocab, spec.d_model, weights.head));
  } else {
    weights.head.w = weights.embedding;
  }
  if (file.HasTensor("rope_freqs.weight")) {
    COTERIE_RETURN_IF_ERROR(
        find.Vector("rope_freqs.weight", spec.rope_dims / 2, weights.rope_factors));
  }
  return weights;
}

}  // namespace coterie
