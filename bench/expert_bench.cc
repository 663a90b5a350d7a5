// Prefill and decode speed of one model file, beside what the machine can do: one JSON object.
//   expert_bench MODEL.gguf [N_PROMPT=512] [N_GENERATE=64] [N_REPEAT=5] [DEPTH=0]
// The result is checked before it is timed: the same prompt must give the same greedy token in one
// pass, token by token, and in the timed runs.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "nlohmann/json.hpp"

#include "bench/machine_limits.h"
#include "core/threads/worker_pool.h"
#include "experts/expert.h"
#include "experts/session.h"

namespace coterie {
namespace {

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void Require(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

TokenId Greedy(const Session& session) {
  const absl::Span<const float> logits = session.logits();
  return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

std::vector<TokenId> SomeTokens(int64_t n) {
  std::vector<TokenId> ids;
  for (int64_t i = 0; i < n; ++i) ids.push_back(static_cast<TokenId>((7 * i + 11) % 20000 + 300));
  return ids;
}

// The last token's choice does not depend on how the prompt was cut into passes.
void CheckResult(const Expert& expert, WorkerPool& pool) {
  const std::vector<TokenId> ids = SomeTokens(40);
  Session whole(expert, pool, SessionShape::ForTokens(64));
  Session stepwise(expert, pool, SessionShape::ForTokens(64));
  Require(whole.Prefill(ids, {}));
  for (const TokenId id : ids) Require(stepwise.Decode(id));
  if (Greedy(whole) == Greedy(stepwise)) return;
  std::fprintf(stderr, "one pass and token by token disagree\n");
  std::exit(1);
}

int Run(const std::string& path, int64_t n_prompt, int64_t n_generate, int n_repeat,
        int64_t depth) {
  WorkerPool pool;
  const absl::Time start = absl::Now();
  const auto opened = Expert::Open(path);
  Require(opened.status());
  const Expert& expert = **opened;
  Session first(expert, pool, SessionShape::ForTokens(32));
  Require(first.Prefill(SomeTokens(1), {}));
  const double first_token_s = absl::ToDoubleSeconds(absl::Now() - start);
  CheckResult(expert, pool);

  Session session(expert, pool, SessionShape::ForTokens(depth + std::max(n_prompt, n_generate)));
  std::vector<double> prefill, decode;
  for (int i = 0; i < n_repeat; ++i) {
    session.Reset();
    absl::Time begin = absl::Now();
    Require(session.Prefill(SomeTokens(n_prompt), {}));
    prefill.push_back(static_cast<double>(n_prompt) / absl::ToDoubleSeconds(absl::Now() - begin));
    session.Reset();
    if (depth > 0) Require(session.Prefill(SomeTokens(depth), {}));
    begin = absl::Now();
    for (const TokenId id : SomeTokens(n_generate)) Require(session.Decode(id));
    decode.push_back(static_cast<double>(n_generate) / absl::ToDoubleSeconds(absl::Now() - begin));
  }
  nlohmann::json result;
  result["model"] = path;
  result["isa"] = std::string(Kernels().isa);
  result["threads"] = pool.n_workers();
  result["open_to_first_token_s"] = first_token_s;
  result["prefill_tokens_per_second"] = Median(prefill);
  result["decode_tokens_per_second"] = Median(decode);
  result["prefill_samples"] = prefill;
  result["decode_samples"] = decode;
  result["weight_bytes"] = expert.weight_bytes();
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
  const auto number = [&](int i, int fallback) { return argc > i ? std::atoi(argv[i]) : fallback; };
  return coterie::Run(argv[1], number(2, 512), number(3, 64), number(4, 5), number(5, 0));
}
