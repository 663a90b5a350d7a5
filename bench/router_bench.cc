// Times one prompt through each tier, checks the result first.
//   router_bench [ROUTER.gguf [FIT_ROWS.jsonl [EVALUATION_ROWS.jsonl]]]
// Without rows the lexical tier is fitted on synthetic prompts. Prints p50, p90 and p99.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

#include "core/threads/worker_pool.h"
#include "router/router.h"

namespace coterie {
namespace {

using Clock = std::chrono::steady_clock;

double MillisecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

// Forty words as somebody might type them, each prompt a little different.
std::string FortyWords(int i) {
  return absl::StrCat(
      "I have a list of ", i,
      " orders with a date, a customer and a total, and I would like a small Python program that "
      "reads them from a file, groups them by customer and prints the sum of each group in order");
}

void TimePrompts(const Router& router, const char* name, const std::vector<std::string>& prompts) {
  constexpr int kWarmUp = 50, kRuns = 2000;
  std::vector<double> times;
  for (int i = 0; i < kWarmUp + kRuns; ++i) {
    const std::string& prompt = prompts[i % prompts.size()];
    const Clock::time_point begin = Clock::now();
    const absl::StatusOr<DomainScores> scores = router.Classify(prompt);
    const double spent = MillisecondsSince(begin);
    if (!scores.ok()) {
      std::printf("%s: %s\n", name, std::string(scores.status().message()).c_str());
      return;
    }
    if (i >= kWarmUp) times.push_back(spent);
  }
  std::sort(times.begin(), times.end());
  std::printf("%-28s p50 %7.3f ms  p90 %7.3f ms  p99 %7.3f ms\n", name, times[kRuns / 2],
              times[kRuns * 9 / 10], times[kRuns * 99 / 100]);
}

std::vector<LabelledPrompt> ReadRows(const char* path) {
  std::vector<LabelledPrompt> rows;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    const nlohmann::json row = nlohmann::json::parse(line, nullptr, false);
    if (row.is_discarded()) continue;
    rows.push_back({row["text"], row["label"], row.value("source", "")});
  }
  return rows;
}

std::vector<LabelledPrompt> SyntheticRows() {
  std::vector<LabelledPrompt> rows;
  for (int i = 0; i < 1000; ++i) {
    rows.push_back({FortyWords(i), "code", ""});
    rows.push_back({absl::StrCat("what is ", i, " times ", i * 7 % 13), "math", ""});
    rows.push_back({absl::StrCat("tell me about the year ", 1000 + i), "general", ""});
  }
  return rows;
}

void PrintEvaluation(const Router& router, const std::vector<LabelledPrompt>& rows) {
  const Clock::time_point begin = Clock::now();
  const absl::StatusOr<Evaluation> result = router.Evaluate(rows);
  if (!result.ok()) return;
  std::printf(
      "%s on %lld rows: accuracy %.4f macro-F1 %.4f wrong expert %.4f ECE %.4f abstained "
      "%.4f, %.2f ms a prompt\n",
      std::string(router.tier()).c_str(), static_cast<long long>(result->n), result->accuracy,
      result->macro_f1, result->wrong_expert_rate, result->ece, result->abstained_rate,
      MillisecondsSince(begin) / static_cast<double>(result->n));
}

int Main(int argc, char** argv) {
  std::vector<std::string> forty, ten = {"write a haiku about an old bicycle in the rain"};
  for (int i = 0; i < 50; ++i) forty.push_back(FortyWords(i));
  std::string eighty_five = FortyWords(1);
  eighty_five += " " + FortyWords(2) + " " + FortyWords(3);

  const std::vector<LabelledPrompt> rows = argc > 2 ? ReadRows(argv[2]) : SyntheticRows();
  const Clock::time_point begin = Clock::now();
  const auto lexical = Router::Fit(rows);
  if (!lexical.ok()) return 1;
  std::printf("lexical: fitted and calibrated on %zu rows in %.1f s, %.1f MB\n", rows.size(),
              MillisecondsSince(begin) / 1000.0, (*lexical)->memory_bytes() / 1e6);
  TimePrompts(**lexical, "lexical, 40 words", forty);
  TimePrompts(**lexical, "lexical, over 85 words", {eighty_five});
  if (argc > 3) PrintEvaluation(**lexical, ReadRows(argv[3]));

  for (const int n_workers : {1, 2}) {
    WorkerPool pool(n_workers);
    const char* path = argc > 1 ? argv[1] : "router/default_router.gguf";
    const Clock::time_point load_begin = Clock::now();
    const auto encoder = Router::Load(path, &pool);
    if (!encoder.ok()) {
      std::printf("%s\n", std::string(encoder.status().message()).c_str());
      return 1;
    }
    std::printf("encoder, %d worker(s): loaded in %.0f ms, %.1f MB\n", n_workers,
                MillisecondsSince(load_begin), (*encoder)->memory_bytes() / 1e6);
    TimePrompts(**encoder, "encoder, 10 words", ten);
    TimePrompts(**encoder, "encoder, 40 words", forty);
    TimePrompts(**encoder, "encoder, over 85 words", {eighty_five});
    if (argc > 3 && n_workers == 2) PrintEvaluation(**encoder, ReadRows(argv[3]));
  }
  return 0;
}

}  // namespace
}  // namespace coterie

int main(int argc, char** argv) { return coterie::Main(argc, argv); }
