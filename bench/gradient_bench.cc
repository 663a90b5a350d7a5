// How far the gradients of a precision are from those in f32, on real text: one JSON object.
//   gradient_bench MODEL.gguf TEXT_FILE [TOKENS=512]
// An adapter (rank 8, all linear layers) learns four steps in f32 from the beginning of the text;
// then every precision finds the gradient of one sequence further on at that adapter.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"

#include "bench/require.h"
#include "core/base/read_file.h"
#include "core/kernels/training_kernels.h"
#include "core/threads/worker_pool.h"
#include "experts/expert.h"
#include "lora/trainer.h"

namespace coterie {
namespace {

struct Difference {
  double squares = 0, of_squares = 0, dot = 0, other_squares = 0;
  void Add(const std::vector<float>& exact, const std::vector<float>& other) {
    for (size_t i = 0; i < exact.size(); ++i) {
      const double a = static_cast<double>(exact[i]), b = static_cast<double>(other[i]);
      squares += (a - b) * (a - b);
      of_squares += a * a;
      other_squares += b * b;
      dot += a * b;
    }
  }
  double Relative() const { return std::sqrt(squares / of_squares); }
  double Cosine() const { return dot / std::sqrt(of_squares * other_squares); }
};

class GradientBench {
 public:
  GradientBench(const std::string& model, const std::string& text, int64_t n_tokens)
      : expert_(Require(Expert::Open(model))), n_tokens_(n_tokens) {
    const std::string all = Require(ReadSmallFile(text, int64_t{64} << 20));
    tokens_ = Require(expert_->tokenizer().Encode(all.substr(0, 40000), true, false));
    if (static_cast<int64_t>(tokens_.size()) < 5 * n_tokens) {
      std::fprintf(stderr, "the text is too short\n");
      std::exit(1);
    }
  }

  int Run() {
    options_.precision = TrainingPrecision::kF32;
    options_.warmup_steps = 0;
    options_.learning_rate = 1e-3f;
    const auto teacher = Make();
    for (int64_t i = 0; i < 4; ++i) {
      const TrainingExample example = Example(i);
      Require(teacher->Step({&example, 1}, {}));
    }
    adapter_ = teacher->Deltas();
    const std::vector<LinearDelta> exact = Gradients(TrainingPrecision::kF32);
    nlohmann::json out = {{"tokens", n_tokens_}, {"loss_f32", loss_}};
    if (TrainingKernels().forward_bf16 != nullptr) {
      out["bf16"] = Compare(exact, TrainingPrecision::kBF16);
    }
    out["auto"] = Compare(exact, TrainingPrecision::kAuto);
    std::printf("%s\n", out.dump(1).c_str());
    return 0;
  }

 private:
  std::unique_ptr<Trainer> Make() {
    return Require(MakeTrainer(*expert_, pool_, budget_, options_, n_tokens_));
  }

  TrainingExample Example(int64_t i) const {
    TrainingExample example;
    const auto begin = tokens_.begin() + i * n_tokens_;
    example.sequence.tokens.assign(begin, begin + n_tokens_);
    example.sequence.is_target.assign(static_cast<size_t>(n_tokens_), true);
    example.sequence.is_target[0] = false;
    return example;
  }

  std::vector<LinearDelta> Gradients(TrainingPrecision precision) {
    options_.precision = precision;
    const auto trainer = Make();
    const absl::Status loaded = trainer->LoadDeltas(adapter_);
    if (!loaded.ok()) Require(absl::StatusOr<int>(loaded));
    const TrainingExample example = Example(4);
    loss_ = Require(trainer->Step({&example, 1}, {})).loss;
    return trainer->Gradients();
  }

  nlohmann::json Compare(const std::vector<LinearDelta>& exact, TrainingPrecision precision) {
    const std::vector<LinearDelta> other = Gradients(precision);
    Difference all;
    double worst = 0;
    for (size_t i = 0; i < exact.size(); ++i) {
      Difference a, b;
      a.Add(exact[i].a, other[i].a);
      b.Add(exact[i].b, other[i].b);
      all.Add(exact[i].a, other[i].a);
      all.Add(exact[i].b, other[i].b);
      worst = std::max({worst, a.Relative(), b.Relative()});
    }
    return {{"loss", loss_},
            {"relative_error", all.Relative()},
            {"worst_matrix", worst},
            {"cosine", all.Cosine()}};
  }

  std::shared_ptr<const Expert> expert_;
  const int64_t n_tokens_;
  WorkerPool pool_;
  MemoryBudget budget_{int64_t{64} << 30};
  TrainerOptions options_;
  std::vector<TokenId> tokens_;
  std::vector<LinearDelta> adapter_;
  double loss_ = 0;
};

}  // namespace
}  // namespace coterie

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: gradient_bench MODEL.gguf TEXT_FILE [TOKENS]\n");
    return 2;
  }
  return coterie::GradientBench(argv[1], argv[2], argc > 3 ? std::atoll(argv[3]) : 512).Run();
}
