#include "lora/trainer.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <numeric>
#include <thread>

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
using ::testing::HasSubstr;
using testing::IsOk;
using testing::MakeTinyModel;
using testing::StatusIs;
using testing::TinyIds;

// A tiny base on disk and everything a trainer needs.
class Base {
 public:
  explicit Base(const std::string& architecture) {
    const std::filesystem::path folder =
        std::filesystem::path(::testing::TempDir()) / ("trainer_" + architecture);
    std::filesystem::create_directories(folder);
    files_ =
        *ModelFiles::Open(testing::WriteGguf(MakeTinyModel(architecture), folder, architecture));
    spec_ = *files_->ReadSpec();
    weights_ = *DecoderWeights::From(*files_, spec_);
  }

  absl::StatusOr<std::unique_ptr<Trainer>> Make(const TrainerOptions& options,
                                                int64_t max_tokens = 64) {
    return CpuTrainer::Make(spec_, weights_, pool_, budget_, options, max_tokens);
  }

  absl::StatusOr<std::unique_ptr<Trainer>> MakeOnTorch(const TrainerOptions& options) {
    return MakeTorchTrainer(spec_, weights_, pool_, budget_, options, 64);
  }

  const ArchSpec& spec() const { return spec_; }
  WorkerPool& pool() { return pool_; }
  MemoryBudget& budget() { return budget_; }

 private:
  std::unique_ptr<const ModelFiles> files_;
  ArchSpec spec_;
  DecoderWeights weights_;
  WorkerPool pool_{2};
  MemoryBudget budget_{int64_t{1} << 30};
};

TrainingSequence SequenceOf(int64_t n, uint32_t seed, int64_t n_prompt = 3) {
  TrainingSequence sequence;
  sequence.tokens = TinyIds(n, seed);
  for (int64_t i = 0; i < n; ++i) sequence.is_target.push_back(i >= n_prompt);
  return sequence;
}

TrainingExample ExampleOf(int64_t n, uint32_t seed) {
  TrainingExample example;
  example.sequence = SequenceOf(n, seed);
  return example;
}

TrainerOptions F32Options() {
  TrainerOptions options;
  options.precision = TrainingPrecision::kF32;
  options.learning_rate = 0.02f;
  options.warmup_steps = 0;
  options.preference_weight = 1;
  return options;
}

void Learn(Trainer& trainer, absl::Span<const TrainingExample> batch, int n_steps) {
  for (int i = 0; i < n_steps; ++i) ASSERT_THAT(trainer.Step(batch, {}), IsOk());
}

double NllOf(Trainer& trainer, const TrainingSequence& sequence, bool adapted = true) {
  const auto likelihood = trainer.Evaluate({&sequence, 1}, adapted, {});
  EXPECT_THAT(likelihood, IsOk());
  return likelihood->front().nll;
}

// A checkpoint with one matrix, which begins at value `at`, moved by factor * direction.
std::string Moved(std::string state, size_t at, const std::vector<float>& direction,
                  double factor) {
  const size_t values = state.find('\n') + 1 + sizeof(int64_t);
  for (size_t i = 0; i < direction.size(); ++i) {
    float value;
    char* place = state.data() + values + (at + i) * sizeof(value);
    std::memcpy(&value, place, sizeof(value));
    value += static_cast<float>(factor * static_cast<double>(direction[i]));
    std::memcpy(place, &value, sizeof(value));
  }
  return state;
}

// b as a checkpoint has it: turned round, [rank, out].
std::vector<float> TurnedB(const LinearDelta& delta) {
  std::vector<float> turned(delta.b.size());
  const size_t rank = static_cast<size_t>(delta.rank), n_out = delta.b.size() / rank;
  for (size_t o = 0; o < n_out; ++o) {
    for (size_t r = 0; r < rank; ++r) turned[r * n_out + o] = delta.b[o * rank + r];
  }
  return turned;
}

class TrainerArchitectureTest : public ::testing::TestWithParam<std::string> {};

