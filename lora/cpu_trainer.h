#pragma once

#include <map>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "core/memory/aligned_buffer.h"
#include "lora/lora_parameters.h"
#include "lora/trainer.h"
#include "lora/training_decoder.h"
#include "lora/training_memory.h"
#include "lora/training_objective.h"

namespace coterie {

// The trainer on the CPU: passes of TrainingDecoder, AdamW (arXiv 1711.05101), and checks against
// training that looks healthy and is not.
class CpuTrainer : public Trainer {
 public:
  static absl::StatusOr<std::unique_ptr<Trainer>> Make(const ArchSpec& spec,
                                                       const DecoderWeights& weights,
                                                       WorkerPool& pool, MemoryBudget& budget,
                                                       const TrainerOptions& options,
                                                       int64_t max_tokens);

  absl::StatusOr<StepReport> Step(absl::Span<const TrainingExample> batch,
                                  std::stop_token cancel) override;
  absl::StatusOr<std::vector<Likelihood>> Evaluate(absl::Span<const TrainingSequence> sequences,
                                                   bool adapted, std::stop_token cancel) override;
  std::vector<LinearDelta> Deltas() const override {
    return parameters_.AsDeltas(parameters_.values());
  }
  std::vector<LinearDelta> Gradients() const override {
    return parameters_.AsDeltas(parameters_.gradients());
  }
  absl::Status LoadDeltas(absl::Span<const LinearDelta> deltas) override {
    return parameters_.Load(deltas);
  }
  std::string SaveState() const override;
  absl::Status RestoreState(absl::string_view state) override;
  int64_t n_steps() const override { return n_steps_; }
  int64_t memory_bytes() const override { return reservation_.bytes() + kept_.bytes(); }
  Recompute recompute() const override { return shape_.recompute; }
  bool is_bf16() const override { return shape_.is_bf16; }

 private:
  // One sequence in a pass, and what its tokens' likelihoods weigh in the loss.
  struct Member {
    const TrainingSequence* sequence = nullptr;
    size_t example = 0;
    bool is_instead = false;
    double nll = 0;
  };
  // What a pass over members needs besides them.
  struct Pass {
    std::vector<Member> members;
    TrainingRows rows;
    std::vector<size_t> loss_member;  // Of each loss row.
  };

  // The memory is charged already.
  CpuTrainer(const ArchSpec& spec, const DecoderWeights& weights, WorkerPool& pool,
             MemoryBudget& budget, const TrainerOptions& options, const LoraPlan& plan,
             const TrainingShape& shape, Reservation reservation);
  absl::Status CheckSequence(const TrainingSequence& sequence, absl::string_view id) const;
  absl::StatusOr<int64_t> CheckExample(const TrainingExample& example) const;  // Its tokens.
  absl::Status AddReferences(absl::Span<const TrainingExample> batch, const std::stop_token& stop);
  void AddMember(const TrainingSequence& sequence, size_t example, bool is_instead,
                 Pass& pass) const;
  absl::Status Forward(Pass& pass, LoraParameters* parameters, TrainingDecoder& decoder,
                       const std::stop_token& stop);
  absl::StatusOr<double> Learn(Pass& pass, absl::Span<const TrainingExample> batch,
                               const BatchTotals& totals, const std::stop_token& stop);
  bool LoadFirstInputs(const TrainingRows& rows);
  void KeepFirstInputs(const TrainingRows& rows);
  absl::Status CheckGradients() const;
  absl::Status CheckFirstLoss(double loss, absl::Span<const TrainingExample> batch) const;
  double LearningRate(int64_t step) const;
  double Update();
  std::string Fingerprint() const;

  const ArchSpec& spec_;
  const DecoderWeights& weights_;
  WorkerPool& pool_;
  MemoryBudget& budget_;
  const TrainerOptions options_;
  const TrainingShape shape_;
  LoraParameters parameters_;
  std::vector<float> first_moments_, second_moments_;
  int64_t n_steps_ = 0;

  Reservation reservation_;  // Of everything here but kept_.
  TrainingLayout layout_;    // Into the buffer.
  AlignedBuffer buffer_;

  // By the bytes of their tokens: inputs of the first adapted layer, which the base alone decides,
  // and by those of tokens and targets: likelihoods of the base.
  std::map<std::string, std::vector<float>> first_inputs_;
  std::map<std::string, double> references_;
  Reservation kept_;
};

}  // namespace coterie
