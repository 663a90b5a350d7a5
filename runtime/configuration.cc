#include "runtime/configuration.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <limits>
#include <sstream>
#include <system_error>
#include <thread>
#include <utility>

// Parsing returns its errors, which know line and column.
#define TOML_EXCEPTIONS 0
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "toml++/toml.h"

#include "core/base/byte_size.h"
#include "core/base/exception_guard.h"
#include "core/base/status_macros.h"
#include "runtime/free_memory.h"

namespace coterie {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxFileBytes = 1 << 20;
constexpr int kMaxThreads = 1024;

// Number of single-character changes between two words (Levenshtein 1966).
size_t EditDistance(absl::string_view a, absl::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

absl::string_view Nearest(absl::string_view word, absl::Span<const absl::string_view> known) {
  return *std::min_element(known.begin(), known.end(), [&](auto a, auto b) {
    return EditDistance(word, a) < EditDistance(word, b);
  });
}

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

// Reads one table key by key. The first error stays in status(); reads after it do nothing. A key
// that is absent leaves its target as it is.
class TableReader {
 public:
  TableReader(const toml::table& table, std::string section, absl::string_view file)
      : table_(table), section_(std::move(section)), file_(file) {}

  const absl::Status& status() const { return status_; }

  bool Has(absl::string_view key) const { return Node(key) != nullptr; }

  void Read(absl::string_view key, std::string& value) {
    Take(key, "a string", [&](const toml::node& node) { return Assign<std::string>(node, value); });
  }

  void Read(absl::string_view key, bool& value) {
    Take(key, "true or false", [&](const toml::node& node) { return Assign<bool>(node, value); });
  }

  void Read(absl::string_view key, int64_t low, int64_t high, int64_t& value) {
    Take(key, absl::StrCat("an integer from ", low, " to ", high), [&](const toml::node& node) {
      int64_t read = 0;
      if (!Assign<int64_t>(node, read) || read < low || read > high) return false;
      value = read;
      return true;
    });
  }

  void Read(absl::string_view key, int low, int high, int& value) {
    int64_t wide = value;
    Read(key, int64_t{low}, int64_t{high}, wide);
    value = static_cast<int>(wide);
  }

  // An integer where a number is asked for is a number.
  void Read(absl::string_view key, double low, double high, double& value) {
    Take(key, absl::StrCat("a number from ", low, " to ", high), [&](const toml::node& node) {
      double read = 0;
      int64_t integer = 0;
      if (Assign<int64_t>(node, integer)) {
        read = static_cast<double>(integer);
      } else if (!Assign<double>(node, read)) {
        return false;
      }
      if (!(read >= low && read <= high)) return false;
      value = read;
      return true;
    });
  }

  void Read(absl::string_view key, float low, float high, float& value) {
    double wide = value;
    Read(key, double{low}, double{high}, wide);
    value = static_cast<float>(wide);
  }

  void ReadBytes(absl::string_view key, int64_t& value) {
    Take(key, "a size above 0 such as \"2GiB\", \"500MB\" or 1500000000",
         [&](const toml::node& node) {
           int64_t read = 0;
           std::string text;
           if (Assign<std::string>(node, text))
             read = ParseByteSize(text).value_or(0);
           else if (!Assign<int64_t>(node, read))
             return false;
           if (read > 0) value = read;
           return read > 0;
         });
  }

  const toml::table* Table(absl::string_view key) {
    const toml::table* table = nullptr;
    Take(key, absl::StrCat("a table, [", key, "]"), [&](const toml::node& node) {
      table = node.as_table();
      return table != nullptr;
    });
    return table;
  }

  const toml::array* TableArray(absl::string_view key) {
    const toml::array* array = nullptr;
    Take(key, absl::StrCat("tables, each under [[", key, "]]"), [&](const toml::node& node) {
      array = node.as_array();
      return array != nullptr && (array->empty() || array->is_homogeneous(toml::node_type::table));
    });
    return array;
  }

  // Every key but these is an error.
  void AllowOnly(absl::Span<const absl::string_view> known) {
    for (auto&& [key, node] : table_) {
      const absl::string_view name = View(key.str());
      if (std::find(known.begin(), known.end(), name) != known.end()) continue;
      Fail(name, key.source().begin.line,
           absl::StrCat("unknown key; did you mean \"", Nearest(name, known),
                        "\"? Known are: ", absl::StrJoin(known, ", ")));
    }
  }

  void Fail(absl::string_view key, int64_t line, absl::string_view what) {
    if (!status_.ok()) return;
    const std::string section = section_.empty() ? "" : absl::StrCat(section_, " ");
    status_ =
        absl::InvalidArgumentError(absl::StrCat(file_, ":", line, ": ", section, key, ": ", what));
  }

  int64_t LineOf(absl::string_view key) const {
    const toml::node* node = Node(key);
    return (node != nullptr ? *node : table_).source().begin.line;
  }

 private:
  const toml::node* Node(absl::string_view key) const {
    return table_.get(std::string_view(key.data(), key.size()));
  }

  template <typename T>
  static bool Assign(const toml::node& node, T& value) {
    const std::optional<T> read = node.value_exact<T>();
    if (read.has_value()) value = *read;
    return read.has_value();
  }

  template <typename Accept>
  void Take(absl::string_view key, absl::string_view wanted, Accept accept) {
    const toml::node* node = Node(key);
    if (node == nullptr || !status_.ok() || accept(*node)) return;
    std::ostringstream found;
    if (node->is_table() || node->is_array())
      found << (node->is_table() ? "a table" : "an array");
    else
      node->visit([&](const auto& value) { found << value; });
    Fail(key, node->source().begin.line,
         absl::StrCat("expected ", wanted, ", found ", found.str().substr(0, 80)));
  }

  const toml::table& table_;
  const std::string section_;
  const absl::string_view file_;
  absl::Status status_;
};

std::string HomeFolder() {
  const char* home = std::getenv("HOME");
  return home != nullptr ? home : "";
}

// Absolute form of a path that a person wrote in a file of `folder`.
std::string Resolve(absl::string_view path, const fs::path& folder) {
  if (path == "~" || absl::StartsWith(path, "~/")) {
    return absl::StrCat(HomeFolder(), path.substr(1));
  }
  return fs::absolute(folder / std::string(path)).lexically_normal().string();
}

std::string DefaultStore() {
  const char* home = std::getenv("COTERIE_HOME");
  if (home != nullptr && *home != '\0') return Resolve(home, fs::path());
  return HomeFolder() + "/.cache/coterie";
}

absl::Status ReadRouter(const toml::table& table, absl::string_view file, const fs::path& folder,
                        Configuration& configuration) {
  TableReader reader(table, "[router]", file);
  reader.AllowOnly({"path", "residency_bonus", "sticky_bonus", "abstain_below"});
  reader.Read("path", configuration.router_path);
  reader.Read("residency_bonus", 0.0, 1.0, configuration.dispatch.residency_bonus);
  reader.Read("sticky_bonus", 0.0, 1.0, configuration.dispatch.sticky_bonus);
  if (reader.Has("abstain_below")) {
    configuration.abstain_below = 0;
    reader.Read("abstain_below", 0.0, 1.0, *configuration.abstain_below);
  }
  if (configuration.router_path.empty()) return reader.status();
  configuration.router_path = Resolve(configuration.router_path, folder);
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
    reader.Read(View(key.str()), 0.0, 1.0, quality);
    domains[std::string(key.str())] = quality;
  }
  return reader.status();
}

absl::Status ReadExpert(const toml::table& table, absl::string_view file, const fs::path& folder,
                        bool own_router, ExpertConfiguration& expert) {
  TableReader reader(table, "[[expert]]", file);
  std::vector<absl::string_view> known = {"name",    "model",          "system_prompt",
                                          "adapter", "context_tokens", "chat_template",
                                          "pinned",  "domains"};
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
  ReadSampling(reader, expert.sampling);
  const toml::table* domains = reader.Table("domains");
  COTERIE_RETURN_IF_ERROR(reader.status());
  const bool is_path =
      absl::StrContains(expert.model, "/") || absl::EndsWith(expert.model, ".gguf");
  if (is_path) expert.model = Resolve(expert.model, folder);
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
  reader.AllowOnly({"memory_budget", "threads", "home", "router", "server", "expert"});
  reader.ReadBytes("memory_budget", configuration.memory_budget_bytes);
  reader.Read("threads", 1, kMaxThreads, configuration.threads);
  reader.Read("home", configuration.home);
  if (reader.Has("home")) configuration.home = Resolve(configuration.home, folder);
  const toml::table* router = reader.Table("router");
  const toml::table* server = reader.Table("server");
  const toml::array* experts = reader.TableArray("expert");
  COTERIE_RETURN_IF_ERROR(reader.status());
  if (router != nullptr) {
    COTERIE_RETURN_IF_ERROR(ReadRouter(*router, file, folder, configuration));
  }
  if (server != nullptr) COTERIE_RETURN_IF_ERROR(ReadServer(*server, file, configuration.server));
  if (experts == nullptr) return absl::OkStatus();
  return ReadExperts(*experts, file, folder, configuration);
}

// The expert of one [[expert]] table.
absl::StatusOr<ExpertSpec> BuildSpec(const ExpertConfiguration& expert,
                                     const ExpertCatalog& store) {
  ExpertSpec spec;
  if (absl::StartsWith(expert.model, "/")) {
    COTERIE_ASSIGN_OR_RETURN(spec, DescribeModelFile(expert.name, expert.model, ""));
    // A file's own name says more about what it is than the name a person gave the expert.
    spec.quality = DefaultQuality(fs::path(expert.model).filename().string(), spec.bytes);
  } else {
    COTERIE_ASSIGN_OR_RETURN(const ExpertSpec* model, store.Find(expert.model));
    spec = *model;
  }
  spec.name = expert.name;
  spec.adapter = expert.adapter;
  spec.system_prompt = expert.system_prompt;
  spec.chat_template = expert.chat_template;
  spec.sampling = expert.sampling;
  spec.context_tokens = expert.context_tokens;
  spec.pinned = expert.pinned;
  for (const auto& [domain, quality] : expert.domains) spec.quality[domain] = quality;
  return spec;
}

}  // namespace

