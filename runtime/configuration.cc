#include "runtime/configuration.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <thread>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "core/base/byte_size.h"
#include "core/base/exception_guard.h"
#include "core/base/quote.h"
#include "core/base/read_file.h"
#include "core/base/status_macros.h"
#include "runtime/free_memory.h"
#include "runtime/table_reader.h"
#include "runtime/user_paths.h"

namespace coterie {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxFileBytes = 1 << 20;
constexpr int kMaxThreads = 1024;
constexpr int kMaxKeyParts = 64;
constexpr int64_t kMinLogBytes = 1'000'000;

// The line of a key with more dots than any key has, or 0. toml++ follows each by recursion, so
// that a file of nothing but "a.a.a" would overflow the stack. Words apart are prose, not a key.
int LineOfDeepKey(absl::string_view text) {
  int line = 1, n_dots = 0;
  char last = '\n';  // Before white space.
  bool is_apart = false;
  for (const char c : text) {
    if (c == ' ' || c == '\t') {
      is_apart = true;
      continue;
    }
    const bool is_word = absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' ||
                         c == '-' || c == '"' || c == '\'' || static_cast<signed char>(c) < 0;
    if (c == '.' && last != '.') {
      if (++n_dots == kMaxKeyParts) return line;
    } else if (!is_word || (is_apart && last != '.')) {
      n_dots = 0;
    }
    line += c == '\n' ? 1 : 0;
    last = c;
    is_apart = false;
  }
  return 0;
}

absl::Status ReadRouter(const toml::table& table, absl::string_view file, const fs::path& folder,
                        Configuration& configuration) {
  TableReader reader(table, "[router]", file);
  reader.AllowOnly({"path", "residency_bonus", "sticky_bonus", "second_price", "abstain_below"});
  reader.Read("path", configuration.router_path);
  reader.Read("residency_bonus", 0.0, 1.0, configuration.dispatch.residency_bonus);
  reader.Read("sticky_bonus", 0.0, 1.0, configuration.dispatch.sticky_bonus);
  reader.Read("second_price", 0.0, 1.0, configuration.dispatch.second_price);
  if (reader.Has("abstain_below")) {
    configuration.abstain_below = 0;
    reader.Read("abstain_below", 0.0, 1.0, *configuration.abstain_below);
  }
  if (configuration.router_path.empty()) return reader.status();
  configuration.router_path = ResolvePath(configuration.router_path, folder);
  return reader.status();
}

absl::Status ReadServer(const toml::table& table, absl::string_view file,
                        ServerConfiguration& server) {
  TableReader reader(table, "[server]", file);
  reader.AllowOnly({"host", "port", "api_key"});
  reader.Read("host", server.host);
  reader.Read("port", 0, 65535, server.port);
  reader.Read("api_key", server.api_key);
  if (server.host.empty()) reader.Fail("host", reader.LineOf("host"), "expected an address");
  return reader.status();
}

absl::Status ReadCache(const toml::table& table, absl::string_view file, const fs::path& folder,
                       CacheConfiguration& cache) {
  TableReader reader(table, "[cache]", file);
  reader.AllowOnly({"keep_alive", "policy", "prefetch", "pressure", "prefix_share", "prefix_disk",
                    "head_screens", "request_log"});
  reader.ReadTime("keep_alive", /*may_be_forever=*/true, cache.keep_alive);
  std::string policy = "coterie";
  reader.Read("policy", policy);
  if (policy == "lru") {
    cache.policy = LeavingPolicy::kLru;
  } else if (policy != "coterie") {
    reader.Fail("policy", reader.LineOf("policy"), "expected \"coterie\" or \"lru\"");
  }
  reader.Read("prefetch", cache.prefetch);
  reader.Read("pressure", cache.pressure);
  reader.Read("prefix_share", 0.0, 1.0, cache.prefix_share);
  reader.ReadBytes("prefix_disk", cache.prefix_disk_bytes);
  reader.Read("head_screens", cache.head_screens);
  reader.Read("request_log", cache.request_log);
  if (!cache.request_log.empty()) cache.request_log = ResolvePath(cache.request_log, folder);
  return reader.status();
}

absl::Status ReadQueue(const toml::table& table, absl::string_view file, RequestQueueOptions& queue,
                       SequenceBatchOptions& batch) {
  TableReader reader(table, "[queue]", file);
  reader.AllowOnly({"max_waiting", "max_running", "max_batch", "batch_wait"});
  reader.Read("max_waiting", 0, 1 << 20, queue.max_waiting);
  reader.Read("max_running", 1, kMaxThreads, queue.max_running);
  reader.Read("max_batch", 1, kMaxThreads, batch.max_sequences);
  reader.ReadTime("batch_wait", /*may_be_forever=*/false, queue.max_batch_wait);
  return reader.status();
}

absl::Status ReadLearning(const toml::table& table, absl::string_view file, const fs::path& folder,
                          LearningConfiguration& learning) {
  TableReader reader(table, "[learning]", file);
  reader.AllowOnly({"log", "log_path", "log_bytes", "key_file", "retrieval", "retrieval_tokens",
                    "replay", "train_when_idle", "idle_minutes", "least_feedback", "only_on_ac"});
  reader.Read("log", learning.log);
  reader.Read("log_path", learning.log_path);
  reader.ReadBytes("log_bytes", learning.log_bytes);
  if (learning.log_bytes < kMinLogBytes) {
    reader.Fail("log_bytes", reader.LineOf("log_bytes"),
                absl::StrCat("expected ", FormatBytes(kMinLogBytes), " or more"));
  }
  reader.Read("key_file", learning.key_file);
  reader.Read("retrieval", learning.retrieval);
  reader.Read("retrieval_tokens", 1, 1 << 20, learning.retrieval_tokens);
  reader.Read("replay", learning.replay);
  reader.Read("train_when_idle", learning.idle.enabled);
  double idle_minutes = absl::ToDoubleMinutes(learning.idle.idle);
  reader.Read("idle_minutes", 0.0, 1e6, idle_minutes);
  learning.idle.idle = absl::Minutes(idle_minutes);
  reader.Read("least_feedback", 1, 1 << 20, learning.idle.least_feedback);
  reader.Read("only_on_ac", learning.idle.only_on_ac);
  for (std::string* path : {&learning.log_path, &learning.key_file, &learning.replay}) {
    if (!path->empty()) *path = ResolvePath(*path, folder);
  }
  return reader.status();
}

constexpr std::array<absl::string_view, 7> kSamplingKeys = {
    "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "repetition_window", "seed"};

// The ranges are those of SamplingOptions::Validate, which has the last word.
void ReadSampling(TableReader& reader, std::optional<SamplingOptions>& sampling) {
  if (std::none_of(kSamplingKeys.begin(), kSamplingKeys.end(),
                   [&](absl::string_view key) { return reader.Has(key); })) {
    return;
  }
  SamplingOptions options;
  reader.Read("temperature", 0.0f, 100.0f, options.temperature);
  reader.Read("top_k", 0, std::numeric_limits<int>::max(), options.top_k);
  reader.Read("top_p", std::numeric_limits<float>::min(), 1.0f, options.top_p);
  reader.Read("min_p", 0.0f, 1.0f, options.min_p);
  reader.Read("repetition_penalty", 0.1f, 10.0f, options.repetition_penalty);
  reader.Read("repetition_window", 0, 8192, options.repetition_window);
  int64_t seed = -1;
  reader.Read("seed", 0, std::numeric_limits<int64_t>::max(), seed);
  if (seed >= 0) options.seed = static_cast<uint64_t>(seed);
  if (const absl::Status status = options.Validate(); !status.ok()) {
    reader.Fail("sampling", reader.LineOf("temperature"), status.message());
  }
  sampling = options;
}

// With the router that ships, only its domains make sense; with one's own, any name does.
absl::Status ReadDomains(const toml::table& table, const std::string& section,
                         absl::string_view file, bool own_router,
                         std::map<std::string, double>& domains) {
  TableReader reader(table, absl::StrCat(section, " domains"), file);
  if (!own_router) reader.AllowOnly(KnownDomains());
  for (auto&& [key, node] : table) {
    double quality = 0;
    reader.Read(ViewOf(key.str()), 0.0, 1.0, quality);
    domains[std::string(key.str())] = quality;
  }
  return reader.status();
}

absl::Status ReadExpert(const toml::table& table, absl::string_view file, const fs::path& folder,
                        bool own_router, ExpertConfiguration& expert) {
  TableReader reader(table, "[[expert]]", file);
  std::vector<absl::string_view> known = {"name",    "model",          "system_prompt",
                                          "adapter", "context_tokens", "chat_template",
                                          "pinned",  "keep_alive",     "domains"};
  known.insert(known.end(), kSamplingKeys.begin(), kSamplingKeys.end());
  reader.AllowOnly(known);
  expert.line = static_cast<int>(table.source().begin.line);
  reader.Read("name", expert.name);
  reader.Read("model", expert.model);
  for (const char* key : {"name", "model"}) {
    if ((*key == 'n' ? expert.name : expert.model).empty()) {
      reader.Fail(key, reader.LineOf(key), "every [[expert]] needs one");
    }
  }
  reader.Read("system_prompt", expert.system_prompt);
  reader.Read("chat_template", expert.chat_template);
  reader.Read("adapter", expert.adapter);
  reader.Read("context_tokens", 0, 1 << 24, expert.context_tokens);
  reader.Read("pinned", expert.pinned);
  if (reader.Has("keep_alive")) {
    reader.ReadTime("keep_alive", /*may_be_forever=*/true, expert.keep_alive.emplace());
  }
  ReadSampling(reader, expert.sampling);
  const toml::table* domains = reader.Table("domains");
  COTERIE_RETURN_IF_ERROR(reader.status());
  const bool is_path =
      absl::StrContains(expert.model, "/") || absl::EndsWith(expert.model, ".gguf");
  if (is_path) expert.model = ResolvePath(expert.model, folder);
  if (domains == nullptr) return absl::OkStatus();
  return ReadDomains(*domains, absl::StrCat("[[expert]] ", expert.name), file, own_router,
                     expert.domains);
}

absl::Status ReadExperts(const toml::array& tables, absl::string_view file, const fs::path& folder,
                         Configuration& configuration) {
  const bool own_router = !configuration.router_path.empty();
  for (const toml::node& node : tables) {
    ExpertConfiguration expert;
    COTERIE_RETURN_IF_ERROR(ReadExpert(*node.as_table(), file, folder, own_router, expert));
    for (const ExpertConfiguration& other : configuration.experts) {
      if (other.name != expert.name) continue;
      return absl::InvalidArgumentError(
          absl::StrCat(file, ":", expert.line, ": [[expert]] name: \"", expert.name,
                       "\" is already the expert of line ", other.line));
    }
    configuration.experts.push_back(std::move(expert));
  }
  return absl::OkStatus();
}

absl::Status ReadAll(const toml::table& root, absl::string_view file, const fs::path& folder,
                     Configuration& configuration) {
  TableReader reader(root, "", file);
  reader.AllowOnly({"memory_budget", "threads", "home", "lookup", "router", "server", "cache",
                    "queue", "learning", "expert"});
  reader.ReadBytes("memory_budget", configuration.memory_budget_bytes);
  reader.Read("threads", 1, kMaxThreads, configuration.threads);
  reader.Read("home", configuration.home);
  if (reader.Has("home")) configuration.home = ResolvePath(configuration.home, folder);
  reader.Read("lookup", configuration.lookup);
  const toml::table* router = reader.Table("router");
  const toml::table* server = reader.Table("server");
  const toml::table* cache = reader.Table("cache");
  const toml::table* queue = reader.Table("queue");
  const toml::table* learning = reader.Table("learning");
  const toml::array* experts = reader.TableArray("expert");
  COTERIE_RETURN_IF_ERROR(reader.status());
  if (router != nullptr) {
    COTERIE_RETURN_IF_ERROR(ReadRouter(*router, file, folder, configuration));
  }
  if (server != nullptr) COTERIE_RETURN_IF_ERROR(ReadServer(*server, file, configuration.server));
  if (cache != nullptr) {
    COTERIE_RETURN_IF_ERROR(ReadCache(*cache, file, folder, configuration.cache));
  }
  if (queue != nullptr) {
    COTERIE_RETURN_IF_ERROR(ReadQueue(*queue, file, configuration.queue, configuration.batch));
  }
  if (learning != nullptr) {
    COTERIE_RETURN_IF_ERROR(ReadLearning(*learning, file, folder, configuration.learning));
  }
  if (experts == nullptr) return absl::OkStatus();
  return ReadExperts(*experts, file, folder, configuration);
}

}  // namespace

absl::StatusOr<Configuration> Configuration::Default() {
  Configuration configuration;
  COTERIE_ASSIGN_OR_RETURN(const int64_t free_bytes, FreeMemoryBytes());
  configuration.memory_budget_bytes = free_bytes / 2;
  configuration.threads =
      std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kMaxThreads);
  configuration.home = DefaultStore();
  if (const char* path = std::getenv("COTERIE_INTERACTIONS"); path != nullptr && *path != '\0') {
    configuration.learning.log_path = ResolvePath(path, fs::path());
  }
  return configuration;
}

