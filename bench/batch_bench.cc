// Decoding several sequences of one model file in one pass: one JSON object.
//   batch_bench MODEL.gguf [N_GENERATE=32] [N_REPEAT=3] [N_PROMPT=32]
// Two levels, at batches of 1, 2, 4, 8 and 16: forward passes of Expert, and whole answers of an
// Assistant asked from as many threads. Checked before it is timed: the ids of every sequence of a
// batch, and the text of every answer, are those of the same one alone. Rates are tokens of all
// sequences per second, medians; batches are timed in turn.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "nlohmann/json.hpp"

#include "bench/arguments.h"
#include "bench/machine_limits.h"
#include "bench/require.h"
#include "bench/samples.h"
#include "core/threads/worker_pool.h"
#include "experts/expert.h"
#include "runtime/assistant.h"

namespace coterie {
namespace {

constexpr int kBatches[] = {1, 2, 4, 8, 16};
constexpr int kMaxBatch = 16;

[[noreturn]] void Fail(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  std::exit(1);
}

// Sequences that advance in common passes.
class Sequences {
 public:
  Sequences(const Expert& expert, WorkerPool& pool, int first, int n, int64_t n_prompt,
            int64_t n_generate)
      : expert_(expert),
        pool_(pool),
        scratch_(expert.spec(), std::max<int64_t>(n_prompt, n), n, pool.n_workers()),
        last_(static_cast<size_t>(n)) {
    for (int i = 0; i < n; ++i) {
      caches_.emplace_back(expert.spec(), n_prompt + n_generate);
      const std::vector<TokenId> prompt = SomeTokens(n_prompt, first + i);
      const SequenceSlice slice{&caches_.back(), prompt};
      Pass({&slice, 1});
      last_[static_cast<size_t>(i)] = Greedy(0);
    }
  }

  // Appends the last token of each.
  void Step() {
    std::vector<SequenceSlice> slices;
    for (size_t i = 0; i < last_.size(); ++i) slices.push_back({&caches_[i], {&last_[i], 1}});
    Pass(slices);
  }
  // The last step's most likely tokens are next.
  void ChooseGreedily() {
    for (size_t i = 0; i < last_.size(); ++i) last_[i] = Greedy(i);
  }

  const std::vector<TokenId>& last() const { return last_; }

 private:
  void Pass(absl::Span<const SequenceSlice> slices) {
    const absl::Status status = expert_.Forward(slices, Activations::kInt8, pool_, scratch_);
    if (!status.ok()) Fail(status.ToString());
  }
  TokenId Greedy(size_t row) const {
    const size_t n_vocab = static_cast<size_t>(expert_.spec().n_vocab);
    const absl::Span<const float> logits = scratch_.logits().subspan(row * n_vocab, n_vocab);
    return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  }

