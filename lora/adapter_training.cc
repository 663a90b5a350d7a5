#include "lora/adapter_training.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "core/base/read_file.h"
#include "core/base/status_macros.h"
#include "core/base/write_file.h"
#include "lora/served_check.h"

namespace coterie {
namespace {

// What f16 adapters, and bf16 products, may change, in nats a token and as a share of them. An
// adapter that is not applied, or transposed, is off by what was learnt.
constexpr double kServedToleranceF32 = 0.03;
constexpr double kServedToleranceBF16 = 0.1;

// Steps between two checkpoints.
constexpr int64_t kStepsPerCheckpoint = 20;

constexpr int64_t kMaxCheckpointBytes = int64_t{4} << 30;

int64_t TokensOf(const TrainingExample& example) {
  return static_cast<int64_t>(example.sequence.tokens.size() + example.instead.tokens.size());
}

// A pass for the longest example, and for a whole batch of short ones.
int64_t PassTokens(const AdapterTrainingPlan& plan) {
  if (plan.pass_tokens > 0) return plan.pass_tokens;
  constexpr int64_t kUsefulTokens = 512;
  int64_t longest = 2, total = 0;
  for (const TrainingExample& example : plan.material.examples) {
    longest = std::max(longest, TokensOf(example));
    total += TokensOf(example);
  }
  for (const auto& [index, episode] : plan.material.episodes) {
    longest = std::max(longest, TokensOf(episode.example));
  }
  for (const auto* sequences : {&plan.held_out, &plan.material.replay, &plan.probe}) {
    for (const TrainingSequence& sequence : *sequences) {
      longest = std::max(longest, static_cast<int64_t>(sequence.tokens.size()));
    }
  }
  const int64_t n_examples = static_cast<int64_t>(plan.material.examples.size());
  const int64_t mean = total / std::max<int64_t>(1, n_examples);
  return std::max(longest, std::min(kUsefulTokens, mean * plan.order.batch_examples));
}

class Training {
 public:
  Training(const Expert& expert, WorkerPool& pool, MemoryBudget& budget,
           const AdapterTrainingPlan& plan, std::unique_ptr<Trainer> trainer,
           const ExampleOrder& order, const std::function<void(const TrainingProgress&)>& progress,
           std::stop_token cancel)
      : expert_(expert),
        pool_(pool),
        budget_(budget),
        plan_(plan),
        trainer_(std::move(trainer)),
        order_(order),
        progress_(progress),
        cancel_(std::move(cancel)) {}

  // `before`: the incumbent's likelihoods of the held-out cases.
  absl::StatusOr<AdapterTrainingResult> Run(const std::vector<Trainer::Likelihood>& before) {
    COTERIE_ASSIGN_OR_RETURN(const auto general_before,
                             trainer_->Evaluate(plan_.probe, /*adapted=*/false, cancel_));
    COTERIE_RETURN_IF_ERROR(Resume());
    COTERIE_RETURN_IF_ERROR(Learn());
    COTERIE_RETURN_IF_ERROR(Judge(before, general_before));
    std::error_code ignored;
    if (!plan_.checkpoint_path.empty()) std::filesystem::remove(plan_.checkpoint_path, ignored);
    return std::move(result_);
  }

 private:
  absl::Status Judge(const std::vector<Trainer::Likelihood>& before,
                     const std::vector<Trainer::Likelihood>& general_before) {
    Report(TrainingProgress::Phase::kJudging);
    COTERIE_ASSIGN_OR_RETURN(const auto after, trainer_->Evaluate(plan_.held_out, true, cancel_));
    COTERIE_ASSIGN_OR_RETURN(const auto general_after,
                             trainer_->Evaluate(plan_.probe, true, cancel_));
    result_.gate = JudgeCandidate(before, after, general_before, general_after, plan_.gate);
    result_.deltas = trainer_->Deltas();
    result_.memory_bytes = trainer_->memory_bytes();
    result_.recompute = trainer_->recompute();
    result_.is_bf16 = trainer_->is_bf16();
    return CheckServed();
  }

  // A checkpoint of another plan is of no use and no error.
  absl::Status Resume() {
    if (plan_.checkpoint_path.empty() || !std::filesystem::exists(plan_.checkpoint_path)) {
      return absl::OkStatus();
    }
    COTERIE_ASSIGN_OR_RETURN(const std::string saved,
                             ReadSmallFile(plan_.checkpoint_path, kMaxCheckpointBytes));
    const size_t split = saved.find('\n');
    if (split == std::string::npos || saved.substr(0, split) != order_.fingerprint()) {
      return absl::OkStatus();
    }
    const absl::Status restored =
        trainer_->RestoreState(absl::string_view(saved).substr(split + 1));
    if (restored.ok()) first_step_ = trainer_->n_steps();
    return absl::OkStatus();
  }

  absl::Status Save() const {
    if (plan_.checkpoint_path.empty()) return absl::OkStatus();
    return WriteFileAtomically(plan_.checkpoint_path,
                               absl::StrCat(order_.fingerprint(), "\n", trainer_->SaveState()));
  }

  absl::Status Learn() {
    start_ = absl::Now();
    for (int64_t step = first_step_; step < order_.n_steps(); ++step) {
      const absl::StatusOr<StepReport> report = trainer_->Step(order_.Batch(step), cancel_);
      if (absl::IsCancelled(report.status())) COTERIE_RETURN_IF_ERROR(Save());
      COTERIE_RETURN_IF_ERROR(report.status());
      n_tokens_ += report->n_tokens;
      result_.steps.push_back(*report);
      Report(TrainingProgress::Phase::kTraining);
      if ((step + 1) % kStepsPerCheckpoint == 0) COTERIE_RETURN_IF_ERROR(Save());
    }
    COTERIE_RETURN_IF_ERROR(Save());  // Judging may be stopped too.
    result_.seconds = absl::ToDoubleSeconds(absl::Now() - start_);
    result_.tokens_per_second =
        result_.seconds > 0 ? static_cast<double>(n_tokens_) / result_.seconds : 0;
    return absl::OkStatus();
  }