// For each matrix, the loss along its gradient rises as the gradient says.
void ExpectGradientsOfFiniteDifferences(Base& base, const TrainerOptions& options) {
  auto trainer = base.Make(options);
  ASSERT_THAT(trainer, IsOk());
  const TrainingExample example = ExampleOf(23, 5);
  Learn(**trainer, {&example, 1}, 3);
  const std::string state = (*trainer)->SaveState();
  Learn(**trainer, {&example, 1}, 1);
  const std::vector<LinearDelta> gradients = (*trainer)->Gradients();
  ASSERT_EQ(gradients.size(), static_cast<size_t>(7 * base.spec().n_layers));
  size_t at = 0;
  for (const LinearDelta& gradient : gradients) {
    for (const std::vector<float>& matrix : {gradient.a, TurnedB(gradient)}) {
      const double norm =
          std::sqrt(std::inner_product(matrix.begin(), matrix.end(), matrix.begin(), 0.0));
      ASSERT_GT(norm, 0) << LayerLinearName(gradient.linear);
      const double step = 4e-3;
      const auto loss_at = [&](double by) {
        EXPECT_THAT((*trainer)->RestoreState(Moved(state, at, matrix, by / norm)), IsOk());
        const auto step_there = (*trainer)->Step({&example, 1}, {});
        EXPECT_THAT(step_there, IsOk());
        return step_there.ok() ? step_there->loss : 0;
      };
      EXPECT_NEAR((loss_at(step) - loss_at(-step)) / (2 * step), norm, 1e-3 * norm + 2e-4)
          << "layer " << gradient.layer << ", " << LayerLinearName(gradient.linear);
      at += matrix.size();
    }
  }
}

TEST_P(TrainerArchitectureTest, GradientsAreThoseOfFiniteDifferences) {
  Base base(GetParam());
  ExpectGradientsOfFiniteDifferences(base, F32Options());
}

// A step that is taken again drops the same values.
TEST_P(TrainerArchitectureTest, WithDropoutGradientsAreThoseOfFiniteDifferences) {
  Base base(GetParam());
  TrainerOptions options = F32Options();
  options.dropout = 0.3f;
  ExpectGradientsOfFiniteDifferences(base, options);
}

TEST_P(TrainerArchitectureTest, LikelihoodsAreThoseOfTheServedPass) {
  Base base(GetParam());
  auto trainer = base.Make(F32Options());
  ASSERT_THAT(trainer, IsOk());
  const TrainingSequence sequence = SequenceOf(23, 5, 1);
  const std::vector<double> logits =
      testing::ReferenceLogits(MakeTinyModel(GetParam()), sequence.tokens);
  const size_t n_vocab = static_cast<size_t>(base.spec().n_vocab);
  double nll = 0;
  for (size_t t = 0; t + 1 < sequence.tokens.size(); ++t) {
    const double* row = logits.data() + t * n_vocab;
    double sum = 0;
    for (size_t i = 0; i < n_vocab; ++i) sum += std::exp(row[i]);
    nll += std::log(sum) - row[sequence.tokens[t + 1]];
  }
  // The reference keeps keys and values in f16.
  EXPECT_NEAR(NllOf(**trainer, sequence, /*adapted=*/false), nll, 1e-3 * nll);
}

INSTANTIATE_TEST_SUITE_P(All, TrainerArchitectureTest,
                         ::testing::Values("llama", "qwen2", "gemma3"));

TEST(TrainerTest, LabelsStandInThePlaceOfTheNextTokens) {
  Base base("llama");
  auto trainer = base.Make(F32Options());
  ASSERT_THAT(trainer, IsOk());
  TrainingSequence sequence = SequenceOf(12, 5, 11);  // One target, the last.
  const double nll = NllOf(**trainer, sequence);
  sequence.labels = sequence.tokens;
  EXPECT_EQ(NllOf(**trainer, sequence), nll);
  // The same as a sequence that ends in that label: nothing comes after it.
  TrainingSequence other = SequenceOf(12, 5, 11);
  other.tokens.back() = sequence.labels.back() = sequence.tokens.back() == 3 ? 4 : 3;
  EXPECT_EQ(NllOf(**trainer, sequence), NllOf(**trainer, other));
  EXPECT_NE(NllOf(**trainer, sequence), nll);
  sequence.labels.pop_back();
  EXPECT_THAT((*trainer)->Evaluate({&sequence, 1}, true, {}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("labels")));
}

