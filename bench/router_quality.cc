// What a router does beyond plain accuracy, on rows of text, label and source (JSON lines).
//   router_quality corrections ROUTER|lexical:FIT.jsonl CORRECTED.jsonl OTHERS.jsonl
//   router_quality domain      ROUTER|lexical:FIT.jsonl NEW.jsonl OTHERS.jsonl
//   router_quality residency   ROUTER|lexical:FIT.jsonl ROWS.jsonl
//   router_quality scope       FIT.jsonl IN_SCOPE.jsonl OUT_OF_SCOPE.jsonl
//   router_quality examples    ROUTER EXAMPLES.jsonl OUT
// corrections: what k corrections gain on other prompts of the same kind, and lose on others.
// domain: a domain added from ten of the new rows, measured on the rest and on others.
// residency: streams whose topic stays with probability 0.8, with and without Dispatch's bonus.
// scope: accuracy in scope, and how well the first probability tells what is out of scope.
// examples: writes the router with these rows as its examples.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

#include "core/threads/worker_pool.h"
#include "router/dispatch.h"
#include "router/router.h"

namespace coterie {
namespace {

using Clock = std::chrono::steady_clock;
using Rows = std::vector<LabelledPrompt>;
using RouterPointer = std::unique_ptr<const Router>;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// The value, or the end of the program with the reason.
template <typename T>
T Got(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::fprintf(stderr, "%s\n", std::string(value.status().message()).c_str());
    std::exit(1);
  }
  return *std::move(value);
}

Rows ReadRows(const std::string& path) {
  Rows rows;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    const nlohmann::json row = nlohmann::json::parse(line, nullptr, false);
    if (row.is_discarded()) continue;
    rows.push_back({row["text"], row.value("label", ""), row.value("source", "")});
  }
  if (rows.empty()) Got<int>(absl::NotFoundError(absl::StrCat("no rows: file=", path)));
  return rows;
}

RouterPointer Open(const std::string& name, WorkerPool& pool) {
  if (absl::StartsWith(name, "lexical:")) return Got(Router::Fit(ReadRows(name.substr(8))));
  return Got(Router::Load(name, &pool));
}

double Accuracy(const Router& router, const Rows& rows) {
  return 100.0 * Got(router.Evaluate(rows)).accuracy;
}

void Corrections(const Router& router, Rows rows, const Rows& others) {
  constexpr size_t kTested = 800;
  std::shuffle(rows.begin(), rows.end(), std::mt19937(1));
  const Rows tested(rows.end() - std::min(kTested, rows.size() / 2), rows.end());
  std::printf("k, seconds, unseen of the same kind, others\n");
  for (const size_t k : {0, 25, 100, 400}) {
    if (k + tested.size() > rows.size()) break;
    const Rows given(rows.begin(), rows.begin() + static_cast<int64_t>(k));
    const Clock::time_point begin = Clock::now();
    const RouterPointer corrected = Got(router.Correct(given));
    const double spent = SecondsSince(begin);
    std::printf("%4zu %6.2f s %6.2f %6.2f\n", k, spent, Accuracy(*corrected, tested),
                Accuracy(*corrected, others));
  }
  // One more correction on top of the last ones: what a user waits for.
  const RouterPointer hundred =
      Got(router.Correct({rows.data(), std::min<size_t>(100, rows.size())}));
  const Clock::time_point begin = Clock::now();
  Got(hundred->Correct(tested[0].text, tested[0].label));
  std::printf("one correction after 100 others: %.3f s\n", SecondsSince(begin));
}

void Domain(const Router& router, Rows rows, const Rows& others) {
  std::shuffle(rows.begin(), rows.end(), std::mt19937(1));
  const std::string name = "new: " + rows[0].label;
  std::vector<std::string> examples;
  for (size_t i = 0; i < 10 && i < rows.size(); ++i) examples.push_back(rows[i].text);
  Rows rest(rows.begin() + static_cast<int64_t>(examples.size()), rows.end());
  for (LabelledPrompt& row : rest) row.label = name;
  const double before = Accuracy(router, others);
  const RouterPointer wider = Got(router.AddDomain(name, examples));
  std::printf(
      "added from %zu examples: %.1f %% of %zu others of it found; known domains %.2f -> %.2f\n",
      examples.size(), Accuracy(*wider, rest), rest.size(), before, Accuracy(*wider, others));
}

