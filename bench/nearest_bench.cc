// Times retrieval among 10,000 interactions, checks what it finds first.
//   nearest_bench [N]
// Prints p50 and p99 in milliseconds of a query of the index alone, of one with the log behind it,
// and of taking in one more interaction.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "core/base/check.h"
#include "lora/nearest.h"

namespace coterie {
namespace {

using Clock = std::chrono::steady_clock;

void Time(const char* name, int n_runs, const std::function<void(int)>& call) {
  std::vector<double> times;
  for (int i = 0; i < n_runs; ++i) {
    const Clock::time_point begin = Clock::now();
    call(i);
    times.push_back(std::chrono::duration<double, std::milli>(Clock::now() - begin).count());
  }
  std::sort(times.begin(), times.end());
  std::printf("%-28s p50 %.2f ms  p99 %.2f ms\n", name, times[times.size() / 2],
              times[times.size() * 99 / 100]);
}

// Questions of 4 to 20 words out of 400, of which some are usual.
std::string Question(std::mt19937& chance) {
  std::string text;
  for (int i = 0, n = 4 + static_cast<int>(chance() % 17); i < n; ++i) {
    const uint32_t a = chance() % 20, b = chance() % 20;
    std::mt19937 word((a * b) % 400);
    for (int j = 0, length = 2 + static_cast<int>(word() % 8); j < length; ++j) {
      text += static_cast<char>('a' + word() % 26);
    }
    text += ' ';
  }
  return text;
}

Interaction Accepted(int i, const std::string& asked) {
  Interaction one;
  one.id = absl::StrCat("n", i);
  one.messages = {{"user", asked, ""}};
  one.reply = "An answer of some length, as short answers are.";
  one.expert = "small";
  one.finish_reason = "stop";
  return one;
}

void Run(int n) {
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / absl::StrCat("nearest_bench_", std::rand());
  std::filesystem::create_directories(folder);
  InteractionLogOptions options;
  options.path = folder / "interactions.db";
  auto log = InteractionLog::Open(options);
  COTERIE_CHECK(log.ok(), "a new log opens");
  std::mt19937 chance(1);
  std::vector<std::string> questions;
  NearestTexts texts;
  for (int i = 0; i < n; ++i) {
    questions.push_back(Question(chance));
    texts.Add(i, questions.back());
    COTERIE_CHECK((*log)->Append(Accepted(i, questions.back())).ok() &&
                      (*log)->SetFeedback(absl::StrCat("n", i), {Verdict::kAccepted, "", ""}).ok(),
                  "the log takes them");
  }
  MemoryBudget budget(1'000'000'000);
  NearestInteractions nearest(**log, budget);
  const Clock::time_point begin = Clock::now();
  COTERIE_CHECK(nearest.Refresh().ok(), "the log can be read");
  std::printf("%d interactions: read in %.0f ms, %.1f MB charged, %.1f MB of index\n", n,
              std::chrono::duration<double, std::milli>(Clock::now() - begin).count(),
              static_cast<double>(budget.Snapshot().used_bytes) / 1e6,
              static_cast<double>(texts.memory_bytes()) / 1e6);
  const auto question = [&](int i) -> const std::string& {
    return questions[static_cast<size_t>(i) * 37 % questions.size()];
  };
  Time("query of the index", 1000, [&](int i) {
    const auto found = texts.Nearest(question(i), 6);
    COTERIE_CHECK(!found.empty() && found[0].similarity > 1 - 1e-6, "a question finds itself");
  });
  Time("query with the log", 1000, [&](int i) {
    const auto found = nearest.Find({{"small"}}, {{"user", question(i), ""}}, 6);
    COTERIE_CHECK(found.ok() && AskedText(found->at(0).messages) == question(i),
                  "a question finds itself");
  });
  Time("one more interaction", 200, [&](int i) {
    texts.Add(n + i, question(i));
    texts.Settle();
  });
  log->reset();
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace coterie

int main(int argc, char** argv) { coterie::Run(argc > 1 ? std::atoi(argv[1]) : 10'000); }