void ExpectRecomputingChangesNoBit(float dropout) {
  Base base("gemma3");
  const TrainingExample examples[] = {ExampleOf(19, 5), ExampleOf(30, 6)};
  for (const TrainingPrecision precision : {TrainingPrecision::kF32, TrainingPrecision::kAuto}) {
    std::vector<std::string> states;
    std::vector<int64_t> bytes;
    for (const Recompute recompute : {Recompute::kNone, Recompute::kPartial, Recompute::kFull}) {
      TrainerOptions options = F32Options();
      options.recompute = recompute;
      options.precision = precision;
      options.dropout = dropout;
      auto trainer = base.Make(options);
      ASSERT_THAT(trainer, IsOk());
      Learn(**trainer, examples, 3);
      states.push_back((*trainer)->SaveState());
      bytes.push_back((*trainer)->memory_bytes());
    }
    EXPECT_TRUE(states[1] == states[0] && states[2] == states[0]);
    EXPECT_GT(bytes[0], bytes[1]);
    EXPECT_GT(bytes[1], bytes[2]);
  }
}

TEST(TrainerTest, RecomputingChangesNoBit) { ExpectRecomputingChangesNoBit(/*dropout=*/0); }

TEST(TrainerTest, WithDropoutRecomputingChangesNoBit) { ExpectRecomputingChangesNoBit(0.1f); }

TEST(TrainerTest, TheLeastRecomputationThatFitsIsChosen) {
  Base base("llama");
  auto roomy = base.Make(F32Options());
  ASSERT_THAT(roomy, IsOk());
  EXPECT_EQ((*roomy)->recompute(), Recompute::kNone);
  const int64_t needed = (*roomy)->memory_bytes();
  const TrainingExample examples[] = {ExampleOf(19, 5)};
  Learn(**roomy, examples, 2);
  const std::string state = (*roomy)->SaveState();
  roomy->reset();
  EXPECT_EQ(base.budget().Snapshot().used_bytes, 0);
  base.budget().SetLimit(needed - 1);
  auto tight = base.Make(F32Options());
  ASSERT_THAT(tight, IsOk());
  EXPECT_EQ((*tight)->recompute(), Recompute::kPartial);
  const int64_t granted = (*tight)->memory_bytes();
  Learn(**tight, examples, 2);
  EXPECT_TRUE((*tight)->SaveState() == state);
  tight->reset();
  TrainerOptions every_layer = F32Options();
  every_layer.recompute = Recompute::kPartial;
  auto partial = base.Make(every_layer);
  ASSERT_THAT(partial, IsOk());
  EXPECT_LT((*partial)->memory_bytes(), granted) << "some layers kept what they could";
  partial->reset();
  base.budget().SetLimit(1000);
  EXPECT_THAT(base.Make(F32Options()),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("does not fit")));
}

TEST(TrainerTest, ExamplesOfABatchDoNotSeeEachOther) {
  Base base("qwen2");
  const TrainingExample examples[] = {ExampleOf(19, 5), ExampleOf(30, 6)};
  auto together = base.Make(F32Options(), 64);
  auto apart = base.Make(F32Options(), 40);  // One example a pass.
  ASSERT_THAT(together, IsOk());
  ASSERT_THAT(apart, IsOk());
  const auto one = (*together)->Step(examples, {});
  const auto two = (*apart)->Step(examples, {});
  ASSERT_THAT(one, IsOk());
  ASSERT_THAT(two, IsOk());
  EXPECT_NEAR(one->loss, two->loss, 1e-6 * one->loss);
  EXPECT_NEAR(one->gradient_norm, two->gradient_norm, 1e-5 * one->gradient_norm);
}

