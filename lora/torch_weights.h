#pragma once

// The frozen weights of a decoder as torch tensors on one device, dequantised once.

#include <vector>

#include "absl/status/statusor.h"

#include "core/threads/worker_pool.h"
#include "experts/arch_spec.h"
#include "experts/decoder_weights.h"
#include "lora/dropout.h"
#include "lora/lora_parameters.h"
#include "lora/torch_ops.h"

#include <ATen/ATen.h>

namespace coterie {

// Linear layers that read the same input, as one product, and their adapters beside it:
//   y = w in + b^T (a in)
// where a stacks the adapters' A and b holds each one's scaled B in its own rows and columns.
struct TorchLinear {
  struct Member {
    const LoraPair* pair = nullptr;
    int64_t rank_at = 0;    // Its rows in a and b,
    int64_t output_at = 0;  // and its columns in y.
  };
  at::Tensor w;                                // [out, in] T
  at::Tensor bias;                             // [out] T, or undefined
  at::Tensor a;                                // [rank, in] T, or undefined: none is adapted
  at::Tensor b;                                // [rank, out] T
  std::vector<Member> members;                 // Those adapted.
  int64_t rank = 0;                            // Of all of them together.
  int64_t layer = 0;                           // Where it stands, and what it reads,
  AdapterInput input = AdapterInput::kNormed;  // if any is adapted.
};

struct TorchLayer {
  at::Tensor attention_norm, ffn_norm;            // [d_model] f32
  at::Tensor q_norm, k_norm;                      // [head_dim] f32, or undefined
  at::Tensor post_attention_norm, post_ffn_norm;  // [d_model] f32, or undefined
  TorchLinear qkv, o, gate_up, down;
};

struct TorchWeights {
  at::Tensor embedding, head;  // [n_vocab, d_model] T; the same where tied
  at::Tensor output_norm;      // [d_model] f32
  std::vector<TorchLayer> layers;
  at::Tensor operands;  // All a and b, T.
  std::vector<PlacedMatrix> places;

  // Throws c10::Error, as torch does.
  static TorchWeights From(const ArchSpec& spec, const DecoderWeights& weights,
                           const LoraPlan& plan, WorkerPool& pool, const at::Device& device,
                           at::ScalarType type);

  // What From will take of the device, and most of it that passes by in RAM at a time.
  static int64_t DeviceBytes(const ArchSpec& spec, const DecoderWeights& weights,
                             const LoraPlan& plan, int64_t value_bytes);
  static constexpr int64_t kStagingBytes = int64_t{32} << 20;
};

}  // namespace coterie
