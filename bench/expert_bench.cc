// Prefill and decode speed of one model file, beside what the machine can do: one JSON object.
//   expert_bench MODEL.gguf [N_PROMPT=512] [N_GENERATE=64] [N_REPEAT=5] [DEPTH=0]
// Prefill and decode alternate with the same under a LoRA adapter of rank 8 on every linear layer,
// both with every logit computed, and with answers as a user has them: drawn with the default
// options, and greedy, from prose, with a screen of the head (experts/head_screen.h).
// The result is checked before it is timed: the same prompt must give the same greedy token in one
// pass and token by token, the adapter must change the logits, and an answer must have the same
// tokens with the screen and without.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "nlohmann/json.hpp"

#include "bench/arguments.h"
#include "bench/machine_limits.h"
#include "bench/require.h"
#include "bench/samples.h"
#include "bench/tensor_use.h"
#include "core/threads/worker_pool.h"
#include "experts/expert.h"
#include "experts/generation.h"
#include "experts/head_screens.h"
#include "experts/sampler.h"
#include "experts/session.h"

namespace coterie {
namespace {

TokenId Greedy(const Session& session) {
  const absl::Span<const float> logits = session.logits();
  return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

Session NewSession(const Expert& expert, WorkerPool& pool, int64_t n_tokens,
                   const DeltaSnapshot& adapter) {
  return Session(expert, pool, SessionShape::ForTokens(n_tokens, adapter.get()), Activations::kInt8,
                 adapter);
}

// Rank 8 on every linear layer, small enough to leave the model a language model.
DeltaSnapshot RandomAdapter(const ArchSpec& spec) {
  constexpr int64_t kRank = 8;
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0f, 0.01f);
  const auto fill = [&](std::vector<float>& values, int64_t n) {
    values.resize(static_cast<size_t>(n));
    for (float& v : values) v = normal(random);
  };
  std::vector<LinearDelta> deltas;
  for (int64_t layer = 0; layer < spec.n_layers; ++layer) {
    for (int i = 0; i < kLayerLinearCount; ++i) {
      LinearDelta delta{layer, static_cast<LayerLinear>(i), kRank, 2.0f, {}, {}};
      const LinearShape shape = ShapeOf(spec, delta.linear);
      fill(delta.a, kRank * shape.in);
      fill(delta.b, kRank * shape.out);
      deltas.push_back(std::move(delta));
    }
  }
  return Require(LinearDeltaSet::Create(spec, "bench@1", std::move(deltas)));
}

// The last token's logits do not depend on how the prompt was cut into passes.
std::vector<float> CheckedLogits(const Expert& expert, WorkerPool& pool,
                                 const DeltaSnapshot& adapter) {
  const std::vector<TokenId> ids = SomeTokens(40);
  Session whole = NewSession(expert, pool, 64, adapter);
  Session stepwise = NewSession(expert, pool, 64, adapter);
  Require(whole.Prefill(ids, {}));
  for (const TokenId id : ids) Require(stepwise.Decode(id));
  if (Greedy(whole) != Greedy(stepwise)) {
    std::fprintf(stderr, "one pass and token by token disagree\n");
    std::exit(1);
  }
  return {whole.logits().begin(), whole.logits().end()};
}

// The first n tokens of some prose.
std::vector<TokenId> Prose(const Expert& expert, int64_t n) {
  std::ifstream file(COTERIE_BENCH_PROSE);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::vector<TokenId> ids =
      Require(expert.tokenizer().Encode(text, /*add_special=*/true, /*parse_special=*/false));
  if (static_cast<int64_t>(ids.size()) < n) {
    std::fprintf(stderr, "the prose is shorter than the prompt: %s\n", COTERIE_BENCH_PROSE);
    std::exit(1);
  }
  ids.resize(static_cast<size_t>(n));
  return ids;
}

SamplingOptions Drawn() { return {.seed = 1}; }
SamplingOptions GreedyOptions() { return {.temperature = 0, .seed = 1}; }

// What follows the prompt, end of text or not.
std::vector<TokenId> Continue(Session& session, const std::vector<TokenId>& prompt,
                              int64_t n_generate, const SamplingOptions& options,
                              double* tokens_per_second = nullptr) {
  const int64_t n_vocab = session.expert().tokenizer().n_vocab();
  Sampler sampler = Require(Sampler::Create(options, n_vocab));
  session.Want({sampler.n_decisive(), n_vocab});
  Require(session.Rewind(std::min<int64_t>(session.n_tokens(), std::ssize(prompt) - 1)));
  Require(session.Prefill(
      absl::MakeConstSpan(prompt).subspan(static_cast<size_t>(session.n_tokens())), {}));
  std::vector<TokenId> tokens;
  const absl::Time begin = absl::Now();
  for (int64_t i = 0; i < n_generate; ++i) {
    const absl::Span<const float> logits = session.logits().first(static_cast<size_t>(n_vocab));
    tokens.push_back(Require(sampler.Sample(logits)).id);
    Require(session.Decode(tokens.back()));
  }
  if (tokens_per_second != nullptr) {
    *tokens_per_second =
        static_cast<double>(n_generate) / absl::ToDoubleSeconds(absl::Now() - begin);
  }
  return tokens;
}

// Answers with a screen of the head, which is made on the way, are those without.
void CheckAnswers(Session& screened, const Expert& expert, WorkerPool& pool) {
  constexpr int64_t kTokens = 128;
  const std::vector<TokenId> prompt = Prose(expert, 32);
  for (const SamplingOptions& options : {Drawn(), GreedyOptions()}) {
    Session plain = NewSession(expert, pool, 32 + kTokens, nullptr);
    screened.Reset();
    if (Continue(plain, prompt, kTokens, options) != Continue(screened, prompt, kTokens, options)) {
      std::fprintf(stderr, "an answer is another one with a screen\n");
      std::exit(1);
    }
  }
}

// Tokens per second of one alternative, run after run.
struct Samples {
  std::vector<double> prefill, decode;
  std::vector<double> decode_cpu_ms;  // Of the process, a token: what a busy machine changes least.

