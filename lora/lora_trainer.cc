#include "lora/lora_trainer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/random_bits.h"
#include "core/base/status_macros.h"

namespace coterie {
namespace {

// Sequences beyond this many tokens are refused rather than trained at any price.
constexpr int64_t kMaxPassTokens = 1 << 16;

// More than any training takes; a checkpoint that says more is damaged.
constexpr int64_t kMaxSteps = int64_t{1} << 40;

constexpr double kLn2 = 0.69314718055994531;

std::string ReferenceKey(const TrainingSequence& sequence) {
  std::string key = TokenBytes(sequence.tokens.data(), sequence.tokens.size()) +
                    TokenBytes(sequence.labels.data(), sequence.labels.size());
  for (const bool is_target : sequence.is_target) key.push_back(is_target ? '\1' : '\0');
  return key;
}

bool AreFinite(absl::string_view floats) {
  for (; !floats.empty(); floats.remove_prefix(sizeof(float))) {
    float value;
    std::memcpy(&value, floats.data(), sizeof(value));
    if (!std::isfinite(value)) return false;
  }
  return true;
}

}  // namespace

LoraTrainer::LoraTrainer(const ArchSpec& spec, const TrainerOptions& options, const LoraPlan& plan,
                         int64_t max_tokens)
    : spec_(spec), options_(options), plan_(plan), max_tokens_(max_tokens) {}

absl::Status LoraTrainer::CheckOptions(const ArchSpec& spec, const TrainerOptions& options,
                                       int64_t max_tokens) {
  COTERIE_RETURN_IF_ERROR(LoraPlan::Check(spec, options));
  if (max_tokens < 2 || max_tokens > kMaxPassTokens) {
    return absl::InvalidArgumentError(absl::StrCat("a training pass holds 2 to ", kMaxPassTokens,
                                                   " tokens: max_tokens=", max_tokens));
  }
  return absl::OkStatus();
}

absl::Status LoraTrainer::CheckSequence(const TrainingSequence& sequence,
                                        absl::string_view id) const {
  const auto refuse = [&](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat("cannot learn from an example: ", what,
                                                   ": tokens=", sequence.tokens.size(),
                                                   ", example=", id));
  };
  if (sequence.tokens.size() != sequence.is_target.size()) return refuse("targets do not match");
  if (sequence.tokens.size() < 2) return refuse("it is too short");
  if (sequence.is_target[0]) return refuse("nothing comes before its first token");
  if (std::count(sequence.is_target.begin(), sequence.is_target.end(), true) == 0) {
    return refuse("it has no target tokens");
  }
  if (sequence.wanted().size() != sequence.tokens.size()) return refuse("labels do not match");
  for (const absl::Span<const TokenId> tokens :
       {absl::MakeSpan(sequence.tokens), sequence.wanted()}) {
    for (const TokenId token : tokens) {
      if (token < 0 || token >= spec_.n_vocab) return refuse("a token is not in the vocabulary");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> LoraTrainer::CheckExample(const TrainingExample& example) const {
  COTERIE_RETURN_IF_ERROR(CheckSequence(example.sequence, example.id));
  int64_t n_tokens = static_cast<int64_t>(example.sequence.tokens.size());
  if (example.objective == Objective::kPrefer) {
    COTERIE_RETURN_IF_ERROR(CheckSequence(example.instead, example.id));
    n_tokens += static_cast<int64_t>(example.instead.tokens.size());
  }
  if (n_tokens > max_tokens_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("an example is longer than a training pass: tokens=", n_tokens,
                     ", max_tokens=", max_tokens_, ", example=", example.id));
  }
  if (!(example.weight >= 0) || !std::isfinite(example.weight)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "an example's weight is not a number from 0: ", example.weight, ", example=", example.id));
  }
  return n_tokens;
}

void LoraTrainer::AddMember(const TrainingSequence& sequence, size_t example, bool is_instead,
                            Pass& pass) {
  const int64_t first = pass.rows.n_rows();
  const int64_t n = static_cast<int64_t>(sequence.tokens.size());
  pass.rows.sequences.push_back({first, n});
  pass.rows.tokens.insert(pass.rows.tokens.end(), sequence.tokens.begin(), sequence.tokens.end());
  for (int64_t t = 1; t < n; ++t) {
    if (!sequence.is_target[static_cast<size_t>(t)]) continue;
    pass.rows.loss_rows.push_back(first + t - 1);
    pass.rows.loss_labels.push_back(sequence.wanted()[static_cast<size_t>(t)]);
    pass.loss_member.push_back(pass.members.size());
  }
  pass.members.push_back({&sequence, example, is_instead, 0});
}

