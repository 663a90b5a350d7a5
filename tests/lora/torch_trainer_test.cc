// The trainer on LibTorch against the one on the CPU, through the library as users open it. On the
// device that COTERIE_TORCH_DEVICE names; without one, on torch's CPU.

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "experts/decoder_weights.h"
#include "experts/model_files.h"
#include "lora/cpu_trainer.h"
#include "lora/trainer_library.h"
#include "tests/experts/tiny_model.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::testing::_;
using testing::IsOk;
using testing::StatusIs;

std::string Device() {
  const char* device = std::getenv("COTERIE_TORCH_DEVICE");
  return device == nullptr ? "torch:cpu" : device;
}

class Base {
 public:
  explicit Base(const std::string& architecture) {
    const std::filesystem::path folder =
        std::filesystem::path(::testing::TempDir()) / ("torch_trainer_" + architecture);
    std::filesystem::create_directories(folder);
    files_ = *ModelFiles::Open(
        testing::WriteGguf(testing::MakeTinyModel(architecture), folder, architecture));
    spec_ = *files_->ReadSpec();
    weights_ = *DecoderWeights::From(*files_, spec_);
  }

  std::unique_ptr<Trainer> OnCpu(const TrainerOptions& options) {
    auto trainer = CpuTrainer::Make(spec_, weights_, pool_, budget_, options, 64);
    EXPECT_THAT(trainer, IsOk());
    return *std::move(trainer);
  }
  std::unique_ptr<Trainer> OnTorch(TrainerOptions options) {
    options.device = Device();
    auto trainer = MakeTorchTrainer(spec_, weights_, pool_, budget_, options, 64);
    EXPECT_THAT(trainer, IsOk());
    return *std::move(trainer);
  }

  const ArchSpec& spec() const { return spec_; }
  MemoryBudget& budget() { return budget_; }

 private:
  std::unique_ptr<const ModelFiles> files_;
  ArchSpec spec_;
  DecoderWeights weights_;
  WorkerPool pool_{2};
  MemoryBudget budget_{int64_t{1} << 30};
};

TrainingSequence SequenceOf(int64_t n, uint32_t seed) {
  TrainingSequence sequence;
  sequence.tokens = testing::TinyIds(n, seed);
  for (int64_t i = 0; i < n; ++i) sequence.is_target.push_back(i >= 3);
  return sequence;
}

TrainingExample ExampleOf(int64_t n, uint32_t seed, Objective objective = Objective::kImitate) {
  TrainingExample example;
  example.objective = objective;
  example.sequence = SequenceOf(n, seed);
  if (objective == Objective::kPrefer) example.instead = SequenceOf(n - 4, seed + 100);
  return example;
}

TrainerOptions Options(TrainingPrecision precision = TrainingPrecision::kF32) {
  TrainerOptions options;
  options.precision = precision;
  options.learning_rate = 0.02f;
  options.warmup_steps = 0;
  options.preference_weight = 1;
  return options;
}

void Learn(Trainer& trainer, absl::Span<const TrainingExample> batch, int n_steps) {
  for (int i = 0; i < n_steps; ++i) ASSERT_THAT(trainer.Step(batch, {}), IsOk());
}

double NllOf(Trainer& trainer, const TrainingSequence& sequence) {
  const auto likelihood = trainer.Evaluate({&sequence, 1}, /*adapted=*/true, {});
  EXPECT_THAT(likelihood, IsOk());
  return likelihood->front().nll;
}

double RelativeError(const std::vector<float>& found, const std::vector<float>& wanted) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    error += std::pow(static_cast<double>(found[i] - wanted[i]), 2);
    norm += std::pow(static_cast<double>(wanted[i]), 2);
  }
  return std::sqrt(error / norm);
}