  void Add(Session& session, int64_t n_prompt, int64_t n_generate, int64_t depth) {
    const auto rate = [](int64_t n, absl::Time begin) {
      return static_cast<double>(n) / absl::ToDoubleSeconds(absl::Now() - begin);
    };
    session.Reset();
    absl::Time begin = absl::Now();
    Require(session.Prefill(SomeTokens(n_prompt), {}));
    prefill.push_back(rate(n_prompt, begin));
    session.Reset();
    if (depth > 0) Require(session.Prefill(SomeTokens(depth), {}));
    begin = absl::Now();
    const std::clock_t cpu_begin = std::clock();
    for (const TokenId id : SomeTokens(n_generate)) Require(session.Decode(id));
    decode.push_back(rate(n_generate, begin));
    decode_cpu_ms.push_back(1e3 * static_cast<double>(std::clock() - cpu_begin) / CLOCKS_PER_SEC /
                            static_cast<double>(n_generate));
  }
};

// Answers of one kind, and what the screen did for them.
struct Answers {
  SamplingOptions options;
  std::vector<double> rates = {};  // Tokens per second.
  int64_t n_passes = 0, n_screened = 0, n_computed = 0;

  void Add(Session& session, const std::vector<TokenId>& prompt, int64_t n_generate,
           HeadScreens& screens) {
    Count(session, screens, -1);
    Continue(session, prompt, n_generate, options, &rates.emplace_back());
    Count(session, screens, 1);
    n_passes += n_generate + 1;  // The prompt's has logits too.
  }
  // Of all passes.
  double ScreenedShare() const {
    return static_cast<double>(n_screened) / static_cast<double>(n_passes);
  }
  // In the mean of screened passes.
  double ComputedRows() const {
    return n_screened == 0 ? 0 : static_cast<double>(n_computed) / static_cast<double>(n_screened);
  }