TEST(TrainerTest, ACheckpointGoesOnBitForBit) {
  Base base("llama");
  const TrainingExample example = ExampleOf(23, 5);
  auto whole = base.Make(F32Options());
  ASSERT_THAT(whole, IsOk());
  Learn(**whole, {&example, 1}, 2);
  const std::string saved = (*whole)->SaveState();
  Learn(**whole, {&example, 1}, 3);

  auto resumed = base.Make(F32Options());
  ASSERT_THAT(resumed, IsOk());
  ASSERT_THAT((*resumed)->RestoreState(saved), IsOk());
  Learn(**resumed, {&example, 1}, 3);
  EXPECT_TRUE((*whole)->SaveState() == (*resumed)->SaveState());
}

TEST(TrainerTest, ACheckpointThatIsDamagedOrOfOtherOptionsIsRefused) {
  Base base("llama");
  auto trainer = base.Make(F32Options());
  ASSERT_THAT(trainer, IsOk());
  const std::string saved = (*trainer)->SaveState();
  EXPECT_THAT((*trainer)->RestoreState("nothing"), StatusIs(absl::StatusCode::kDataLoss, _));
  EXPECT_THAT((*trainer)->RestoreState(saved.substr(0, saved.size() - 1)),
              StatusIs(absl::StatusCode::kDataLoss, _));
  const size_t body = saved.find('\n') + 1;
  const float nan = std::nanf("");
  const int64_t before_the_first = -1, endless = std::numeric_limits<int64_t>::max();
  const auto with = [&](size_t at, const void* value, size_t n) {
    return std::string(saved).replace(at, n, static_cast<const char*>(value), n);
  };
  for (const std::string& lie : {with(body, &before_the_first, 8), with(body, &endless, 8),
                                 with(body + 8, &nan, 4), with(saved.size() - 4, &nan, 4)}) {
    EXPECT_THAT((*trainer)->RestoreState(lie), StatusIs(absl::StatusCode::kDataLoss, _));
  }
  EXPECT_TRUE((*trainer)->SaveState() == saved);
  TrainerOptions lower_rank = F32Options(), dropping = F32Options(), unclipped = F32Options();
  lower_rank.rank = 4;
  dropping.dropout = 0.1f;
  unclipped.clip_norm = 0;
  for (const TrainerOptions& other : {lower_rank, dropping, unclipped}) {
    auto stranger = base.Make(other);
    ASSERT_THAT(stranger, IsOk());
    EXPECT_THAT((*stranger)->RestoreState(saved),
                StatusIs(absl::StatusCode::kFailedPrecondition, _));
  }
}

// Another mask each step, none where likelihoods are asked for.
TEST(TrainerTest, DropoutIsOfLearningAlone) {
  Base base("llama");
  TrainerOptions options = F32Options();
  options.dropout = 0.5f;
  auto trainer = base.Make(options);
  ASSERT_THAT(trainer, IsOk());
  const TrainingExample example = ExampleOf(23, 5);
  Learn(**trainer, {&example, 1}, 3);
  auto plain = base.Make(F32Options());
  ASSERT_THAT(plain, IsOk());
  ASSERT_THAT((*plain)->LoadDeltas((*trainer)->Deltas()), IsOk());
  EXPECT_EQ(NllOf(**trainer, example.sequence), NllOf(**plain, example.sequence));
  const double undropped = NllOf(**trainer, example.sequence) / 20;
  double last = undropped;
  for (int i = 0; i < 3; ++i) {
    const std::vector<LinearDelta> deltas = (*trainer)->Deltas();
    const auto step = (*trainer)->Step({&example, 1}, {});
    ASSERT_THAT(step, IsOk());
    EXPECT_GT(std::fabs(step->loss - undropped), 1e-4);
    EXPECT_NE(step->loss, last);
    last = step->loss;
    ASSERT_THAT((*trainer)->LoadDeltas(deltas), IsOk());
  }
}

