// Speed and memory of LoRA training steps on a GPU, 4 sequences of 512 random tokens, all of them
// in the loss: one JSON object. Any model that opens, its tokenizer is not needed.
//   gpu_training_bench MODEL [qv|all] [none|partial|full] [STEPS=20] [DEVICE=cuda]
// Steps are checked: the same batch again and again must be learnt. bench/learning/gpu_speed.py
// sets PEFT beside it, on the same weights and tokens.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "nlohmann/json.hpp"

#include "bench/require.h"
#include "core/threads/worker_pool.h"
#include "experts/decoder_weights.h"
#include "experts/model_files.h"
#include "lora/trainer_library.h"

namespace coterie {
namespace {

constexpr int64_t kSequences = 4, kTokens = 512;

// The generator of gpu_speed.py.
std::vector<TrainingExample> Batch(int64_t n_vocab) {
  std::vector<TrainingExample> batch(kSequences);
  uint64_t state = 1;
  for (TrainingExample& example : batch) {
    for (int64_t i = 0; i < kTokens; ++i) {
      state = (state * 1103515245 + 12345) % (uint64_t{1} << 31);
      example.sequence.tokens.push_back(
          static_cast<TokenId>(state % static_cast<uint64_t>(n_vocab)));
      example.sequence.is_target.push_back(i > 0);
    }
  }
  return batch;
}

int Run(const std::string& path, const std::string& targets, const std::string& recompute,
        int n_steps, const std::string& device) {
  WorkerPool pool;
  MemoryBudget budget(int64_t{64} << 30);
  const auto files = Require(ModelFiles::Open(path));
  const ArchSpec spec = Require(files->ReadSpec());
  const DecoderWeights weights = Require(DecoderWeights::From(*files, spec));
  TrainerOptions options;
  options.device = device;
  options.recompute = recompute == "none"      ? Recompute::kNone
                      : recompute == "partial" ? Recompute::kPartial
                                               : Recompute::kFull;
  if (targets == "qv") options.targets = {LayerLinear::kQ, LayerLinear::kV};
  options.learning_rate = 1e-4f;
  options.warmup_steps = 0;
  const absl::Time begin = absl::Now();
  const auto trainer =
      Require(MakeTorchTrainer(spec, weights, pool, budget, options, kSequences * kTokens));
  const double load_seconds = absl::ToDoubleSeconds(absl::Now() - begin);
  const std::vector<TrainingExample> batch = Batch(spec.n_vocab);
  std::vector<double> seconds;
  double first_loss = 0, last_loss = 0;
  constexpr int kWarmUp = 4;  // The first also check gradients.
  for (int step = 0; step < n_steps + kWarmUp; ++step) {
    const absl::Time start = absl::Now();
    const StepReport report = Require(trainer->Step(batch, {}));
    if (step >= kWarmUp) seconds.push_back(absl::ToDoubleSeconds(absl::Now() - start));
    (step == 0 ? first_loss : last_loss) = report.loss;
  }
  if (!(last_loss < first_loss)) {
    std::fprintf(stderr, "nothing was learnt: loss %g, then %g\n", first_loss, last_loss);
    return 1;
  }
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  const nlohmann::json out = {{"engine", "coterie"},
                              {"targets", targets},
                              {"recompute", recompute},
                              {"dtype", trainer->is_bf16() ? "bfloat16" : "float32"},
                              {"tokens_per_s", static_cast<double>(kSequences * kTokens) / median},
                              {"step_ms", median * 1e3},
                              {"first_loss", first_loss},
                              {"last_loss", last_loss},
                              {"load_s", load_seconds},
                              {"gpu_gb", static_cast<double>(trainer->memory_bytes()) / 1e9}};
  std::printf("%s\n", out.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace coterie

int main(int argc, char** argv) {
  const auto argument = [&](int i, const char* fallback) { return argc > i ? argv[i] : fallback; };
  if (argc < 2) {
    std::fprintf(stderr,
                 "usage: gpu_training_bench MODEL [qv|all] [none|partial|full] [STEPS] [DEVICE]\n");
    return 2;
  }
  return coterie::Run(argv[1], argument(2, "all"), argument(3, "none"),
                      std::atoi(argument(4, "20")), argument(5, "cuda"));
}