absl::Status LoraTrainer::Run(Pass& pass, PassKind kind, const std::stop_token& stop) {
  COTERIE_ASSIGN_OR_RETURN(const std::vector<float> nll, Forward(pass.rows, kind, stop));
  for (size_t i = 0; i < nll.size(); ++i) {
    pass.members[pass.loss_member[i]].nll += static_cast<double>(nll[i]);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Trainer::Likelihood>> LoraTrainer::Evaluate(
    absl::Span<const TrainingSequence> sequences, bool adapted, std::stop_token cancel) {
  std::vector<Likelihood> out(sequences.size());
  for (size_t i = 0; i < sequences.size();) {
    Pass pass;
    const size_t begin = i;
    for (; i < sequences.size(); ++i) {
      COTERIE_RETURN_IF_ERROR(CheckSequence(sequences[i], absl::StrCat("sequence ", i)));
      const int64_t n = static_cast<int64_t>(sequences[i].tokens.size());
      if (n > max_tokens_) {
        return absl::ResourceExhaustedError(absl::StrCat(
            "a sequence is longer than a training pass: tokens=", n, ", max_tokens=", max_tokens_));
      }
      if (pass.rows.n_rows() + n > max_tokens_) break;
      AddMember(sequences[i], i, false, pass);
    }
    COTERIE_RETURN_IF_ERROR(Run(pass, adapted ? PassKind::kAdapted : PassKind::kBase, cancel));
    for (size_t m = 0; m < pass.members.size(); ++m) out[begin + m].nll = pass.members[m].nll;
    for (const size_t member : pass.loss_member) ++out[begin + member].n_tokens;
  }
  return out;
}

absl::Status LoraTrainer::AddReferences(absl::Span<const TrainingExample> batch,
                                        const std::stop_token& stop) {
  std::vector<TrainingSequence> unknown;
  for (const TrainingExample& example : batch) {
    if (!NeedsReference(example.objective)) continue;
    for (const TrainingSequence* sequence : {&example.sequence, &example.instead}) {
      if (sequence->tokens.empty() || references_.count(ReferenceKey(*sequence)) > 0) continue;
      unknown.push_back(*sequence);
    }
  }
  if (unknown.empty()) return absl::OkStatus();
  COTERIE_ASSIGN_OR_RETURN(const std::vector<Likelihood> known,
                           Evaluate(unknown, /*adapted=*/false, stop));
  for (size_t i = 0; i < unknown.size(); ++i) references_[ReferenceKey(unknown[i])] = known[i].nll;
  return absl::OkStatus();
}

// Gradients of one pass, added to those of the step. Returns its part of the loss.
absl::StatusOr<double> LoraTrainer::Learn(Pass& pass, absl::Span<const TrainingExample> batch,
                                          const BatchTotals& totals, const std::stop_token& stop) {
  COTERIE_RETURN_IF_ERROR(Run(pass, PassKind::kLearning, stop));
  double loss = 0;
  std::vector<float> by_nll(pass.members.size());
  for (size_t m = 0; m < pass.members.size(); ++m) {
    const TrainingExample& example = batch[pass.members[m].example];
    ExampleLikelihood likelihood;
    likelihood.nll = pass.members[m].nll;
    const bool has_instead = example.objective == Objective::kPrefer;
    if (NeedsReference(example.objective)) {
      likelihood.base_nll = references_.at(ReferenceKey(example.sequence));
    }
    if (has_instead) {
      likelihood.instead_nll = pass.members[m + 1].nll;
      likelihood.instead_base_nll = references_.at(ReferenceKey(example.instead));
    }
    const ExampleLoss part =
        LossOf(example, likelihood, totals, static_cast<double>(options_.preference_beta));
    loss += part.loss;
    by_nll[m] = static_cast<float>(part.by_nll);
    if (has_instead) by_nll[++m] = static_cast<float>(part.by_instead_nll);
  }
  std::vector<float> weights;
  for (const size_t member : pass.loss_member) weights.push_back(by_nll[member]);
  COTERIE_RETURN_IF_ERROR(Backward(weights, stop));
  return loss;
}

// Another mask for each pass of each step, the same whenever the step is taken again.
Dropout LoraTrainer::DropoutOf(size_t pass) const {
  const uint64_t step = MixBits(options_.seed + static_cast<uint64_t>(n_steps_) * kSplitMixStep);
  return {options_.dropout, step + pass};
}

absl::StatusOr<StepReport> LoraTrainer::Step(absl::Span<const TrainingExample> batch,
                                             std::stop_token cancel) {
  if (batch.empty()) return absl::InvalidArgumentError("a training step needs an example");
  std::vector<Pass> passes;
  StepReport report;
  for (size_t i = 0; i < batch.size(); ++i) {
    COTERIE_ASSIGN_OR_RETURN(const int64_t n_tokens, CheckExample(batch[i]));
    report.n_tokens += n_tokens;
    if (passes.empty() || passes.back().rows.n_rows() + n_tokens > max_tokens_) {
      passes.emplace_back();
    }
    AddMember(batch[i].sequence, i, false, passes.back());
    if (batch[i].objective == Objective::kPrefer) {
      AddMember(batch[i].instead, i, true, passes.back());
    }
  }
  COTERIE_RETURN_IF_ERROR(AddReferences(batch, cancel));
  const BatchTotals totals =
      BatchTotals::Of(batch, static_cast<double>(options_.preference_weight));
  COTERIE_RETURN_IF_ERROR(ClearGradients());
  for (size_t i = 0; i < passes.size(); ++i) {
    Pass& pass = passes[i];
    pass.rows.dropout = DropoutOf(i);
    COTERIE_ASSIGN_OR_RETURN(const double loss, Learn(pass, batch, totals, cancel));
    report.loss += loss;
    report.n_target_tokens += pass.rows.n_loss_rows();
  }
  if (n_steps_ == 0) COTERIE_RETURN_IF_ERROR(CheckFirstLoss(report.loss, batch));
  if (n_steps_ < 2) COTERIE_RETURN_IF_ERROR(CheckGradients());
  report.learning_rate = LearningRate(n_steps_);
  COTERIE_ASSIGN_OR_RETURN(report.gradient_norm, ClipAndUpdate());
  if (!std::isfinite(report.gradient_norm)) {
    return absl::InternalError("self-check failed: finite_gradients: the gradient is not finite");
  }
  report.step = n_steps_;
  return report;
}

// Before the first step the adapter changes nothing, so that preferences know neither side.
absl::Status LoraTrainer::CheckFirstLoss(double loss,
                                         absl::Span<const TrainingExample> batch) const {
  const BatchTotals totals =
      BatchTotals::Of(batch, static_cast<double>(options_.preference_weight));
  double expected = 0, imitated = 0;
  for (const TrainingExample& example : batch) {
    if (!NeedsReference(example.objective)) return absl::OkStatus();
    const double term = example.objective == Objective::kPrefer ? kLn2 : 0.5;
    expected += totals.preference_weight *
                static_cast<double>(example.weight * example.preference) * term /
                static_cast<double>(totals.n_terms);
    if (example.objective == Objective::kPrefer) {
      imitated += static_cast<double>(example.weight) *
                  references_.at(ReferenceKey(example.sequence)) /
                  static_cast<double>(totals.n_imitated_tokens);
    }
  }
  if (std::fabs(loss - expected - imitated) <= LikelihoodTolerance() * (1 + std::fabs(loss))) {
    return absl::OkStatus();
  }
  return absl::InternalError(
      absl::StrCat("self-check failed: first_loss: an adapter that changes nothing has a loss of ",
                   loss, " and not of ", expected + imitated));
}

// A is still random at the first step and B zero: then only B has gradients.
absl::Status LoraTrainer::CheckGradients() const {
  const std::vector<float> gradients = Read(Array::kGradients);
  for (const LoraPair& pair : plan_.pairs()) {
    const auto sum = [&](int64_t begin, int64_t n) {
      double total = 0;
      for (int64_t i = begin; i < begin + n; ++i) {
        total += std::fabs(static_cast<double>(gradients[static_cast<size_t>(i)]));
      }
      return total;
    };
    const double b = sum(pair.bt_at, pair.rank * pair.shape.out);
    const double a = sum(pair.a_at, pair.rank * pair.shape.in);
    const bool sound = std::isfinite(a) && std::isfinite(b) && b > 0 && (n_steps_ == 0 || a > 0);
    if (sound) continue;
    return absl::InternalError(absl::StrCat(
        "self-check failed: gradients: a matrix learns nothing: layer=", pair.layer,
        ", linear=", LayerLinearName(pair.linear), ", sum |gradient| of A=", a, ", of B=", b));
  }
  return absl::OkStatus();
}

double LoraTrainer::LearningRate(int64_t step) const {
  double factor = 1;
  if (step < options_.warmup_steps) {
    factor = static_cast<double>(step + 1) / static_cast<double>(options_.warmup_steps);
  }
  if (options_.total_steps > 0) {
    factor *=
        std::max(0.0, 1 - static_cast<double>(step) / static_cast<double>(options_.total_steps));
  }
  return static_cast<double>(options_.learning_rate) * factor;
}

// Clips, and applies AdamW. Returns the norm before clipping; a gradient that is not finite changes
// nothing.
absl::StatusOr<double> LoraTrainer::ClipAndUpdate() {
  COTERIE_ASSIGN_OR_RETURN(const double norm, GradientNorm());
  if (!std::isfinite(norm)) return norm;
  const double clip = static_cast<double>(options_.clip_norm);
  AdamStep step;
  if (clip > 0 && norm > clip) step.clip = static_cast<float>(clip / norm);
  step.rate = static_cast<float>(LearningRate(n_steps_));
  const double n = static_cast<double>(n_steps_ + 1);
  step.correction1 = static_cast<float>(1 / (1 - std::pow(static_cast<double>(options_.beta1), n)));
  step.correction2 = static_cast<float>(1 / (1 - std::pow(static_cast<double>(options_.beta2), n)));
  COTERIE_RETURN_IF_ERROR(Update(step));
  ++n_steps_;
  return norm;
}

absl::Status LoraTrainer::LoadDeltas(absl::Span<const LinearDelta> deltas) {
  COTERIE_ASSIGN_OR_RETURN(std::vector<float> values, plan_.ValuesOf(deltas));
  Write(Array::kValues, std::move(values));
  return absl::OkStatus();
}

std::string LoraTrainer::Fingerprint() const {
  std::string text = absl::StrCat(
      Kind(), ";", options_.rank, ";", options_.alpha, ";", options_.rslora, ";",
      options_.top_layers, ";", options_.seed, ";", options_.learning_rate, ";",
      options_.warmup_steps, ";", options_.total_steps, ";", is_bf16(), ";",
      PrecisionName(options_.precision), ";", options_.dropout, ";", options_.clip_norm, ";",
      options_.weight_decay, ";", options_.beta1, ";", options_.beta2, ";", options_.epsilon, ";",
      options_.preference_beta, ";", options_.preference_weight, ";");
  for (const LoraPair& pair : plan_.pairs()) {
    absl::StrAppend(&text, pair.layer, LayerLinearName(pair.linear), pair.shape.in, "x",
                    pair.shape.out, ";");
  }
  return text;
}

std::string LoraTrainer::SaveState() const {
  std::string state = Fingerprint();
  state.push_back('\n');
  const auto append = [&](const void* data, size_t n) {
    state.append(static_cast<const char*>(data), n);
  };
  append(&n_steps_, sizeof(n_steps_));
  for (const Array array : kKept) {
    const std::vector<float> values = Read(array);
    append(values.data(), values.size() * sizeof(float));
  }
  return state;
}

absl::Status LoraTrainer::RestoreState(absl::string_view state) {
  const size_t end = state.find('\n');
  if (end == absl::string_view::npos) {
    return absl::DataLossError("a training checkpoint is damaged: it has no header");
  }
  if (state.substr(0, end) != Fingerprint()) {
    return absl::FailedPreconditionError(
        "a training checkpoint belongs to other options or another base; begin anew");
  }
  state.remove_prefix(end + 1);
  const size_t array_bytes = static_cast<size_t>(plan_.n_values()) * sizeof(float);
  if (state.size() != sizeof(n_steps_) + 3 * array_bytes) {
    return absl::DataLossError(absl::StrCat(
        "a training checkpoint is damaged: bytes=", state.size(), " after its header"));
  }
  const auto take = [&](void* data, size_t n) {
    std::memcpy(data, state.data(), n);
    state.remove_prefix(n);
  };
  int64_t n_steps = 0;
  take(&n_steps, sizeof(n_steps));
  if (n_steps < 0 || n_steps > kMaxSteps) {
    return absl::DataLossError(absl::StrCat("a training checkpoint is damaged: steps=", n_steps));
  }
  if (!AreFinite(state)) {
    return absl::DataLossError("a training checkpoint is damaged: a value is not finite");
  }
  n_steps_ = n_steps;
  for (const Array array : kKept) {
    std::vector<float> values(static_cast<size_t>(plan_.n_values()));
    take(values.data(), array_bytes);
    Write(array, std::move(values));
  }
  return absl::OkStatus();
}

}  // namespace coterie
