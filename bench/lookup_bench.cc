// Answers with and without lookup of what repeats in the conversation: one JSON object.
//   lookup_bench MODEL.gguf [N_REPEAT=5] [N_GENERATE=200] [--samples]
// Tasks that copy (a file is to be written again with a change, a text is to be quoted from) and
// tasks that do not (chat, code from nothing), greedy and drawn. Checked before it is timed: the
// answers are the same, token by token. The two are timed in turn; ratios are medians of those of
// neighbours, over 1 where lookup is faster: of time, and of processor time, which other work on
// the machine disturbs less. Both are of the answer without the prompt.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

#include "bench/arguments.h"
#include "bench/require.h"
#include "bench/samples.h"
#include "core/kernels/kernels.h"
#include "core/threads/worker_pool.h"
#include "experts/expert.h"
#include "experts/generation.h"
#include "experts/session.h"

namespace coterie {
namespace {

constexpr char kFile[] = R"(import json
from pathlib import Path


class Inventory:
    """Counts of things by name, kept in a file."""

    def __init__(self, path):
        self.path = Path(path)
        self.counts = {}

    def load(self):
        if self.path.exists():
            self.counts = json.loads(self.path.read_text())

    def save(self):
        self.path.write_text(json.dumps(self.counts))

    def add(self, name, count=1):
        self.counts[name] = self.counts.get(name, 0) + count

    def remove(self, name, count=1):
        left = self.counts.get(name, 0) - count
        if left < 0:
            raise ValueError(f"there are not enough of {name}")
        self.counts[name] = left

    def total(self):
        return sum(self.counts.values())
)";

constexpr char kArticle[] =
    "The lighthouse on Gull Island was built in 1874 after three ships were lost on the northern "
    "reef in a single winter. Its lamp burned whale oil at first, and the keeper climbed 142 steps "
    "twice a night to fill it. In 1911 the oil was replaced by gas, which made the climb "
    "unnecessary on most nights. The last keeper, Edith Moran, left the island in 1968, when the "
    "light was connected to the mainland by a cable. Since then the tower has been empty but for "
    "swifts, which nest under the gallery every summer. The island's council has decided to open "
    "it to visitors next spring, at first on Sundays only. A new railing, 90 centimetres high, "
    "will be fitted before that. The council expects about 4,000 visitors in the first year.";

struct Task {
  std::string kind;
  std::string prompt;
  float temperature = 0;
};

std::vector<Task> Tasks() {
  const std::string file = absl::StrCat("```python\n", kFile, "```\n");
  const std::string article = absl::StrCat("\n\n", kArticle);
  return {
      {"edit", absl::StrCat(file,
                            "Rename the method `total` to `count_all` and write the whole "
                            "file again.")},
      {"edit", absl::StrCat("Here is a file:\n", file,
                            "Add a method `clear` that removes everything. Answer with the whole "
                            "file.")},
      {"edit", absl::StrCat(file, "Write this file again, with a docstring for every method."),
       0.7f},
      {"quote",
       absl::StrCat("Repeat this text word for word, and then name the last keeper:", article)},
      {"quote", absl::StrCat("Summarise this text in three sentences, each with a quotation from "
                             "it:",
                             article)},
      {"quote",
       absl::StrCat("List all sentences of this text that have a number in them:", article), 0.7f},
      {"chat", "What should I think of before I move to another city?"},
      {"chat", "Explain to a child why the sky is blue and the evening is red."},
      {"chat", "Write a short story about a fox that learns to sail.", 0.7f},
      {"chat", "Give me ideas for a birthday party in the rain.", 0.7f},
      {"code", "Write a Python function that finds the longest common prefix of a list of words."},
      {"code", "Write a C program that prints a calendar of one month.", 0.7f},
  };
}

// One task, answered in turn with lookup and without.
class Comparison {
 public:
  Comparison(const Expert& expert, WorkerPool& pool, const Task& task, int64_t n_generate)
      : expert_(expert), pool_(pool), task_(task) {
    options_.max_tokens = n_generate;
    options_.sampling.temperature = task.temperature;
    options_.sampling.seed = 7;
    const Message message{"user", task.prompt, ""};
    prompt_ = Require(EncodeConversation(expert, {&message, 1})).ids;
    without_ = Answer(false);
    with_ = Answer(true);
    if (with_.tokens == without_.tokens && with_.text == without_.text) return;
    std::fprintf(stderr, "lookup changed the answer to: %s\n", task.prompt.c_str());
    std::exit(1);
  }