  void Report(TrainingProgress::Phase phase) const {
    if (progress_ == nullptr) return;
    TrainingProgress now;
    now.phase = phase;
    now.n_steps = order_.n_steps();
    now.memory_bytes = trainer_->memory_bytes();
    if (!result_.steps.empty()) {
      const double seconds = std::max(1e-9, absl::ToDoubleSeconds(absl::Now() - start_));
      const int64_t n_done = static_cast<int64_t>(result_.steps.size());
      now.step = first_step_ + n_done;
      now.epoch = order_.EpochOf(now.step - 1);
      now.loss = result_.steps.back().loss;
      now.tokens_per_second = static_cast<double>(n_tokens_) / seconds;
      now.seconds_left =
          seconds / static_cast<double>(n_done) * static_cast<double>(order_.n_steps() - now.step);
    }
    progress_(now);
  }

  // An adapter that is not applied, or wrongly, would go unnoticed: its loss curve is fine.
  absl::Status CheckServed() {
    const TrainingSequence probe = ServedPart(
        plan_.held_out.empty() ? plan_.material.examples.front().sequence : plan_.held_out.front());
    COTERIE_ASSIGN_OR_RETURN(const auto by_trainer, trainer_->Evaluate({&probe, 1}, true, cancel_));
    COTERIE_ASSIGN_OR_RETURN(
        const DeltaSnapshot served,
        LinearDeltaSet::Create(expert_.spec(), "candidate", trainer_->Deltas()));
    trainer_.reset();  // What serves needs memory too.
    COTERIE_ASSIGN_OR_RETURN(const Trainer::Likelihood by_served,
                             ServedLikelihood(expert_, served, probe, pool_, budget_));
    const double n = static_cast<double>(std::max<int64_t>(1, by_served.n_tokens));
    result_.served_difference = std::fabs(by_served.nll - by_trainer.front().nll) / n;
    const double nll = by_trainer.front().nll / n;
    const double tolerance = result_.is_bf16 ? kServedToleranceBF16 : kServedToleranceF32;
    if (result_.served_difference <= tolerance * (1 + nll)) return absl::OkStatus();
    return absl::InternalError(
        absl::StrCat("self-check failed: served: the adapter as served gives ", by_served.nll / n,
                     " nats a token where the trainer gives ", nll));
  }

  const Expert& expert_;
  WorkerPool& pool_;
  MemoryBudget& budget_;
  const AdapterTrainingPlan& plan_;
  std::unique_ptr<Trainer> trainer_;  // Null at the end, when its memory is wanted.
  const ExampleOrder& order_;
  const std::function<void(const TrainingProgress&)>& progress_;
  const std::stop_token cancel_;
  absl::Time start_;
  int64_t first_step_ = 0;
  int64_t n_tokens_ = 0;
  AdapterTrainingResult result_;
};

// What serves now may have another shape than the candidate: an adapter is measured by a trainer of
// its own, before the candidate's takes its memory.
absl::StatusOr<std::vector<Trainer::Likelihood>> MeasureIncumbent(const Expert& expert,
                                                                  WorkerPool& pool,
                                                                  MemoryBudget& budget,
                                                                  const AdapterTrainingPlan& plan,
                                                                  const std::stop_token& cancel) {
  TrainerOptions options;
  options.precision = plan.options.precision;
  options.recompute = Recompute::kFull;
  for (const LinearDelta& delta : plan.incumbent) {
    options.rank = std::max(options.rank, delta.rank);
  }
  COTERIE_ASSIGN_OR_RETURN(const std::unique_ptr<Trainer> trainer,
                           MakeTrainer(expert, pool, budget, options, PassTokens(plan)));
  COTERIE_RETURN_IF_ERROR(trainer->LoadDeltas(plan.incumbent));
  return trainer->Evaluate(plan.held_out, /*adapted=*/true, cancel);
}

}  // namespace

absl::StatusOr<AdapterTrainingResult> TrainAdapter(
    const Expert& expert, WorkerPool& pool, MemoryBudget& budget, const AdapterTrainingPlan& plan,
    const std::function<void(const TrainingProgress&)>& progress, std::stop_token cancel) {
  if (plan.material.examples.empty()) {
    return absl::InvalidArgumentError("there is nothing to learn from: no examples");
  }
  const ExampleOrder order(plan.material, plan.order);
  TrainerOptions options = plan.options;
  options.total_steps = order.n_steps();
  options.warmup_steps = std::min(options.warmup_steps, std::max<int64_t>(1, order.n_steps() / 5));
  if (progress != nullptr) progress({TrainingProgress::Phase::kMeasuring, 0, order.n_steps()});
  std::vector<Trainer::Likelihood> before;
  if (!plan.incumbent.empty()) {
    COTERIE_ASSIGN_OR_RETURN(before, MeasureIncumbent(expert, pool, budget, plan, cancel));
  }
  COTERIE_ASSIGN_OR_RETURN(std::unique_ptr<Trainer> trainer,
                           MakeTrainer(expert, pool, budget, options, PassTokens(plan)));
  if (plan.incumbent.empty()) {
    COTERIE_ASSIGN_OR_RETURN(before, trainer->Evaluate(plan.held_out, /*adapted=*/false, cancel));
  }
  return Training(expert, pool, budget, plan, std::move(trainer), order, progress,
                  std::move(cancel))
      .Run(before);
}

}  // namespace coterie
