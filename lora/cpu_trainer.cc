#include "lora/cpu_trainer.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "core/base/byte_size.h"
#include "core/base/status_macros.h"
#include "experts/decoder.h"

namespace coterie {
namespace {

absl::StatusOr<bool> WantsBF16(TrainingPrecision precision) {
  const bool has = TrainingKernels().forward_bf16 != nullptr;
  if (precision == TrainingPrecision::kBF16 && !has) {
    return absl::UnimplementedError(
        "this CPU has no bf16 products; train with precision auto or f32");
  }
  return has && precision != TrainingPrecision::kF32;
}

struct RecomputePlan {
  Recompute recompute;
  int64_t gates_kept_from;
};

// From none to full; what is partial in steps of an eighth of the layers, where it may be so.
std::vector<RecomputePlan> RecomputePlans(const ArchSpec& spec, const LoraPlan& plan,
                                          std::optional<Recompute> wanted) {
  constexpr int64_t kSteps = 8;
  const int64_t n_adapted = spec.n_layers - plan.first_layer();
  std::vector<RecomputePlan> plans = {{Recompute::kNone, 0}};
  for (int64_t step = wanted ? kSteps : 1; step <= kSteps; ++step) {
    const int64_t n_again = (n_adapted * step + kSteps - 1) / kSteps;
    plans.push_back({Recompute::kPartial, plan.first_layer() + n_again});
  }
  plans.push_back({Recompute::kFull, spec.n_layers});
  if (wanted) std::erase_if(plans, [&](const auto& p) { return p.recompute != *wanted; });
  return plans;
}

// Charges the least recomputation that the budget has room for, and says so in `shape`.
absl::StatusOr<Reservation> TakeMemory(const ArchSpec& spec, const TrainerOptions& options,
                                       const LoraPlan& plan, MemoryBudget& budget,
                                       TrainingShape& shape) {
  // Values, gradients and two moments.
  const int64_t parameter_bytes = plan.n_values() * 4 * static_cast<int64_t>(sizeof(float));
  absl::Status refused;
  for (const RecomputePlan& candidate : RecomputePlans(spec, plan, options.recompute)) {
    shape.recompute = candidate.recompute;
    shape.gates_kept_from = candidate.gates_kept_from;
    TrainingLayout measured;
    const int64_t bytes = parameter_bytes + LayOutTraining(spec, options, shape, nullptr, measured);
    absl::StatusOr<Reservation> reserved = budget.Reserve(Purpose::kTraining, bytes);
    if (reserved.ok()) return reserved;
    refused = absl::Status(
        reserved.status().code(),
        absl::StrCat("training does not fit the memory budget: it needs ", FormatBytes(bytes),
                     " for passes of ", shape.n_rows, " tokens; ", reserved.status().message()));
  }
  return refused;
}

TrainingShape WithoutBackward(TrainingShape shape) {
  shape.backward = false;
  return shape;
}

}  // namespace

CpuTrainer::CpuTrainer(const ArchSpec& spec, const DecoderWeights& weights, WorkerPool& pool,
                       MemoryBudget& budget, const TrainerOptions& options, const LoraPlan& plan,
                       const TrainingShape& shape, Reservation reservation)
    : LoraTrainer(spec, options, plan, shape.n_rows),
      spec_(spec),
      weights_(weights),
      pool_(pool),
      budget_(budget),
      shape_(shape),
      likelihood_shape_(WithoutBackward(shape)),
      parameters_(plan, options.seed),
      first_moments_(parameters_.values().size()),
      second_moments_(parameters_.values().size()),
      reservation_(std::move(reservation)),
      buffer_(LayOutTraining(spec, options, shape, nullptr, layout_)) {
  LayOutTraining(spec, options, shape, buffer_.data(), layout_);
}

absl::StatusOr<std::unique_ptr<Trainer>> CpuTrainer::Make(const ArchSpec& spec,
                                                          const DecoderWeights& weights,
                                                          WorkerPool& pool, MemoryBudget& budget,
                                                          const TrainerOptions& options,
                                                          int64_t max_tokens) {
  COTERIE_RETURN_IF_ERROR(CheckOptions(spec, options, max_tokens));
  TrainingShape shape;
  shape.n_rows = shape.max_sequence = max_tokens;
  shape.n_workers = pool.n_workers();
  COTERIE_ASSIGN_OR_RETURN(shape.is_bf16, WantsBF16(options.precision));
  shape.as_served = options.precision == TrainingPrecision::kAuto;
  const LoraPlan plan(spec, options);
  COTERIE_ASSIGN_OR_RETURN(Reservation reservation, TakeMemory(spec, options, plan, budget, shape));
  return std::unique_ptr<Trainer>(
      new CpuTrainer(spec, weights, pool, budget, options, plan, shape, std::move(reservation)));
}

absl::StatusOr<std::vector<float>> CpuTrainer::Forward(const TrainingRows& rows, PassKind kind,
                                                       const std::stop_token& stop) {
  LoraParameters* parameters = kind == PassKind::kBase ? nullptr : &parameters_;
  decoder_.emplace(spec_, rows, layout_, kind == PassKind::kLearning ? shape_ : likelihood_shape_,
                   parameters, pool_, stop);
  const int64_t first = parameters == nullptr ? 0 : parameters->first_layer();
  const bool known = first > 0 && LoadFirstInputs(rows);
  const bool done =
      RunDecoder(spec_, weights_, *decoder_, stop, known ? first : 0) && !decoder_->stopped();
  if (!done) return absl::CancelledError("training was stopped");
  if (first > 0 && !known) KeepFirstInputs(rows);
  return decoder_->nll();
}

absl::Status CpuTrainer::Backward(absl::Span<const float> weights, const std::stop_token& stop) {
  decoder_->WeighLoss(weights);
  const bool done =
      RunDecoderBackward(spec_, weights_, *decoder_, stop, parameters_.first_layer()) &&
      !decoder_->stopped();
  decoder_.reset();
  return done ? absl::OkStatus() : absl::CancelledError("training was stopped");
}

bool CpuTrainer::LoadFirstInputs(const TrainingRows& rows) {
  float* x = layout_.x[static_cast<size_t>(parameters_.first_layer())];
  std::vector<const std::vector<float>*> found;
  for (const TrainingRows::Sequence& sequence : rows.sequences) {
    const auto it = first_inputs_.find(
        TokenBytes(rows.tokens.data() + sequence.first, static_cast<size_t>(sequence.n_tokens)));
    if (it == first_inputs_.end()) return false;
    found.push_back(&it->second);
  }
  for (size_t i = 0; i < found.size(); ++i) {
    std::copy(found[i]->begin(), found[i]->end(), x + rows.sequences[i].first * spec_.d_model);
  }
  return true;
}

// As far as there is room in the budget.
void CpuTrainer::KeepFirstInputs(const TrainingRows& rows) {
  const float* x = layout_.x[static_cast<size_t>(parameters_.first_layer())];
  for (const TrainingRows::Sequence& sequence : rows.sequences) {
    std::string key =
        TokenBytes(rows.tokens.data() + sequence.first, static_cast<size_t>(sequence.n_tokens));
    if (first_inputs_.count(key) > 0) continue;
    const int64_t n = sequence.n_tokens * spec_.d_model;
    const int64_t bytes = n * static_cast<int64_t>(sizeof(float)) + sequence.n_tokens * 4;
    std::vector<Reservation> given;
    given.push_back(std::move(kept_));
    const int64_t wanted = given.front().bytes() + bytes;
    auto grown = budget_.Exchange(given, {{Purpose::kTraining, wanted}});
    kept_ = grown.ok() ? std::move(grown->front()) : std::move(given.front());
    if (!grown.ok()) return;
    const float* from = x + sequence.first * spec_.d_model;
    first_inputs_[std::move(key)].assign(from, from + n);
  }
}

absl::Status CpuTrainer::ClearGradients() {
  std::fill(parameters_.gradients().begin(), parameters_.gradients().end(), 0.0f);
  return absl::OkStatus();
}

absl::StatusOr<double> CpuTrainer::GradientNorm() const {
  double squares = 0;
  for (const float g : parameters_.gradients()) squares += static_cast<double>(g) * g;
  return std::sqrt(squares);
}

absl::Status CpuTrainer::Update(const AdamStep& adam) {
  const TrainerOptions& o = options();
  std::vector<float>& values = parameters_.values();
  for (size_t i = 0; i < values.size(); ++i) {
    const float g = parameters_.gradients()[i] * adam.clip;
    float& m = first_moments_[i];
    float& v = second_moments_[i];
    m = o.beta1 * m + (1 - o.beta1) * g;
    v = o.beta2 * v + (1 - o.beta2) * g * g;
    const float step = m * adam.correction1 / (std::sqrt(v * adam.correction2) + o.epsilon);
    values[i] -= adam.rate * (step + o.weight_decay * values[i]);
  }
  return absl::OkStatus();
}

std::vector<float> CpuTrainer::Read(Array array) const {
  switch (array) {
    case Array::kValues:
      return parameters_.values();
    case Array::kGradients:
      return parameters_.gradients();
    case Array::kFirstMoments:
      return first_moments_;
    case Array::kSecondMoments:
      break;
  }
  return second_moments_;
}

void CpuTrainer::Write(Array array, std::vector<float> values) {
  switch (array) {
    case Array::kValues:
      parameters_.values() = std::move(values);
      return;
    case Array::kGradients:
      parameters_.gradients() = std::move(values);
      return;
    case Array::kFirstMoments:
      first_moments_ = std::move(values);
      return;
    case Array::kSecondMoments:
      second_moments_ = std::move(values);
  }
}

}  // namespace coterie