// Prompts whose topic stays with probability 0.8.
std::vector<size_t> Stream(const Rows& rows, int n, std::mt19937& random) {
  std::map<std::string, std::vector<size_t>> by_label;
  for (size_t i = 0; i < rows.size(); ++i) by_label[rows[i].label].push_back(i);
  std::vector<const std::vector<size_t>*> topics;
  for (const auto& [label, group] : by_label) topics.push_back(&group);
  std::vector<size_t> stream;
  size_t topic = random() % topics.size();
  for (int i = 0; i < n; ++i) {
    if (random() % 10 >= 8) topic = random() % topics.size();
    stream.push_back((*topics[topic])[random() % topics[topic]->size()]);
  }
  return stream;
}

struct StreamResult {
  int64_t n = 0, right = 0, loads = 0, wrong = 0;
};

// One expert a domain, the generalist and n_beside others resident, the longest unused one leaves.
void RunStream(const std::vector<size_t>& stream, const Rows& rows,
               const std::vector<DomainScores>& scores, size_t n_beside,
               const DispatchOptions& options, StreamResult& result) {
  ExpertTable table;
  for (const Score& score : scores[0].ranked) {
    ExpertRow row;
    row.name = score.domain;
    row.quality[score.domain] = 1.0;
    row.bytes = 1;
    row.load_ms = 1000.0;
    table.push_back(row);
  }
  std::vector<std::string> resident;  // The latest used last.
  ConversationState conversation;
  for (const size_t at : stream) {
    Residency residency{resident};
    residency.experts.emplace_back(kGeneralDomain);
    const Choice choice = Got(Dispatch(scores[at], table, residency, conversation, options));
    conversation = Advanced(conversation, choice);
    ++result.n;
    result.right += choice.expert == rows[at].label;
    result.wrong += choice.expert != rows[at].label && choice.expert != kGeneralDomain;
    if (choice.expert == kGeneralDomain) continue;
    const auto found = std::find(resident.begin(), resident.end(), choice.expert);
    result.loads += found == resident.end();
    if (found != resident.end()) resident.erase(found);
    resident.push_back(choice.expert);
    if (resident.size() > n_beside) resident.erase(resident.begin());
  }
}

constexpr int kNoLimit = 1 << 30;

// A router that is never wrong: no bonus can save more loads than it needs, at no loss.
std::vector<DomainScores> Truth(const Rows& rows, const std::vector<DomainScores>& scores) {
  std::vector<DomainScores> truth = scores;
  for (size_t i = 0; i < rows.size(); ++i) {
    truth[i].abstained = false;
    for (Score& score : truth[i].ranked) score.probability = score.domain == rows[i].label;
  }
  return truth;
}

