#pragma once

// The back end of experts/decoder.h that training walks on torch tensors, forward and backward,
// without a graph: each operation has its own backward, and what that needs is on a tape.

#include <vector>

#include "absl/types/span.h"

#include "core/kernels/tensor_type.h"
#include "experts/arch_spec.h"
#include "experts/decoder_weights.h"
#include "lora/lora_parameters.h"
#include "lora/torch_ops.h"
#include "lora/torch_weights.h"
#include "lora/trainer.h"
#include "lora/training_rows.h"

#include <ATen/ATen.h>

namespace coterie {

struct TorchDecoderShape {
  int64_t max_tokens = 0;
  bool is_bf16 = false;  // Of T, the type of activations and products; else f32.
  Recompute recompute = Recompute::kNone;
  bool drops = false;  // Of what adapters read, in passes that learn.

  int64_t value_bytes() const { return is_bf16 ? 2 : 4; }
};

// Holds tape and working memory for passes of max_tokens rows; used for one pass after another.
// The operations throw c10::Error, as torch does. Work on a GPU is only queued when they return.
class TorchDecoder {
 public:
  TorchDecoder(const ArchSpec& spec, const LoraPlan& plan, const TorchWeights& weights,
               const TorchOps& ops, const TorchDecoderShape& shape, const at::Device& device);

  // Begins a pass: with the adapter or without; keeping what a backward pass needs or not.
  void Begin(const TrainingRows& rows, bool is_adapted, bool learns);

  void Embed(const MatrixView& embedding);
  void NormQkvRopeAppend(int64_t layer, const LayerWeights& w);
  void Attend(int64_t layer);
  void ProjectResidual(int64_t layer, const LayerWeights& w);
  void NormGateUpActivate(int64_t layer, const LayerWeights& w);
  void DownResidual(int64_t layer, const LayerWeights& w);
  void NormHead(const float* norm, const LinearWeights& head);

  // Between the passes: the gradient of the loss is what NormHead found times each row's weight.
  // Adapters' gradients are added to `gradients`, in the plan's layout, f32.
  void WeighLoss(absl::Span<const float> weights, const at::Tensor& gradients);

  void BeginBackward(int64_t layer, const LayerWeights& w);
  void BackwardDownResidual(int64_t layer, const LayerWeights& w);
  void BackwardNormGateUpActivate(int64_t layer, const LayerWeights& w);
  void BackwardProjectResidual(int64_t layer, const LayerWeights& w);
  void BackwardAttend(int64_t layer);
  void BackwardNormQkvRope(int64_t layer, const LayerWeights& w);

  const at::Tensor& nll() const { return nll_; }  // [n_loss_rows] f32

  // What a decoder of that shape takes of its device at most, temporary results included.
  static int64_t DeviceBytes(const ArchSpec& spec, const LoraPlan& plan,
                             const TorchDecoderShape& shape);

 private:
  // What the backward pass needs of a layer; layers share what is computed again.
  struct Tape {
    at::Tensor x, x_mid;                       // [n, d_model] T, the stream before each half
    at::Tensor qkv;                            // [n, d_q + 2 d_kv] T, as attention reads it
    at::Tensor raw_qk;                         // [n, d_q + d_kv] T, before their norms, if any
    at::Tensor attended;                       // [n, d_q] T
    at::Tensor lse, rng, unused;               // Of flash attention.
    at::Tensor gate_up;                        // [n, 2 d_ff] T; then its gradient
    at::Tensor raw_o, raw_down;                // [n, d_model] T, before a norm after them, if any
    at::Tensor h_qkv, h_o, h_gate_up, h_down;  // [n, rank] T: a in
  };

  at::Tensor Rows(const at::Tensor& buffer) const { return buffer.narrow(0, 0, n_rows_); }
  at::Tensor NewRows(int64_t n_cols) const;
  const TorchRotations& RotationsOf(int64_t layer) const;
  const TorchLayer& Layer(int64_t layer) const {
    return weights_.layers[static_cast<size_t>(layer)];
  }
  Tape& TapeOf(int64_t layer) { return tapes_[static_cast<size_t>(layer)]; }

  // What the adapters of `linear` read of `in`.
  at::Tensor Dropped(const TorchLinear& linear, const at::Tensor& in) const;
  void Project(const TorchLinear& linear, const at::Tensor& in, const at::Tensor& h,
               const at::Tensor& y) const;
  // Adds the adapters' gradients; d_in, if defined, gets the gradient of the input.
  void ProjectBackward(const TorchLinear& linear, const at::Tensor& dy, const at::Tensor& in,
                       const at::Tensor& h, const at::Tensor& d_in) const;
  void QkvFromNormed(int64_t layer);
  void AddToStream(const TorchLinear& linear, const at::Tensor& norm, const at::Tensor& in,
                   const at::Tensor& h, const at::Tensor& raw);
  at::Tensor GradientBehind(const at::Tensor& norm, const at::Tensor& raw) const;
  void AttendPlainly(int64_t layer);
  void AttendPlainlyBackward(int64_t layer, const at::Tensor& d_attended);
  at::Tensor HeadBackward(const at::Tensor& d_logits) const;

  const ArchSpec& spec_;
  const LoraPlan& plan_;
  const TorchWeights& weights_;
  const TorchOps& ops_;
  const TorchDecoderShape shape_;
  const at::TensorOptions narrow_, wide_;  // T and f32 on the device.
  const bool has_flash_;
  TorchRotations rotations_, window_rotations_;

  std::vector<Tape> tapes_;
  at::Tensor stream_, dx_;               // [max_tokens, d_model] f32
  at::Tensor dx_narrow_;                 // The same as dx_, T
  at::Tensor normed_, projected_;        // [max_tokens, d_model] T
  at::Tensor pending_;                   // What the next norm adds to the stream first.
  at::Tensor d_activated_, d_attended_;  // From one backward operation to the next.
  at::Tensor dqkv_;

  // Of the pass.
  int64_t n_rows_ = 0;
  bool is_adapted_ = false, learns_ = false;
  Dropout dropout_;
  std::vector<TrainingRows::Sequence> sequences_;
  at::Tensor tokens_, positions_, starts_;  // [n], [n] i32, [n_sequences + 1] i32
  int64_t longest_ = 0;
  at::Tensor loss_rows_, labels_, nll_;
  at::Tensor hidden_gradient_;  // [n_loss_rows, d_model] f32, of each nll; in the stream's memory
  at::Tensor gradients_;
};

}  // namespace coterie
