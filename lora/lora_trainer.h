#pragma once

// What every trainer does, wherever its tensors live: checks of examples and options, passes over
// a batch, likelihoods of the base as references, the objective, self-checks, checkpoints.

#include <map>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "experts/arch_spec.h"
#include "lora/lora_parameters.h"
#include "lora/trainer.h"
#include "lora/training_objective.h"
#include "lora/training_rows.h"

namespace coterie {

// A back end holds the matrices of a plan, their gradients and two moments of AdamW
// (arXiv 1711.05101), takes passes of rows through the decoder forward and back, and steps.
// Thread-compatible, as Trainer.
class LoraTrainer : public Trainer {
 public:
  absl::StatusOr<StepReport> Step(absl::Span<const TrainingExample> batch,
                                  std::stop_token cancel) final;
  absl::StatusOr<std::vector<Likelihood>> Evaluate(absl::Span<const TrainingSequence> sequences,
                                                   bool adapted, std::stop_token cancel) final;
  std::vector<LinearDelta> Deltas() const final { return plan_.AsDeltas(Read(Array::kValues)); }
  std::vector<LinearDelta> Gradients() const final {
    return plan_.AsDeltas(Read(Array::kGradients));
  }
  absl::Status LoadDeltas(absl::Span<const LinearDelta> deltas) final;
  std::string SaveState() const final;
  absl::Status RestoreState(absl::string_view state) final;
  int64_t n_steps() const final { return n_steps_; }

 protected:
  // Values are what is trained. In the layout of the plan, f32.
  enum class Array : uint8_t { kValues, kFirstMoments, kSecondMoments, kGradients };

  // What a pass is for: likelihoods, with the adapter or of the base alone, or those and gradients.
  enum class PassKind : uint8_t { kBase, kAdapted, kLearning };

  // Those in a checkpoint.
  static constexpr Array kKept[] = {Array::kValues, Array::kFirstMoments, Array::kSecondMoments};

  // One step of AdamW. clip multiplies gradients; the corrections are 1 / (1 - beta^n).
  struct AdamStep {
    float clip = 1;
    float rate = 0;
    float correction1 = 1, correction2 = 1;
  };

  // max_tokens: of a pass.
  LoraTrainer(const ArchSpec& spec, const TrainerOptions& options, const LoraPlan& plan,
              int64_t max_tokens);

  // Options and extents that no trainer takes: kInvalidArgument, kUnimplemented.
  static absl::Status CheckOptions(const ArchSpec& spec, const TrainerOptions& options,
                                   int64_t max_tokens);

  // Negative log-likelihood of each loss row. The rows live until Backward.
  virtual absl::StatusOr<std::vector<float>> Forward(const TrainingRows& rows, PassKind kind,
                                                     const std::stop_token& stop) = 0;
  // Adds the gradients of a kLearning pass, the last one made: of the sum over loss rows of weight
  // times likelihood.
  virtual absl::Status Backward(absl::Span<const float> weights, const std::stop_token& stop) = 0;
  virtual absl::Status ClearGradients() = 0;
  virtual absl::StatusOr<double> GradientNorm() const = 0;  // Of all values together.
  virtual absl::Status Update(const AdamStep& step) = 0;
  virtual std::vector<float> Read(Array array) const = 0;
  virtual void Write(Array array, std::vector<float> values) = 0;
  virtual absl::string_view Kind() const = 0;  // Of checkpoints: a back end and a version.
  // How far, relative to the loss, rounding may move a likelihood between two passes.
  virtual double LikelihoodTolerance() const { return 1e-6; }

  const LoraPlan& plan() const { return plan_; }
  const TrainerOptions& options() const { return options_; }

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

  absl::Status CheckSequence(const TrainingSequence& sequence, absl::string_view id) const;
  absl::StatusOr<int64_t> CheckExample(const TrainingExample& example) const;  // Its tokens.
  absl::Status AddReferences(absl::Span<const TrainingExample> batch, const std::stop_token& stop);
  static void AddMember(const TrainingSequence& sequence, size_t example, bool is_instead,
                        Pass& pass);
  absl::Status Run(Pass& pass, PassKind kind, const std::stop_token& stop);
  Dropout DropoutOf(size_t pass) const;
  absl::StatusOr<double> Learn(Pass& pass, absl::Span<const TrainingExample> batch,
                               const BatchTotals& totals, const std::stop_token& stop);
  absl::Status CheckGradients() const;
  absl::Status CheckFirstLoss(double loss, absl::Span<const TrainingExample> batch) const;
  double LearningRate(int64_t step) const;
  absl::StatusOr<double> ClipAndUpdate();
  std::string Fingerprint() const;

  const ArchSpec& spec_;
  const TrainerOptions options_;
  const LoraPlan plan_;
  const int64_t max_tokens_;
  int64_t n_steps_ = 0;
  // Likelihoods of the base by the bytes of tokens and targets.
  std::map<std::string, double> references_;
};

}  // namespace coterie