void ResidencyStreams(const Router& router, const Rows& rows) {
  std::vector<DomainScores> scores;
  for (const LabelledPrompt& row : rows) scores.push_back(Got(router.Classify(row.text)));
  std::printf(
      "experts beside the generalist, bonus, limit, sticky: accuracy, loads, wrong expert\n");
  for (const size_t n_beside : {1, 2, 3}) {
    for (const auto& [bonus, confident, limit, sticky] :
         std::vector<std::tuple<double, double, int, double>>{{0.0, 0.8, 4, 0.0},
                                                              {0.3, 0.8, 4, 0.1},
                                                              {0.5, 1.01, kNoLimit, 0.2},
                                                              {0.6, 1.01, kNoLimit, 0.3},
                                                              {0.6, 1.01, kNoLimit, 0.33},
                                                              {0.6, 1.01, kNoLimit, 0.35}}) {
      DispatchOptions options;
      options.residency_bonus = bonus;
      options.confident = confident;
      options.max_residency_decisions = limit;
      options.sticky_bonus = sticky;
      StreamResult result;
      std::mt19937 random(3);
      for (int i = 0; i < 200; ++i) {
        RunStream(Stream(rows, 50, random), rows, scores, n_beside, options, result);
      }
      const auto n = static_cast<double>(result.n);
      std::printf("%zu  %.1f until %.2f limit %d sticky %.2f: %5.1f %5.1f %5.1f\n", n_beside, bonus,
                  confident, std::min(limit, 99), sticky, 100.0 * result.right / n,
                  100.0 * result.loads / n, 100.0 * result.wrong / n);
    }
    StreamResult oracle;
    std::mt19937 random(3);
    const std::vector<DomainScores> truth = Truth(rows, scores);
    DispatchOptions none;
    none.residency_bonus = none.sticky_bonus = 0.0;
    for (int i = 0; i < 200; ++i) {
      RunStream(Stream(rows, 50, random), rows, truth, n_beside, none, oracle);
    }
    std::printf("%zu  the truth: %.1f loads\n", n_beside,
                100.0 * static_cast<double>(oracle.loads) / static_cast<double>(oracle.n));
  }
}

// The chance that a prompt in scope scores higher than one out of it.
double Auroc(const std::vector<double>& inside, std::vector<double> outside) {
  std::sort(outside.begin(), outside.end());
  double sum = 0.0;
  for (const double value : inside) {
    const auto low = std::lower_bound(outside.begin(), outside.end(), value);
    const auto high = std::upper_bound(low, outside.end(), value);
    sum += static_cast<double>(low - outside.begin()) + 0.5 * static_cast<double>(high - low);
  }
  return sum / (static_cast<double>(inside.size()) * static_cast<double>(outside.size()));
}

void Scope(const Rows& fit, const Rows& in_scope, const Rows& out_of_scope) {
  const Clock::time_point begin = Clock::now();
  const RouterPointer router = Got(Router::Fit(fit));
  std::printf("fitted to %zu prompts of %zu labels in %.1f s\n", fit.size(),
              router->domains().size(), SecondsSince(begin));
  std::vector<double> inside, outside;
  int64_t right = 0;
  for (const LabelledPrompt& row : in_scope) {
    const DomainScores scores = Got(router->Classify(row.text));
    right += scores.ranked[0].domain == row.label;
    inside.push_back(scores.ranked[0].probability);
  }
  for (const LabelledPrompt& row : out_of_scope) {
    outside.push_back(Got(router->Classify(row.text)).ranked[0].probability);
  }
  std::printf("in scope %.2f %%, AUROC %.4f\n",
              100.0 * static_cast<double>(right) / static_cast<double>(in_scope.size()),
              Auroc(inside, outside));
}

int Main(const std::vector<std::string>& arguments) {
  WorkerPool pool(2);
  const std::string mode = arguments.empty() ? "" : arguments[0];
  const size_t n = arguments.size();
  if (mode == "scope" && n == 4) {
    Scope(ReadRows(arguments[1]), ReadRows(arguments[2]), ReadRows(arguments[3]));
  } else if (mode == "corrections" && n == 4) {
    Corrections(*Open(arguments[1], pool), ReadRows(arguments[2]), ReadRows(arguments[3]));
  } else if (mode == "domain" && n == 4) {
    Domain(*Open(arguments[1], pool), ReadRows(arguments[2]), ReadRows(arguments[3]));
  } else if (mode == "residency" && n == 3) {
    ResidencyStreams(*Open(arguments[1], pool), ReadRows(arguments[2]));
  } else if (mode == "examples" && n == 4) {
    const RouterPointer router = Open(arguments[1], pool);
    const absl::Status saved =
        Got(router->WithExamples(ReadRows(arguments[2])))->Save(arguments[3]);
    if (!saved.ok()) Got<int>(saved);
  } else {
    std::fprintf(stderr, "see the top of bench/router_quality.cc\n");
    return 2;
  }
  return 0;
}

}  // namespace
}  // namespace coterie

int main(int argc, char** argv) { return coterie::Main({argv + 1, argv + argc}); }