absl::StatusOr<Configuration> Configuration::Default() {
  Configuration configuration;
  COTERIE_ASSIGN_OR_RETURN(const int64_t free_bytes, FreeMemoryBytes());
  configuration.memory_budget_bytes = free_bytes / 2;
  configuration.threads =
      std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kMaxThreads);
  configuration.home = DefaultStore();
  return configuration;
}

absl::StatusOr<Configuration> Configuration::Load(absl::string_view path) {
  const std::string name(path);
  std::error_code error;
  if (!fs::exists(name, error)) {
    return absl::NotFoundError(absl::StrCat("the configuration file does not exist: ", name));
  }
  std::ifstream stream(name, std::ios::binary);
  std::string text(kMaxFileBytes + 1, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (fs::is_directory(name, error) || stream.bad() || !stream.is_open()) {
    return absl::InvalidArgumentError(absl::StrCat("the configuration cannot be read: ", name));
  }
  text.resize(static_cast<size_t>(stream.gcount()));
  return Parse(text, name);
}

absl::StatusOr<Configuration> Configuration::Parse(absl::string_view text, absl::string_view name) {
  if (text.size() > kMaxFileBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the configuration is too long: ", name,
                                                   ", allowed=", FormatBytes(kMaxFileBytes)));
  }
  COTERIE_ASSIGN_OR_RETURN(Configuration configuration, Default());
  configuration.source = std::string(name);
  const fs::path folder = fs::path(configuration.source).parent_path();
  COTERIE_RETURN_IF_ERROR(GuardExceptions([&]() -> absl::Status {
    const toml::parse_result result =
        toml::parse(std::string_view(text.data(), text.size()), configuration.source);
    if (result) return ReadAll(result.table(), name, folder, configuration);
    return absl::InvalidArgumentError(
        absl::StrCat(name, ":", result.error().source().begin.line,
                     ": not TOML: ", View(result.error().description())));
  }));
  return configuration;
}

absl::StatusOr<ExpertCatalog> Configuration::Catalog() const {
  COTERIE_ASSIGN_OR_RETURN(ExpertCatalog store, ExpertCatalog::FromStore(home));
  if (experts.empty()) return store;
  std::vector<ExpertSpec> specs;
  for (const ExpertConfiguration& expert : experts) {
    absl::StatusOr<ExpertSpec> spec = BuildSpec(expert, store);
    if (!spec.ok()) {
      return absl::Status(spec.status().code(),
                          absl::StrCat(source, ":", expert.line, ": [[expert]] ", expert.name, ": ",
                                       spec.status().message()));
    }
    specs.push_back(*std::move(spec));
  }
  return ExpertCatalog::FromSpecs(std::move(specs), store.problems());
}

}  // namespace coterie