// Passes of what was cut off the last layer drop what whole ones do.
TEST(TrainerTest, WithDropoutACheckpointGoesOnBitForBit) {
  Base base("qwen2");
  TrainerOptions options = F32Options();
  options.dropout = 0.2f;
  const TrainingExample examples[] = {ExampleOf(19, 5), ExampleOf(50, 6), ExampleOf(30, 7)};
  auto whole = base.Make(options);
  ASSERT_THAT(whole, IsOk());
  Learn(**whole, examples, 2);
  const std::string saved = (*whole)->SaveState();
  Learn(**whole, examples, 2);
  auto resumed = base.Make(options);
  ASSERT_THAT(resumed, IsOk());
  ASSERT_THAT((*resumed)->RestoreState(saved), IsOk());
  Learn(**resumed, examples, 2);
  EXPECT_TRUE((*resumed)->SaveState() == (*whole)->SaveState());
}

TEST(TrainerTest, LearnsASequenceByHeart) {
  Base base("llama");
  for (const TrainingPrecision precision : {TrainingPrecision::kF32, TrainingPrecision::kAuto}) {
    TrainerOptions options = F32Options();
    options.precision = precision;
    auto trainer = base.Make(options);
    ASSERT_THAT(trainer, IsOk());
    const TrainingExample example = ExampleOf(23, 5);
    const double before = NllOf(**trainer, example.sequence);
    Learn(**trainer, {&example, 1}, 40);
    EXPECT_LT(NllOf(**trainer, example.sequence), 0.2 * before);
  }
}

TEST(TrainerTest, OnlyWhatIsAskedForIsAdapted) {
  Base base("llama");
  TrainerOptions options = F32Options();
  options.top_layers = 2;
  options.targets = {LayerLinear::kQ, LayerLinear::kV};
  auto trainer = base.Make(options);
  ASSERT_THAT(trainer, IsOk());
  const TrainingExample example = ExampleOf(23, 5);
  Learn(**trainer, {&example, 1}, 2);
  const std::vector<LinearDelta> deltas = (*trainer)->Deltas();
  ASSERT_EQ(deltas.size(), 4u);
  EXPECT_EQ(deltas[0].layer, base.spec().n_layers - 2);
  EXPECT_EQ(deltas[1].linear, LayerLinear::kV);
}

// With room the inputs of the first adapted layer are kept from step to step; without, made again.
TEST(TrainerTest, KeptInputsOfTheFirstAdaptedLayerChangeNoBit) {
  Base base("qwen2");
  TrainerOptions options = F32Options();
  options.top_layers = 3;
  const TrainingExample example = ExampleOf(23, 5);
  std::vector<std::string> states;
  for (const bool has_room : {true, false}) {
    auto trainer = base.Make(options);
    ASSERT_THAT(trainer, IsOk());
    const int64_t before = (*trainer)->memory_bytes();
    if (!has_room) base.budget().SetLimit(before);
    Learn(**trainer, {&example, 1}, 3);
    EXPECT_EQ((*trainer)->memory_bytes() > before, has_room);
    states.push_back((*trainer)->SaveState());
  }
  EXPECT_TRUE(states[0] == states[1]);
}

TEST(TrainerTest, PreferencesBeginUndecidedAndAreLearnt) {
  Base base("llama");
  auto trainer = base.Make(F32Options());
  ASSERT_THAT(trainer, IsOk());
  TrainingExample example = ExampleOf(20, 5);
  example.objective = Objective::kPrefer;
  example.instead = SequenceOf(20, 6);
  const auto first = (*trainer)->Step({&example, 1}, {});
  ASSERT_THAT(first, IsOk());
  const double base_nll = NllOf(**trainer, example.sequence, /*adapted=*/false);
  EXPECT_NEAR(first->loss, base_nll / 17 + std::log(2.0), 1e-5);
  Learn(**trainer, {&example, 1}, 10);
  EXPECT_LT(NllOf(**trainer, example.sequence), base_nll);
  EXPECT_GT(NllOf(**trainer, example.instead) - NllOf(**trainer, example.instead, false),
            NllOf(**trainer, example.sequence) - base_nll + 1);
}

