#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"

#include "core/kernels/tensor_type.h"
#include "experts/arch_spec.h"
#include "experts/model_files.h"

namespace coterie {

// y = W x + bias; bias is null where the model has none.
struct LinearWeights {
  MatrixView w;                 // [out, in]
  const float* bias = nullptr;  // [out]
};

struct LayerWeights {
  const float* attention_norm = nullptr;       // [d_model]
  LinearWeights q;                             // [d_q, d_model]
  LinearWeights k;                             // [d_kv, d_model]
  LinearWeights v;                             // [d_kv, d_model]
  const float* q_norm = nullptr;               // [head_dim], or null: q is not normed
  const float* k_norm = nullptr;               // [head_dim], or null
  LinearWeights o;                             // [d_model, d_q]
  const float* post_attention_norm = nullptr;  // [d_model], or null
  const float* ffn_norm = nullptr;             // [d_model]
  LinearWeights gate;                          // [d_ff, d_model]
  LinearWeights up;                            // [d_ff, d_model]
  LinearWeights down;                          // [d_model, d_ff]
  const float* post_ffn_norm = nullptr;        // [d_model], or null
};

// Views of every tensor of a decoder inside its mapped files; valid as long as those. Matrices are
// read in place. Vectors are f32: those that are stored otherwise, or with an offset, are converted
// into memory of their own. Move-only.
struct DecoderWeights {
  MatrixView embedding;  // [n_vocab, d_model]
  std::vector<LayerWeights> layers;
  const float* output_norm = nullptr;  // [d_model]
  LinearWeights head;                  // [n_vocab, d_model]; the embedding again where tied

  std::vector<std::unique_ptr<float[]>> converted;
  int64_t converted_bytes = 0;

  // Finds every tensor and checks its shape against the description; names the tensor and both
  // shapes otherwise.
  static absl::StatusOr<DecoderWeights> From(const ModelFiles& files, const ArchSpec& spec);
};

}  // namespace coterie