  const Expert& expert_;
  WorkerPool& pool_;
  DecoderScratch scratch_;
  std::vector<KvCache> caches_;
  std::vector<TokenId> last_;
};

// The first ids of every batch are those of its sequences alone.
void CheckPasses(const Expert& expert, WorkerPool& pool, int64_t n_prompt) {
  constexpr int64_t kSteps = 12;
  const auto ids_of = [&](int first, int n) {
    Sequences sequences(expert, pool, first, n, n_prompt, kSteps);
    std::vector<std::vector<TokenId>> ids;  // [step][sequence]
    for (int64_t step = 0; step < kSteps; ++step) {
      sequences.Step();
      sequences.ChooseGreedily();
      ids.push_back(sequences.last());
    }
    return ids;
  };
  std::vector<std::vector<std::vector<TokenId>>> alone;
  for (int i = 0; i < kMaxBatch; ++i) alone.push_back(ids_of(i, 1));
  for (const int n : kBatches) {
    const std::vector<std::vector<TokenId>> ids = ids_of(0, n);
    for (size_t step = 0; step < ids.size(); ++step) {
      for (size_t i = 0; i < ids[step].size(); ++i) {
        if (ids[step][i] == alone[i][step][0]) continue;
        Fail(absl::StrCat("sequence ", i, " of ", n, " differs from itself alone"));
      }
    }
  }
}

nlohmann::json MeasurePasses(const Expert& expert, WorkerPool& pool, int64_t n_prompt,
                             int64_t n_generate, int n_repeat) {
  CheckPasses(expert, pool, n_prompt);
  std::map<int, std::vector<double>> rates;
  std::map<int, std::vector<double>> cpu_ms;  // Of the process, a step.
  for (int repeat = 0; repeat < n_repeat; ++repeat) {
    for (const int n : kBatches) {
      Sequences batch(expert, pool, 0, n, n_prompt, n_generate);
      const absl::Time begin = absl::Now();
      const std::clock_t cpu_begin = std::clock();
      for (int64_t step = 0; step < n_generate; ++step) batch.Step();
      cpu_ms[n].push_back(1e3 * static_cast<double>(std::clock() - cpu_begin) / CLOCKS_PER_SEC /
                          static_cast<double>(n_generate));
      rates[n].push_back(static_cast<double>(n * n_generate) /
                         absl::ToDoubleSeconds(absl::Now() - begin));
    }
  }
  nlohmann::json result;
  for (const int n : kBatches) {
    result[std::to_string(n)] = {
        {"tokens_per_second", Median(rates[n])},
        {"step_ms", 1e3 * n / Median(rates[n])},
        {"step_cpu_ms", Median(cpu_ms[n])},
        {"weight_bytes_per_second",
         Median(rates[n]) / n * static_cast<double>(expert.weight_bytes())},
        {"samples", rates[n]}};
  }
  return result;
}

Request Ask(int sequence, int64_t n_generate) {
  Request request;
  request.messages.push_back(
      {"user", absl::StrCat("Tell me a long story about the number ", sequence, "."), ""});
  request.expert = "bench";
  request.max_tokens = n_generate;
  request.sampling.temperature = 0.0f;
  request.log = false;
  request.lookup = false;  // Passes are measured, not how often answers repeat themselves.
  return request;
}

// One answer per thread, all at once; tokens of all per second of decoding.
double AnswerAll(Assistant& assistant, int n, int64_t n_generate, std::vector<std::string>& texts) {
  std::vector<Generation> answers(static_cast<size_t>(n));
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < n; ++i) {
      threads.emplace_back([&, i] {
        const auto ignore = [](absl::string_view) { return true; };
        answers[static_cast<size_t>(i)] =
            Require(assistant.Generate(Ask(i, n_generate), ignore, {})).generation;
      });
    }
  }
  double rate = 0;
  for (int i = 0; i < n; ++i) {
    const Generation& answer = answers[static_cast<size_t>(i)];
    rate += answer.decode_tokens_per_second();
    std::string& text = texts[static_cast<size_t>(i)];
    if (text.empty()) text = answer.text;
    if (text != answer.text) Fail(absl::StrCat("answer ", i, " of ", n, " differs from alone"));
  }
  return rate;
}

nlohmann::json MeasureAnswers(const std::string& path, int64_t n_generate, int n_repeat) {
  Configuration configuration = Require(Configuration::Default());
  configuration.router_path = COTERIE_DEFAULT_ROUTER;
  configuration.learning.log = false;
  configuration.queue.max_running = kMaxBatch;
  ExpertConfiguration expert;
  expert.name = "bench";
  expert.model = path;
  configuration.experts = {expert};
  const auto assistant = Require(Assistant::Open(std::move(configuration)));
  std::vector<std::string> texts(kMaxBatch);
  for (int i = 0; i < kMaxBatch; ++i) {  // Alone, and in memory.
    const auto ignore = [](absl::string_view) { return true; };
    texts[static_cast<size_t>(i)] =
        Require(assistant->Generate(Ask(i, n_generate), ignore, {})).generation.text;
  }
  std::map<int, std::vector<double>> rates;
  for (int repeat = 0; repeat < n_repeat; ++repeat) {
    for (const int n : kBatches) {
      rates[n].push_back(AnswerAll(*assistant, n, n_generate, texts));
    }
  }
  nlohmann::json result;
  for (const int n : kBatches) {
    result[std::to_string(n)] = {{"tokens_per_second", Median(rates[n])}, {"samples", rates[n]}};
  }
  return result;
}

int Run(const std::string& path, int64_t n_generate, int n_repeat, int64_t n_prompt) {
  nlohmann::json result;
  result["model"] = path;
  result["isa"] = std::string(Kernels().isa);
  {
    WorkerPool pool;
    const auto expert = Require(Expert::Open(path));
    result["threads"] = pool.n_workers();
    result["weight_bytes"] = expert->weight_bytes();
    result["passes"] = MeasurePasses(*expert, pool, n_prompt, n_generate, n_repeat);
    result["read_bytes_per_second"] = MeasureReadBytesPerSecond(pool);
    result["int8_macs_per_second"] = MeasureInt8MacsPerSecond(pool);
  }
  result["answers"] = MeasureAnswers(path, n_generate, n_repeat);
  std::printf("%s\n", result.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace coterie

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: batch_bench MODEL.gguf [GENERATE] [REPEAT] [PROMPT]\n");
    return 2;
  }
  const coterie::Numbers number(argc, argv);
  return coterie::Run(argv[1], number(2, 32), number(3, 3), number(4, 32));
}