  // Turned round each time, so that neither is always the second.
  void Time() {
    std::clock_t cpu_with = 0, cpu_without = 0;
    double with = 0, without = 0;
    for (const bool lookup : {is_turned_, !is_turned_}) {
      const Generation answer = Answer(lookup);
      (lookup ? cpu_with : cpu_without) = cpu_;
      (lookup ? with : without) = 1 / answer.decode_tokens_per_second();
    }
    is_turned_ = !is_turned_;
    times_with_.push_back(with);
    times_without_.push_back(without);
    ratios_.push_back(without / with);
    cpu_ratios_.push_back(static_cast<double>(cpu_without) / static_cast<double>(cpu_with));
  }

  nlohmann::json Row(bool with_samples) const {
    nlohmann::json row = {{"kind", task_.kind},
                          {"prompt_tokens", prompt_.size()},
                          {"temperature", task_.temperature},
                          {"tokens", with_.n_tokens},
                          {"proposed_tokens", with_.n_proposed_tokens},
                          {"lookup_tokens", with_.n_lookup_tokens},
                          {"tokens_per_second", 1 / Median(times_with_)},
                          {"tokens_per_second_without", 1 / Median(times_without_)},
                          {"ratio", Median(ratios_)},
                          {"cpu_ratio", Median(cpu_ratios_)}};
    if (with_samples) {
      row["ratios"] = ratios_;
      row["cpu_ratios"] = cpu_ratios_;
    }
    return row;
  }

 private:
  Generation Answer(bool lookup) {
    options_.lookup = lookup;
    Session session(
        expert_, pool_,
        SessionShape::ForTokens(static_cast<int64_t>(prompt_.size()) + options_.max_tokens));
    Require(session.Prefill({prompt_.data(), prompt_.size() - 1}, {}));
    const std::clock_t begin = std::clock();
    Generation answer =
        Require(Generate(session, prompt_, options_, [](absl::string_view) { return true; }, {}));
    cpu_ = std::clock() - begin;
    return answer;
  }

  const Expert& expert_;
  WorkerPool& pool_;
  const Task task_;
  GenerationOptions options_;
  std::vector<TokenId> prompt_;
  Generation with_;
  Generation without_;
  std::vector<double> times_with_;
  std::vector<double> times_without_;
  std::vector<double> ratios_;
  std::vector<double> cpu_ratios_;
  std::clock_t cpu_ = 0;  // Of the last answer.
  bool is_turned_ = false;
};

int Run(const std::string& path, int n_repeat, int64_t n_generate, bool with_samples) {
  WorkerPool pool;
  const auto expert = Require(Expert::Open(path));
  std::vector<Comparison> comparisons;
  for (const Task& task : Tasks()) comparisons.emplace_back(*expert, pool, task, n_generate);
  for (int repeat = 0; repeat < n_repeat; ++repeat) {
    for (Comparison& comparison : comparisons) comparison.Time();
  }
  nlohmann::json result = {
      {"model", path}, {"isa", std::string(Kernels().isa)}, {"threads", pool.n_workers()}};
  for (const Comparison& comparison : comparisons) {
    result["tasks"].push_back(comparison.Row(with_samples));
  }
  std::printf("%s\n", result.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace coterie

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: lookup_bench MODEL.gguf [N_REPEAT] [N_GENERATE] [--samples]\n");
    return 2;
  }
  const bool with_samples = std::string(argv[argc - 1]) == "--samples";
  const coterie::Numbers number(with_samples ? argc - 1 : argc, argv);
  return coterie::Run(argv[1], number(2, 5), number(3, 200), with_samples);
}
