// Speed and memory of LoRA training steps on one model file: one JSON object.
//   training_bench MODEL.gguf [TOKENS=512] [LOSS_SHARE=1] [TOP_LAYERS=0] [STEPS=5] [auto|f32|bf16]
//                  [TRAINING_MB=64000]
// One sequence of random tokens, rank 8 on all linear layers, the last LOSS_SHARE of it in the
// loss. Steps are checked: the same sequence again and again must be learnt. With TOP_LAYERS the
// first step makes the inputs of the adapted layers, which the others find again. TRAINING_MB is
// the budget: with less than no recomputation wants, some is chosen.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "nlohmann/json.hpp"

#include "bench/require.h"
#include "core/kernels/training_kernels.h"
#include "core/threads/worker_pool.h"
#include "experts/expert.h"
#include "lora/trainer.h"

#include <sys/resource.h>

namespace coterie {
namespace {

TrainingExample RandomExample(int64_t n_tokens, double loss_share) {
  TrainingExample example;
  std::mt19937 random(1);
  for (int64_t i = 0; i < n_tokens; ++i) {
    example.sequence.tokens.push_back(static_cast<TokenId>(100 + random() % 29900));
    example.sequence.is_target.push_back(
        i > 0 && static_cast<double>(i) >= static_cast<double>(n_tokens) * (1 - loss_share));
  }
  return example;
}

absl::string_view NameOf(Recompute recompute) {
  return recompute == Recompute::kNone      ? "none"
         : recompute == Recompute::kPartial ? "partial"
                                            : "full";
}

int Run(const std::string& path, int64_t n_tokens, double loss_share, int64_t top_layers,
        int n_steps, TrainingPrecision precision, int64_t budget_bytes) {
  WorkerPool pool;
  MemoryBudget budget(budget_bytes);
  const auto expert = Require(Expert::Open(path));
  TrainerOptions options;
  options.top_layers = top_layers;
  options.precision = precision;
  options.warmup_steps = 0;
  options.learning_rate = 1e-3f;
  const auto trainer = Require(MakeTrainer(*expert, pool, budget, options, n_tokens));
  const TrainingExample example = RandomExample(n_tokens, loss_share);
  std::vector<double> seconds;
  double first_loss = 0, last_loss = 0;
  for (int step = 0; step <= n_steps; ++step) {
    const absl::Time start = absl::Now();
    const StepReport report = Require(trainer->Step({&example, 1}, {}));
    if (step > 0) seconds.push_back(absl::ToDoubleSeconds(absl::Now() - start));
    (step == 0 ? first_loss : last_loss) = report.loss;
  }
  if (!(last_loss < first_loss)) {
    std::fprintf(stderr, "nothing was learnt: loss %g, then %g\n", first_loss, last_loss);
    return 1;
  }
  std::sort(seconds.begin(), seconds.end());
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const nlohmann::json out = {
      {"engine", "coterie"},
      {"model", path},
      {"isa", std::string(TrainingKernels().isa)},
      {"precision", std::string(PrecisionName(precision))},
      {"tokens", n_tokens},
      {"loss_share", loss_share},
      {"top_layers", top_layers},
      {"tokens_per_s", static_cast<double>(n_tokens) / seconds[seconds.size() / 2]},
      {"seconds", seconds},
      {"first_loss", first_loss},
      {"last_loss", last_loss},
      {"recompute", std::string(NameOf(trainer->recompute()))},
      {"training_mb", static_cast<double>(trainer->memory_bytes()) / 1e6},
      {"max_rss_mb", static_cast<double>(usage.ru_maxrss) * 1024 / 1e6},
      {"weights_mb", static_cast<double>(expert->weight_bytes()) / 1e6}};
  std::printf("%s\n", out.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace coterie

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr,
                 "usage: training_bench MODEL.gguf [TOKENS] [LOSS_SHARE] [TOP_LAYERS] [STEPS] "
                 "[auto|f32|bf16] [TRAINING_MB]\n");
    return 2;
  }
  const auto argument = [&](int i, const char* fallback) { return argc > i ? argv[i] : fallback; };
  return coterie::Run(argv[1], std::atoll(argument(2, "512")), std::atof(argument(3, "1")),
                      std::atoll(argument(4, "0")), std::atoi(argument(5, "5")),
                      coterie::Require(coterie::PrecisionFromName(argument(6, "auto"))),
                      std::atoll(argument(7, "64000")) * 1'000'000);
}
