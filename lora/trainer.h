#pragma once

// Training of LoRA adapters on the weights that are being served.

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "core/formats/tokenizer.h"
#include "core/memory/memory_budget.h"
#include "core/threads/worker_pool.h"
#include "experts/expert.h"
#include "experts/linear_delta.h"

namespace coterie {

// What a sequence teaches.
enum class Objective : uint8_t {
  kImitate,     // Supervised: the loss is the mean negative log-likelihood of its target tokens.
  kPrefer,      // DPO (arXiv 2305.18290): this sequence rather than `instead`, beside kImitate.
  kEncourage,   // apo_zero_unpaired (arXiv 2408.06266), the accepted side: 1 - sigmoid(beta * r).
  kDiscourage,  // The rejected side: sigmoid(beta * r). r: log-ratio to the base, summed.
};

// Tokens of one conversation. Token i is in the loss if is_target[i]: it is predicted from those
// before it, so the first never is.
struct TrainingSequence {
  std::vector<TokenId> tokens;
  std::vector<bool> is_target;  // [tokens.size()]
  // What is to be predicted in the place of each target, [tokens.size()]; empty: the tokens.
  std::vector<TokenId> labels;

  absl::Span<const TokenId> wanted() const { return labels.empty() ? tokens : labels; }
};

struct TrainingExample {
  std::string id;  // Of the interaction; for ledgers, not for the trainer.
  Objective objective = Objective::kImitate;
  TrainingSequence sequence;
  TrainingSequence instead;  // kPrefer only.
  float weight = 1;          // Multiplies the example's loss,
  float preference = 1;      // and its preference term alone.
};

// What a backward pass computes again rather than keeps: nothing, gates and ups of some or all
// layers, or whole layers.
enum class Recompute : uint8_t { kNone, kPartial, kFull };
enum class TrainingPrecision : uint8_t {
  // As the expert answers: products with quantised weights on 8-bit inputs, and their backward
  // products on 8-bit gradients; all others in bf16 where the CPU has them, else in f32.
  kAuto,
  kF32,
  kBF16,
};

// "auto", "f32", "bf16".
absl::string_view PrecisionName(TrainingPrecision precision);
// kInvalidArgument for another name.
absl::StatusOr<TrainingPrecision> PrecisionFromName(absl::string_view name);

// Defaults by the evidence of the LoRA literature at this scale; see docs/learning.md.
struct TrainerOptions {
  int64_t rank = 8;
  float alpha = 16;
  bool rslora = false;               // scale = alpha / sqrt(rank) instead of alpha / rank.
  std::vector<LayerLinear> targets;  // Empty: all seven.
  int64_t top_layers = 0;            // Adapt only the last so many; 0: all.
  float dropout = 0;                 // Of the inputs of A, [0, 1): see lora/dropout.h.
  float learning_rate = 1e-3f;
  int64_t warmup_steps = 10;  // Linear; after it the rate falls linearly to 0 at the end.
  int64_t total_steps = 0;    // 0: no decay.
  float clip_norm = 1;        // Of the gradient of all matrices together; 0: none.
  float weight_decay = 0;
  float beta1 = 0.9f, beta2 = 0.999f, epsilon = 1e-8f;  // AdamW.
  float preference_beta = 0.1f;                         // Of kPrefer, kEncourage and kDiscourage,
  float preference_weight = 0.2f;  // and what their terms weigh beside imitation.
  uint64_t seed = 0;
  TrainingPrecision precision = TrainingPrecision::kAuto;
  // None: the least that the budget has room for, down to some layers' gates and ups.
  std::optional<Recompute> recompute;
  std::string device = "cpu";  // Or "cuda", "cuda:1": see docs/gpu.md.
};

struct StepReport {
  int64_t step = 0;          // Steps done, this one included.
  double loss = 0;           // Of the batch before the step; see TrainingObjective.
  double gradient_norm = 0;  // Before clipping.
  double learning_rate = 0;
  int64_t n_tokens = 0;         // Of the batch.
  int64_t n_target_tokens = 0;  // Of those, in the loss.
};

// Trains one adapter. Thread-compatible. All parallel work runs on the pool, and between two pieces
// of it a request may take its turn. The expert is held by whoever made the trainer.
class Trainer {
 public:
  virtual ~Trainer() = default;

  // One step of the optimiser over a batch: the gradient of its loss, clipped, applied. After an
  // error nothing has changed.
  //   kInvalidArgument     an empty example, one without targets, a token outside the vocabulary
  //   kResourceExhausted   a sequence too long for the memory granted, with the numbers
  //   kCancelled           `cancel` was requested
  //   kInternal            a self-check failed, by its name: see docs/learning.md
  virtual absl::StatusOr<StepReport> Step(absl::Span<const TrainingExample> batch,
                                          std::stop_token cancel) = 0;

  // Sums of negative log-likelihood, and numbers, of the target tokens of each sequence, with the
  // adapter as it is now (`adapted`) or without.
  struct Likelihood {
    double nll = 0;
    int64_t n_tokens = 0;
  };
  virtual absl::StatusOr<std::vector<Likelihood>> Evaluate(
      absl::Span<const TrainingSequence> sequences, bool adapted, std::stop_token cancel) = 0;

  // The adapter as it is now, rows in the order of the base as served.
  virtual std::vector<LinearDelta> Deltas() const = 0;

  // Puts an adapter in the place of the present one: of the rank or less, and only where this
  // trainer adapts; kInvalidArgument otherwise. The optimiser is not touched.
  virtual absl::Status LoadDeltas(absl::Span<const LinearDelta> deltas) = 0;

  // Gradients of the last Step before clipping, for tests: `a` and `b` hold them instead.
  virtual std::vector<LinearDelta> Gradients() const = 0;

  // Adapter, optimiser and step count as bytes, and back: what is restored goes on bit for bit as
  // what was saved would have. kDataLoss for damaged bytes, kFailedPrecondition for those of other
  // options or another base.
  virtual std::string SaveState() const = 0;
  virtual absl::Status RestoreState(absl::string_view state) = 0;

  virtual int64_t n_steps() const = 0;       // Done so far.
  virtual int64_t memory_bytes() const = 0;  // Charged for training now.
  virtual Recompute recompute() const = 0;   // As chosen.
  virtual bool is_bf16() const = 0;
};

// Makes a trainer whose passes hold max_tokens tokens at most, of one example or of several. The
// expert, the pool and the budget outlive it.
//   kInvalidArgument     an option out of range, naming it
//   kUnimplemented       a device, a precision or an option that this build or CPU does not have
//   kResourceExhausted   not even passes with full recomputation fit the budget, with the numbers
absl::StatusOr<std::unique_ptr<Trainer>> MakeTrainer(const Expert& expert, WorkerPool& pool,
                                                     MemoryBudget& budget,
                                                     const TrainerOptions& options,
                                                     int64_t max_tokens);

}  // namespace coterie