// The largest relative error of a matrix, of torch's gradients at an adapter that has learnt.
double GradientError(Base& base, absl::Span<const TrainingExample> batch,
                     const TrainerOptions& torch_options) {
  TrainerOptions cpu_options = torch_options;
  cpu_options.precision = TrainingPrecision::kF32;
  const auto learnt = base.OnCpu(cpu_options);
  Learn(*learnt, batch, 2);
  // Both in their first step, as dropout's masks are of the step. What a first step checks holds
  // only for an adapter that changes nothing: not for preferences alone.
  const auto cpu = base.OnCpu(cpu_options);
  EXPECT_THAT(cpu->LoadDeltas(learnt->Deltas()), IsOk());
  const auto torch = base.OnTorch(torch_options);
  EXPECT_THAT(torch->LoadDeltas(learnt->Deltas()), IsOk());
  const auto wanted = cpu->Step(batch, {});
  const auto found = torch->Step(batch, {});
  if (!wanted.ok() || !found.ok()) {
    ADD_FAILURE() << wanted.status() << found.status();
    return 1;
  }
  const double tolerance = torch->is_bf16() ? 0.02 : 1e-5;
  EXPECT_NEAR(found->loss, wanted->loss, tolerance * wanted->loss);
  const std::vector<LinearDelta> g = torch->Gradients(), w = cpu->Gradients();
  EXPECT_EQ(g.size(), w.size());
  double worst = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    worst = std::max({worst, RelativeError(g[i].a, w[i].a), RelativeError(g[i].b, w[i].b)});
  }
  return worst;
}

class TorchArchitectureTest : public ::testing::TestWithParam<std::string> {};

TEST_P(TorchArchitectureTest, GradientsAreThoseOfTheCpuTrainer) {
  Base base(GetParam());
  const TrainingExample batch[] = {ExampleOf(19, 5), ExampleOf(30, 6)};
  EXPECT_LE(GradientError(base, batch, Options()), 1e-4);
}

TEST_P(TorchArchitectureTest, WithDropoutGradientsAreThoseOfTheCpuTrainer) {
  Base base(GetParam());
  const TrainingExample batch[] = {ExampleOf(19, 5), ExampleOf(30, 6)};
  TrainerOptions options = Options();
  options.dropout = 0.3f;
  EXPECT_LE(GradientError(base, batch, options), 1e-4);
}

TEST_P(TorchArchitectureTest, InBf16GradientsAreNear) {
  Base base(GetParam());
  const TrainingExample batch[] = {ExampleOf(19, 5), ExampleOf(30, 6)};
  for (const float dropout : {0.0f, 0.3f}) {
    TrainerOptions options = Options(TrainingPrecision::kBF16);
    options.dropout = dropout;
    const double error = GradientError(base, batch, options);
    RecordProperty(dropout == 0 ? "relative_error" : "relative_error_with_dropout",
                   std::to_string(error));
    EXPECT_LE(error, 0.05) << "dropout " << dropout;
  }
}

void ExpectRecomputingChangesNoBit(Base& base, float dropout) {
  const TrainingExample batch[] = {ExampleOf(19, 5), ExampleOf(30, 6)};
  for (const TrainingPrecision precision : {TrainingPrecision::kF32, TrainingPrecision::kBF16}) {
    std::vector<std::string> states;
    for (const Recompute recompute : {Recompute::kNone, Recompute::kPartial, Recompute::kFull}) {
      TrainerOptions options = Options(precision);
      options.recompute = recompute;
      options.dropout = dropout;
      const auto trainer = base.OnTorch(options);
      Learn(*trainer, batch, 3);
      EXPECT_EQ(trainer->recompute(), recompute);
      states.push_back(trainer->SaveState());
    }
    EXPECT_TRUE(states[1] == states[0] && states[2] == states[0]);
  }
}

TEST_P(TorchArchitectureTest, RecomputingChangesNoBit) {
  Base base(GetParam());
  ExpectRecomputingChangesNoBit(base, /*dropout=*/0);
}

TEST_P(TorchArchitectureTest, WithDropoutRecomputingChangesNoBit) {
  Base base(GetParam());
  ExpectRecomputingChangesNoBit(base, 0.1f);
}

INSTANTIATE_TEST_SUITE_P(All, TorchArchitectureTest, ::testing::Values("llama", "qwen2", "gemma3"));

TEST(TorchTrainerTest, EveryObjectiveHasTheGradientsOfTheCpuTrainer) {
  Base base("qwen2");
  for (const Objective objective :
       {Objective::kPrefer, Objective::kEncourage, Objective::kDiscourage}) {
    // Preferences of a first step know neither side, which is checked of an untouched adapter.
    const TrainingExample batch[] = {ExampleOf(20, 5), ExampleOf(20, 6, objective)};
    EXPECT_LE(GradientError(base, batch, Options()), 1e-4) << static_cast<int>(objective);
  }
}

