#pragma once

#include <vector>

#include "absl/status/statusor.h"

#include "core/formats/gguf_file.h"
#include "core/kernels/tensor_type.h"
#include "experts/arch_spec.h"

namespace coterie {

// y = W x + bias; bias is null where the model has none.
struct LinearWeights {
  MatrixView w;                 // [out, in]
  const float* bias = nullptr;  // [out]
};

struct LayerWeights {
  const float* attention_norm = nullptr;  // [d_model]
  LinearWeights q;                        // [d_q, d_model]
  LinearWeights k;                        // [d_kv, d_model]
  LinearWeights v;                        // [d_kv, d_model]
  LinearWeights o;                        // [d_model, d_q]
  const float* ffn_norm = nullptr;        // [d_model]
  LinearWeights gate;                     // [d_ff, d_model]
  LinearWeights up;                       // [d_ff, d_model]
  LinearWeights down;                     // [d_model, d_ff]
};

// Views of every tensor of a decoder inside its mapped file; valid as long as the file.
struct DecoderWeights {
  MatrixView embedding;  // [n_vocab, d_model]
  std::vector<LayerWeights> layers;
  const float* output_norm = nullptr;   // [d_model]
  LinearWeights head;                   // [n_vocab, d_model]; the embedding again where tied
  const float* rope_factors = nullptr;  // [rope_dims / 2] divisors of the angles, or null

  // Finds every tensor and checks its shape against the description; names the tensor and both
  // shapes otherwise.
  static absl::StatusOr<DecoderWeights> FromGguf(const GgufFile& file, const ArchSpec& spec);
};

}  // namespace coterie
