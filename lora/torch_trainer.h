#pragma once

#include <memory>
#include <string>

#include "absl/functional/function_ref.h"

#include "lora/lora_trainer.h"
#include "lora/torch_decoder.h"
#include "lora/torch_ops.h"
#include "lora/torch_weights.h"

#include <ATen/ATen.h>

namespace coterie {

// The trainer on LibTorch, on a GPU or (for tests) the CPU: dequantises the base once onto the
// device, in the type of products, and trains on that copy. Matrices, gradients and moments are f32
// on the device.
class TorchTrainer : public LoraTrainer {
 public:
  // Errors as MakeTrainer, kResourceExhausted where the device has too little memory, with numbers.
  static absl::StatusOr<std::unique_ptr<Trainer>> Make(const ArchSpec& spec,
                                                       const DecoderWeights& weights,
                                                       WorkerPool& pool, MemoryBudget& budget,
                                                       const TrainerOptions& options,
                                                       int64_t max_tokens);

  // Of the device: the most that was allocated there, or on the CPU what was planned.
  int64_t memory_bytes() const override;
  Recompute recompute() const override { return shape_.recompute; }
  bool is_bf16() const override { return shape_.is_bf16; }

 private:
  TorchTrainer(const ArchSpec& spec, const DecoderWeights& weights, WorkerPool& pool,
               const TrainerOptions& options, const LoraPlan& plan, const TorchDecoderShape& shape,
               const at::Device& device, int64_t planned_bytes, Reservation reservation);

  absl::StatusOr<std::vector<float>> Forward(const TrainingRows& rows, PassKind kind,
                                             const std::stop_token& stop) override;
  absl::Status Backward(absl::Span<const float> weights, const std::stop_token& stop) override;
  absl::Status ClearGradients() override;
  absl::StatusOr<double> GradientNorm() const override;
  absl::Status Update(const AdamStep& step) override;
  std::vector<float> Read(Array array) const override;
  void Write(Array array, std::vector<float> values) override;
  absl::string_view Kind() const override { return "coterie torch trainer 1"; }
  double LikelihoodTolerance() const override;

  // Runs torch code on the device; what it throws becomes a status.
  absl::Status Guarded(absl::FunctionRef<void()> body) const;
  const at::Tensor& Held(Array array) const { return arrays_[static_cast<size_t>(array)]; }
  void PlaceAdapter() { ops_.Place(Held(Array::kValues), weights_.operands, plan().scale()); }

  const ArchSpec& spec_;
  const DecoderWeights& decoder_weights_;
  const TorchDecoderShape shape_;
  const at::Device device_;
  const int64_t planned_bytes_;
  Reservation reservation_;  // Of RAM: what passes by when weights and matrices are copied.
  TorchOps ops_;
  TorchWeights weights_;
  TorchDecoder decoder_;
  at::Tensor arrays_[4];  // By Array: [n_values] f32 each.
};

}  // namespace coterie
