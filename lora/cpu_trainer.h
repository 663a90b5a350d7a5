#pragma once

#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "core/memory/aligned_buffer.h"
#include "lora/lora_parameters.h"
#include "lora/lora_trainer.h"
#include "lora/training_decoder.h"
#include "lora/training_memory.h"

namespace coterie {

// The trainer on the CPU: passes of TrainingDecoder on the weights as they are served.
class CpuTrainer : public LoraTrainer {
 public:
  static absl::StatusOr<std::unique_ptr<Trainer>> Make(const ArchSpec& spec,
                                                       const DecoderWeights& weights,
                                                       WorkerPool& pool, MemoryBudget& budget,
                                                       const TrainerOptions& options,
                                                       int64_t max_tokens);

  int64_t memory_bytes() const override { return reservation_.bytes() + kept_.bytes(); }
  Recompute recompute() const override { return shape_.recompute; }
  bool is_bf16() const override { return shape_.is_bf16; }

 private:
  // The memory is charged already.
  CpuTrainer(const ArchSpec& spec, const DecoderWeights& weights, WorkerPool& pool,
             MemoryBudget& budget, const TrainerOptions& options, const LoraPlan& plan,
             const TrainingShape& shape, Reservation reservation);

  absl::StatusOr<std::vector<float>> Forward(const TrainingRows& rows, PassKind kind,
                                             const std::stop_token& stop) override;
  absl::Status Backward(absl::Span<const float> weights, const std::stop_token& stop) override;
  absl::Status ClearGradients() override;
  absl::StatusOr<double> GradientNorm() const override;
  absl::Status Update(const AdamStep& step) override;
  std::vector<float> Read(Array array) const override;
  void Write(Array array, std::vector<float> values) override;
  absl::string_view Kind() const override { return "coterie trainer 1"; }

  bool LoadFirstInputs(const TrainingRows& rows);
  void KeepFirstInputs(const TrainingRows& rows);

  const ArchSpec& spec_;
  const DecoderWeights& weights_;
  WorkerPool& pool_;
  MemoryBudget& budget_;
  const TrainingShape shape_;
  const TrainingShape likelihood_shape_;  // The same without a backward pass.
  LoraParameters parameters_;
  std::vector<float> first_moments_, second_moments_;

  Reservation reservation_;  // Of everything here but kept_.
  TrainingLayout layout_;    // Into the buffer.
  AlignedBuffer buffer_;
  std::optional<TrainingDecoder> decoder_;  // Between the two halves of a learning pass.

  // Inputs of the first adapted layer, which the base alone decides, by the bytes of their tokens.
  std::map<std::string, std::vector<float>> first_inputs_;
  Reservation kept_;
};

}  // namespace coterie