TEST(TrainerTest, AcceptedBecomesLikelierAndRejectedLess) {
  Base base("llama");
  for (const Objective objective : {Objective::kEncourage, Objective::kDiscourage}) {
    auto trainer = base.Make(F32Options());
    ASSERT_THAT(trainer, IsOk());
    TrainingExample example = ExampleOf(20, 5);
    example.objective = objective;
    const auto first = (*trainer)->Step({&example, 1}, {});
    ASSERT_THAT(first, IsOk());
    EXPECT_NEAR(first->loss, 0.5, 1e-6);
    Learn(**trainer, {&example, 1}, 5);
    EXPECT_EQ(NllOf(**trainer, example.sequence) < NllOf(**trainer, example.sequence, false),
              objective == Objective::kEncourage);
  }
}

TEST(TrainerTest, BadExamplesAreRefusedAndChangeNothing) {
  Base base("llama");
  auto trainer = base.Make(F32Options());
  ASSERT_THAT(trainer, IsOk());
  const std::string before = (*trainer)->SaveState();
  const auto step = [&](const TrainingExample& example) {
    return (*trainer)->Step({&example, 1}, {}).status();
  };
  TrainingExample none = ExampleOf(10, 5);
  none.sequence.is_target.assign(10, false);
  EXPECT_THAT(step(none), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no target")));
  TrainingExample strange = ExampleOf(10, 5);
  strange.sequence.tokens[3] = 1 << 20;
  EXPECT_THAT(step(strange), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("vocabulary")));
  EXPECT_THAT(step(ExampleOf(65, 5)),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("tokens=65")));
  EXPECT_THAT((*trainer)->Step({}, {}), StatusIs(absl::StatusCode::kInvalidArgument, _));
  std::stop_source stop;
  stop.request_stop();
  const TrainingExample good = ExampleOf(10, 5);
  EXPECT_THAT((*trainer)->Step({&good, 1}, stop.get_token()),
              StatusIs(absl::StatusCode::kCancelled, _));
  EXPECT_TRUE((*trainer)->SaveState() == before);
}

TEST(TrainerTest, OptionsOutOfRangeAreNamed) {
  Base base("llama");
  TrainerOptions options = F32Options();
  options.rank = 0;
  EXPECT_THAT(base.Make(options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("rank=0")));
  options = F32Options();
  options.top_layers = 99;
  EXPECT_THAT(base.Make(options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("top_layers=99")));
  for (const float rate : {-0.1f, 1.0f, std::nanf("")}) {
    options = F32Options();
    options.dropout = rate;
    EXPECT_THAT(base.Make(options),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("dropout=")));
  }
}

// This program has no library beside it.
TEST(TrainerTest, WithoutTheLibraryOfGpusItIsSaidWhatToInstall) {
  Base base("llama");
  TrainerOptions options = F32Options();
  options.device = "cuda";
  EXPECT_THAT(base.MakeOnTorch(options),
              StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("COTERIE_TORCH=ON")));
  EXPECT_TRUE(IsTorchDevice("cuda:1"));
  EXPECT_FALSE(IsTorchDevice("cpu"));
  EXPECT_FALSE(IsTorchDevice("cudas"));
}

TEST(TrainerTest, StandsStillWhileAnAnswerIsWritten) {
  Base base("llama");
  auto trainer = base.Make(F32Options());
  ASSERT_THAT(trainer, IsOk());
  const TrainingExample example = ExampleOf(60, 5);
  std::atomic<int> n_steps{0};
  std::stop_source stop;
  auto answer = std::make_unique<WorkerPool::Foreground>(base.pool());
  std::thread learner([&] {
    while ((*trainer)->Step({&example, 1}, stop.get_token()).ok()) ++n_steps;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_EQ(n_steps, 0);
  answer.reset();
  while (n_steps < 2) std::this_thread::yield();
  stop.request_stop();
  learner.join();
}

}  // namespace
}  // namespace coterie