absl::StatusOr<Configuration> Configuration::Load(absl::string_view path) {
  const absl::StatusOr<std::string> text = ReadSmallFile(path, kMaxFileBytes);
  if (absl::IsNotFound(text.status())) {
    return absl::NotFoundError(absl::StrCat("the configuration file does not exist: ", path));
  }
  if (!text.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the configuration cannot be read: ", text.status().message()));
  }
  return Parse(*text, path);
}

absl::StatusOr<Configuration> Configuration::Parse(absl::string_view text, absl::string_view name) {
  if (text.size() > kMaxFileBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the configuration is too long: ", name,
                                                   ", allowed=", FormatBytes(kMaxFileBytes)));
  }
  if (const int line = LineOfDeepKey(text); line > 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ":", line, ": a key has more than ", kMaxKeyParts, " parts"));
  }
  COTERIE_ASSIGN_OR_RETURN(Configuration configuration, Default());
  configuration.source = std::string(name);
  const fs::path folder = fs::path(configuration.source).parent_path();
  const absl::Status status = GuardExceptions([&]() -> absl::Status {
    const toml::parse_result result =
        toml::parse(std::string_view(text.data(), text.size()), configuration.source);
    if (result) return ReadAll(result.table(), name, folder, configuration);
    return absl::InvalidArgumentError(
        absl::StrCat(name, ":", result.error().source().begin.line,
                     ": not TOML: ", ViewOf(result.error().description())));
  });
  if (!status.ok()) return absl::Status(status.code(), ShortMessage(status.message()));
  return configuration;
}

}  // namespace coterie
