// One process as a small program would be: it opens a model file, reads a prompt, writes an answer.
//   session_bench MODEL.gguf [N_PROMPT=512] [N_GENERATE=256]
//   session_bench --limits
// Prints one JSON object: how long the first token took, how evenly the others came, and the most
// memory that was resident, beside the bytes that the file's tensors and the KV cache must take.
// --limits: what the machine can do instead, see bench/machine_limits.h.

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "nlohmann/json.hpp"

#include "bench/arguments.h"
#include "bench/machine_limits.h"
#include "bench/require.h"
#include "bench/samples.h"
#include "bench/tensor_use.h"
#include "core/kernels/kernels.h"
#include "core/threads/worker_pool.h"
#include "experts/expert.h"
#include "experts/session.h"

namespace coterie {
namespace {

// "VmHWM", "RssAnon" and the like of this process, in bytes.
int64_t StatusBytes(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(name + ":")) return std::atoll(line.c_str() + name.size() + 1) * 1024;
  }
  return 0;
}

double MsSince(absl::Time begin) { return absl::ToDoubleMilliseconds(absl::Now() - begin); }

int Run(const std::string& path, int64_t n_prompt, int64_t n_generate) {
  WorkerPool pool;
  const absl::Time start = absl::Now();
  const auto expert = Require(Expert::Open(path));
  const int64_t n_tokens = n_prompt + n_generate;
  const SessionShape shape = SessionShape::ForTokens(n_tokens);
  Session session(*expert, pool, shape);
  Require(session.Prefill(SomeTokens(n_prompt), {}));
  const double first_token_ms = MsSince(start);
  std::vector<double> gaps;
  for (const TokenId id : SomeTokens(n_generate)) {
    const absl::Time begin = absl::Now();
    Require(session.Decode(id));
    gaps.push_back(MsSince(begin));
  }
  std::sort(gaps.begin(), gaps.end());
  const auto quantile = [&gaps](double q) {
    return gaps[static_cast<size_t>(q * static_cast<double>(gaps.size() - 1))];
  };
  const nlohmann::json out = {
      {"model", path},
      {"isa", std::string(Kernels().isa)},
      {"threads", pool.n_workers()},
      {"open_to_first_token_ms", first_token_ms},
      {"token_ms_median", quantile(0.5)},
      {"token_ms_p99", quantile(0.99)},
      {"peak_resident_bytes", StatusBytes("VmHWM")},
      {"tensor_bytes", TouchedTensorBytes(*expert, n_tokens)},
      {"kv_bytes", shape.KvBytes(expert->spec())},
      {"scratch_bytes", shape.ScratchBytes(expert->spec(), pool.n_workers())},
      {"tokenizer_bytes", expert->tokenizer_bytes()},
  };
  std::printf("%s\n", out.dump().c_str());
  return 0;
}

int PrintLimits() {
  WorkerPool pool;
  const nlohmann::json out = {{"isa", std::string(Kernels().isa)},
                              {"threads", pool.n_workers()},
                              {"read_bytes_per_second", MeasureReadBytesPerSecond(pool)},
                              {"core_to_core_seconds", MeasureCoreToCoreSeconds()},
                              {"int8_macs_per_second", MeasureInt8MacsPerSecond(pool)},
                              {"bf16_macs_per_second", MeasureBF16MacsPerSecond(pool)},
                              {"f32_macs_per_second", MeasureF32MacsPerSecond(pool)}};
  std::printf("%s\n", out.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace coterie

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: session_bench MODEL.gguf [N_PROMPT] [N_GENERATE], or --limits\n");
    return 2;
  }
  if (std::string(argv[1]) == "--limits") return coterie::PrintLimits();
  const coterie::Numbers number(argc, argv);
  return coterie::Run(argv[1], number(2, 512), number(3, 256));
}