 private:
  void Count(const Session& session, HeadScreens& screens, int sign) {
    screens.Use(session.expert(), [&](const HeadScreen* screen) {
      if (screen == nullptr) return;
      n_screened += sign * screen->n_screened();
      n_computed += sign * screen->n_computed();
    });
  }
};

int Run(const std::string& path, int64_t n_prompt, int64_t n_generate, int n_repeat,
        int64_t depth) {
  WorkerPool pool;
  const absl::Time start = absl::Now();
  const auto opened = Require(Expert::Open(path));
  const Expert& expert = *opened;
  Session first(expert, pool, SessionShape::ForTokens(32));
  Require(first.Prefill(SomeTokens(1), {}));
  const double first_token_s = absl::ToDoubleSeconds(absl::Now() - start);
  const DeltaSnapshot adapter = RandomAdapter(expert.spec());
  if (CheckedLogits(expert, pool, nullptr) == CheckedLogits(expert, pool, adapter)) {
    std::fprintf(stderr, "the adapter changes nothing\n");
    return 1;
  }

  const int64_t n_tokens = depth + std::max<int64_t>(n_prompt, n_generate) + 256;
  MemoryBudget budget(int64_t{1} << 40);
  HeadScreens screens(budget);
  SequenceBatch batch(expert, pool, budget, {}, Activations::kInt8, &screens);
  Session answering(expert, pool, SessionShape::ForTokens(n_tokens), batch);
  CheckAnswers(answering, expert, pool);
  const std::vector<TokenId> prose = Prose(expert, std::max<int64_t>(depth, 32));
  Session bare = NewSession(expert, pool, n_tokens, nullptr);
  Session adapted = NewSession(expert, pool, n_tokens, adapter);
  Samples without, with;
  Answers drawn{Drawn()}, greedy{GreedyOptions()};
  for (int i = 0; i < n_repeat; ++i) {
    without.Add(bare, n_prompt, n_generate, depth);
    for (Answers* answers : {&drawn, &greedy}) {
      answers->Add(answering, prose, n_generate, screens);
    }
    with.Add(adapted, n_prompt, n_generate, depth);
  }
  nlohmann::json result;
  result["model"] = path;
  result["isa"] = std::string(Kernels().isa);
  result["threads"] = pool.n_workers();
  result["open_to_first_token_s"] = first_token_s;
  result["prefill_tokens_per_second"] = Median(without.prefill);
  result["decode_tokens_per_second"] = Median(without.decode);
  result["prefill_samples"] = without.prefill;
  result["decode_samples"] = without.decode;
  for (const auto& [name, answers] : {std::pair{"drawn", &drawn}, std::pair{"greedy", &greedy}}) {
    result[absl::StrCat(name, "_tokens_per_second")] = Median(answers->rates);
    result[absl::StrCat(name, "_samples")] = answers->rates;
    result[absl::StrCat(name, "_screened_share")] = answers->ScreenedShare();
    result[absl::StrCat(name, "_computed_share")] =
        answers->ComputedRows() / static_cast<double>(expert.spec().n_vocab);
  }
  result["screen_bytes"] = screens.expendable_bytes();
  result["adapter_prefill_tokens_per_second"] = Median(with.prefill);
  result["adapter_decode_tokens_per_second"] = Median(with.decode);
  result["adapter_prefill_samples"] = with.prefill;
  result["adapter_decode_samples"] = with.decode;
  result["decode_cpu_ms"] = Median(without.decode_cpu_ms);
  result["adapter_decode_cpu_ms"] = Median(with.decode_cpu_ms);
  result["adapter_bytes"] = adapter->bytes();
  result["weight_bytes"] = expert.weight_bytes();
  result["read_bytes_per_token"] = TouchedTensorBytes(expert, 1);
  result["macs_per_token"] = MacsPerToken(expert);
  result["read_bytes_per_second"] = MeasureReadBytesPerSecond(pool);
  result["int8_macs_per_second"] = MeasureInt8MacsPerSecond(pool);
  std::printf("%s\n", result.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace coterie

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: expert_bench MODEL.gguf [PROMPT] [GENERATE] [REPEAT] [DEPTH]\n");
    return 2;
  }
  const coterie::Numbers number(argc, argv);
  return coterie::Run(argv[1], number(2, 512), number(3, 64), number(4, 5), number(5, 0));
}