TEST(TorchTrainerTest, PreferencesBeginUndecided) {
  Base base("llama");
  for (const TrainingPrecision precision : {TrainingPrecision::kF32, TrainingPrecision::kBF16}) {
    const auto trainer = base.OnTorch(Options(precision));
    const TrainingExample example = ExampleOf(20, 5, Objective::kEncourage);
    const auto first = trainer->Step({&example, 1}, {});
    ASSERT_THAT(first, IsOk());
    EXPECT_NEAR(first->loss, 0.5, 1e-6);
  }
}

TEST(TorchTrainerTest, OnlyWhatIsAskedForIsAdapted) {
  Base base("llama");
  TrainerOptions options = Options();
  options.top_layers = 2;
  options.rank = 4;
  options.targets = {LayerLinear::kQ, LayerLinear::kV, LayerLinear::kDown};
  const TrainingExample batch[] = {ExampleOf(23, 5)};
  EXPECT_LE(GradientError(base, batch, options), 1e-4);
  const auto trainer = base.OnTorch(options);
  Learn(*trainer, batch, 2);
  ASSERT_EQ(trainer->Deltas().size(), 6u);
  EXPECT_EQ(trainer->Deltas()[0].layer, base.spec().n_layers - 2);
}

TEST(TorchTrainerTest, ACheckpointGoesOnBitForBit) {
  Base base("llama");
  for (const TrainingPrecision precision : {TrainingPrecision::kF32, TrainingPrecision::kBF16}) {
    const TrainingExample example = ExampleOf(23, 5);
    const auto whole = base.OnTorch(Options(precision));
    Learn(*whole, {&example, 1}, 2);
    const std::string saved = whole->SaveState();
    Learn(*whole, {&example, 1}, 3);
    const auto resumed = base.OnTorch(Options(precision));
    ASSERT_THAT(resumed->RestoreState(saved), IsOk());
    Learn(*resumed, {&example, 1}, 3);
    EXPECT_TRUE(whole->SaveState() == resumed->SaveState());
  }
  const auto cpu = base.OnCpu(Options());
  EXPECT_THAT(base.OnTorch(Options())->RestoreState(cpu->SaveState()),
              StatusIs(absl::StatusCode::kFailedPrecondition, _));
}

TEST(TorchTrainerTest, LearnsASequenceByHeart) {
  Base base("llama");
  for (const TrainingPrecision precision : {TrainingPrecision::kF32, TrainingPrecision::kBF16}) {
    const auto trainer = base.OnTorch(Options(precision));
    const TrainingExample example = ExampleOf(23, 5);
    const double before = NllOf(*trainer, example.sequence);
    Learn(*trainer, {&example, 1}, 40);
    EXPECT_LT(NllOf(*trainer, example.sequence), 0.2 * before);
  }
}

TEST(TorchTrainerTest, BadExamplesAndStopsChangeNothing) {
  Base base("llama");
  const auto trainer = base.OnTorch(Options());
  const std::string before = trainer->SaveState();
  TrainingExample strange = ExampleOf(10, 5);
  strange.sequence.tokens[3] = 1 << 20;
  EXPECT_THAT(trainer->Step({&strange, 1}, {}), StatusIs(absl::StatusCode::kInvalidArgument, _));
  std::stop_source stop;
  stop.request_stop();
  const TrainingExample good = ExampleOf(10, 5);
  EXPECT_THAT(trainer->Step({&good, 1}, stop.get_token()),
              StatusIs(absl::StatusCode::kCancelled, _));
  EXPECT_TRUE(trainer->SaveState() == before);
}

TEST(TorchTrainerTest, RamThatPassesByIsChargedAndGivenBack) {
  Base base("llama");
  auto trainer = base.OnTorch(Options());
  EXPECT_GT(base.budget().Snapshot().used_bytes, 0);
  EXPECT_GT(trainer->memory_bytes(), 0);
  trainer.reset();
  EXPECT_EQ(base.budget().Snapshot().used_bytes, 0);
}

}  // namespace
}  // namespace coterie
