#include "runtime/configuration.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/status_matchers.h"

namespace coterie {
namespace {

namespace fs = std::filesystem;
using ::coterie::testing::IsOk;
using ::coterie::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

Configuration Parsed(absl::string_view text, absl::string_view name = "/etc/coterie.toml") {
  absl::StatusOr<Configuration> configuration = Configuration::Parse(text, name);
  EXPECT_THAT(configuration, IsOk()) << text;
  return configuration.ok() ? *std::move(configuration) : Configuration();
}

// Expects one error that begins "c.toml:<place>" and has these words.
void ExpectError(const std::string& text, const std::string& place, const std::string& words) {
  EXPECT_THAT(Configuration::Parse(text, "c.toml"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(StartsWith("c.toml:" + place), HasSubstr(words))))
      << text;
}

TEST(ConfigurationTest, AnEmptyFileMeansTheDefaults) {
  const Configuration parsed = Parsed("");
  COTERIE_ASSERT_OK_AND_ASSIGN(const Configuration standard, Configuration::Default());
  EXPECT_GT(standard.memory_budget_bytes, 0);
  EXPECT_GE(standard.threads, 1);
  EXPECT_EQ(parsed.threads, standard.threads);
  EXPECT_TRUE(parsed.lookup);
  EXPECT_EQ(parsed.home, standard.home);
  EXPECT_TRUE(parsed.experts.empty());
  EXPECT_EQ(parsed.server.host, "127.0.0.1");
  EXPECT_FALSE(parsed.abstain_below.has_value());
}

TEST(ConfigurationTest, WhatIsKeptAndLearnedIsConfigured) {
  const Configuration c = Parsed(R"(
    [learning]
    log = false
    log_path = "mine.db"
    log_bytes = "8MB"
    key_file = "~/log.key"
    retrieval = true
    retrieval_tokens = 300
    replay = "novel.txt"
    train_when_idle = true
    idle_minutes = 1.5
    least_feedback = 7
    only_on_ac = false
  )");
  EXPECT_FALSE(c.learning.log);
  EXPECT_EQ(c.learning.log_path, "/etc/mine.db");
  EXPECT_EQ(c.learning.log_bytes, 8'000'000);
  EXPECT_EQ(c.learning.key_file, std::string(std::getenv("HOME")) + "/log.key");
  EXPECT_TRUE(c.learning.retrieval);
  EXPECT_EQ(c.learning.retrieval_tokens, 300);
  EXPECT_EQ(c.learning.replay, "/etc/novel.txt");
  EXPECT_TRUE(c.learning.idle.enabled);
  EXPECT_EQ(c.learning.idle.idle, absl::Seconds(90));
  EXPECT_EQ(c.learning.idle.least_feedback, 7);
  EXPECT_FALSE(c.learning.idle.only_on_ac);
  EXPECT_FALSE(Parsed("").learning.idle.enabled);
  ExpectError("[learning]\nleast_feedback = 0", "2: [learning] least_feedback", "from 1 to");
  ExpectError("[learning]\nlog_bytes = \"10kB\"", "2: [learning] log_bytes", "1.00 MB or more");
  ExpectError("[learning]\nretrieval_token = 3", "2: [learning] retrieval_token",
              "retrieval_tokens");
  setenv("COTERIE_INTERACTIONS", "/elsewhere/log.db", 1);
  EXPECT_EQ(Parsed("").learning.log_path, "/elsewhere/log.db");
  unsetenv("COTERIE_INTERACTIONS");
  EXPECT_EQ(Parsed("").learning.log_path, "");
}

TEST(ConfigurationTest, TheUseOfMemoryIsConfigured) {
  const Configuration c = Parsed(R"(
    [cache]
    keep_alive = "1h30m"
    policy = "lru"
    prefetch = true
    pressure = false
    prefix_share = 0.25
    prefix_disk = "1GB"
    head_screens = false
    request_log = "log/requests.jsonl"
    [queue]
    max_waiting = 3
    max_running = 2
    max_batch = 5
    batch_wait = "500ms"
    [[expert]]
    name = "a"
    model = "m"
    keep_alive = -1
    [[expert]]
    name = "b"
    model = "m"
    keep_alive = 90
    [[expert]]
    name = "c"
    model = "m"
  )");
  EXPECT_EQ(c.cache.keep_alive, absl::Minutes(90));
  EXPECT_EQ(c.cache.policy, LeavingPolicy::kLru);
  EXPECT_EQ(Parsed("[cache]\npolicy = \"coterie\"").cache.policy, LeavingPolicy::kCoterie);
  EXPECT_TRUE(c.cache.prefetch);
  EXPECT_FALSE(c.cache.pressure);
  EXPECT_EQ(c.cache.prefix_share, 0.25);
  EXPECT_EQ(c.cache.prefix_disk_bytes, 1'000'000'000);
  EXPECT_FALSE(c.cache.head_screens);
  EXPECT_EQ(c.cache.request_log, "/etc/log/requests.jsonl");
  EXPECT_EQ(c.queue.max_waiting, 3);
  EXPECT_EQ(c.queue.max_running, 2);
  EXPECT_EQ(c.batch.max_sequences, 5);
  EXPECT_EQ(c.queue.max_batch_wait, absl::Milliseconds(500));
  ASSERT_EQ(c.experts.size(), 3u);
  EXPECT_EQ(c.experts[0].keep_alive, absl::InfiniteDuration());
  EXPECT_EQ(c.experts[1].keep_alive, absl::Seconds(90));
  EXPECT_FALSE(c.experts[2].keep_alive.has_value());
  EXPECT_EQ(Parsed("[cache]\nkeep_alive = \"forever\"").cache.keep_alive, absl::InfiniteDuration());
}

TEST(ConfigurationTest, ErrorsInTheUseOfMemoryNameTheKeyAndWhatIsAllowed) {
  ExpectError("[cache]\nkeep_alive = \"soon\"", "2: [cache] keep_alive", "\"forever\"");
  ExpectError("[cache]\nkeep_alive = -2", "2: [cache] keep_alive", "a time such as");
  ExpectError("[cache]\nkeep_alive = \"-5s\"", "2: [cache] keep_alive", "a time such as");
  ExpectError("[cache]\nkeep_alive = true", "2: [cache] keep_alive", "a time such as");
  ExpectError("[cache]\npolicy = \"fifo\"", "2: [cache] policy", "\"coterie\" or \"lru\"");
  ExpectError("[cache]\nprefetch = 1", "2: [cache] prefetch", "true or false");
  ExpectError("[cache]\nprefix_share = 1.5", "2: [cache] prefix_share", "a number from 0 to 1");
  ExpectError("[cache]\npresure = true", "2: [cache] presure", "did you mean \"pressure\"");
  ExpectError("[queue]\nmax_waiting = -1", "2: [queue] max_waiting", "an integer from 0");
  ExpectError("[queue]\nmax_running = 0", "2: [queue] max_running", "an integer from 1");
  ExpectError("[queue]\nmax_batch = 0", "2: [queue] max_batch", "an integer from 1");
  ExpectError("[queue]\nbatch_wait = \"forever\"", "2: [queue] batch_wait", "a time such as");
  ExpectError("[[expert]]\nname = \"a\"\nmodel = \"m\"\nkeep_alive = []",
              "4: [[expert]] keep_alive", "a time such as");
}

TEST(ConfigurationTest, EveryKeyIsRead) {
  const Configuration c = Parsed(R"(
    memory_budget = "2GiB"
    threads = 3
    lookup = false
    home = "store"
    [router]
    path = "/r/router.json"
    residency_bonus = 0.3
    sticky_bonus = 0
    second_price = 0.002
    abstain_below = 0.4
    [server]
    host = "::1"
    port = 9000
    api_key = "secret"
    [[expert]]
    name = "home"
    model = "models/home.gguf"
    system_prompt = "You control a house."
    chat_template = "chatml"
    adapter = "lights"
    context_tokens = 2048
    pinned = true
    domains = {code = 0.7, house = 1}
    temperature = 0
    top_k = 10
    top_p = 0.5
    min_p = 0.1
    repetition_penalty = 1.5
    repetition_window = 32
    seed = 7
    [[expert]]
    name = "chat"
    model = "smollm2-135m"
  )");
  EXPECT_EQ(c.memory_budget_bytes, int64_t{2} << 30);
  EXPECT_EQ(c.threads, 3);
  EXPECT_FALSE(c.lookup);
  EXPECT_EQ(c.home, "/etc/store");
  EXPECT_EQ(c.router_path, "/r/router.json");
  EXPECT_EQ(c.dispatch.residency_bonus, 0.3);
  EXPECT_EQ(c.dispatch.sticky_bonus, 0);
  EXPECT_EQ(c.dispatch.second_price, 0.002);
  EXPECT_EQ(c.abstain_below, 0.4);
  EXPECT_EQ(c.server.host, "::1");
  EXPECT_EQ(c.server.port, 9000);
  EXPECT_EQ(c.server.api_key, "secret");
  ASSERT_EQ(c.experts.size(), 2u);
  const ExpertConfiguration& home = c.experts[0];
  EXPECT_EQ(home.name, "home");
  EXPECT_EQ(home.model, "/etc/models/home.gguf");
  EXPECT_EQ(home.system_prompt, "You control a house.");
  EXPECT_EQ(home.chat_template, "chatml");
  EXPECT_EQ(home.adapter, "lights");
  EXPECT_EQ(home.context_tokens, 2048);
  EXPECT_TRUE(home.pinned);
  EXPECT_EQ(home.domains, (std::map<std::string, double>{{"code", 0.7}, {"house", 1.0}}));
  ASSERT_TRUE(home.sampling.has_value());
  EXPECT_EQ(home.sampling->temperature, 0);
  EXPECT_EQ(home.sampling->top_k, 10);
  EXPECT_EQ(home.sampling->top_p, 0.5f);
  EXPECT_EQ(home.sampling->min_p, 0.1f);
  EXPECT_EQ(home.sampling->repetition_penalty, 1.5f);
  EXPECT_EQ(home.sampling->repetition_window, 32);
  EXPECT_EQ(home.sampling->seed, 7u);
  EXPECT_EQ(c.experts[1].model, "smollm2-135m");
  EXPECT_FALSE(c.experts[1].sampling.has_value());
}

TEST(ConfigurationTest, BudgetsAreSizesOrIntegers) {
  EXPECT_EQ(Parsed("memory_budget = 500000000").memory_budget_bytes, 500'000'000);
  EXPECT_EQ(Parsed("memory_budget = \"500MB\"").memory_budget_bytes, 500'000'000);
  for (const char* value : {"\"2G\"", "0", "-1", "1.5", "true", "\"\"", "[]"}) {
    ExpectError(absl::StrCat("\nmemory_budget = ", value), "2: memory_budget: ", "\"2GiB\"");
  }
}

TEST(ConfigurationTest, AnUnknownKeyComesWithTheNearestKnownOne) {
  ExpectError("memory_budgte = 1", "1: memory_budgte: ", "did you mean \"memory_budget\"?");
  ExpectError("[router]\nresidency = 1", "2: [router] residency: ", "residency_bonus");
  ExpectError("[server]\n\nprot = 1", "3: [server] prot: ", "did you mean \"port\"?");
  ExpectError("[[expert]]\nname = \"a\"\nmodel = \"b\"\ntemprature = 1",
              "4: [[expert]] temprature: ", "did you mean \"temperature\"?");
  ExpectError("[experts]\n", "1: experts: ", "did you mean \"expert\"?");
}

TEST(ConfigurationTest, AWrongValueComesWithWhatIsAllowed) {
  ExpectError("threads = 0", "1: threads: ", "an integer from 1 to 1024, found 0");
  ExpectError("threads = \"two\"", "1: threads: ", "found 'two'");
  ExpectError("threads = 2.0", "1: threads: ", "an integer");
  ExpectError("home = 3", "1: home: ", "a string");
  ExpectError("router = 3", "1: router: ", "[router]");
  ExpectError("expert = 3", "1: expert: ", "[[expert]]");
  ExpectError("[expert]\nname = \"a\"", "1: expert: ", "[[expert]]");
  ExpectError("[router]\nresidency_bonus = 1.5", "2: [router] residency_bonus: ", "from 0 to 1");
  ExpectError("[router]\nabstain_below = nan", "2: [router] abstain_below: ", "found nan");
  ExpectError("[server]\nport = 70000", "2: [server] port: ", "from 0 to 65535, found 70000");
  ExpectError("[server]\nhost = \"\"", "2: [server] host: ", "address");
  const std::string expert = "[[expert]]\nname = \"a\"\nmodel = \"b\"\n";
  ExpectError(expert + "pinned = 1", "4: [[expert]] pinned: ", "true or false");
  ExpectError(expert + "top_p = 0", "4: [[expert]] top_p: ", "found 0");
  ExpectError(expert + "seed = -1", "4: [[expert]] seed: ", "found -1");
  ExpectError(expert + "domains = {code = 2}", "4: [[expert]] a domains code: ", "from 0 to 1");
}

TEST(ConfigurationTest, AnExpertNeedsANameOfItsOwnAndAModel) {
  ExpectError("\n[[expert]]\nmodel = \"b\"", "2: [[expert]] name: ", "needs one");
  ExpectError("\n[[expert]]\nname = \"b\"", "2: [[expert]] model: ", "needs one");
  const std::string expert = "[[expert]]\nname = \"a\"\nmodel = \"b\"\n";
  ExpectError(expert + expert, "4: [[expert]] name: ", "already the expert of line 1");
}

TEST(ConfigurationTest, DomainsOfTheShippedRouterAreKnownByName) {
  const std::string expert = "[[expert]]\nname = \"a\"\nmodel = \"b\"\ndomains = {maths = 0.5}\n";
  ExpectError(expert, "4: [[expert]] a domains maths: ", "did you mean \"math\"?");
  EXPECT_THAT(Parsed("[router]\npath = \"own.json\"\n" + expert).experts[0].domains.at("maths"),
              0.5);
}

TEST(ConfigurationTest, WhatIsNotTomlIsRefusedWithItsLine) {
  ExpectError("threads = 1\nthreads = ", "2: not TOML: ", "");
  ExpectError("threads = 1\nthreads = 2", "2: not TOML: ", "threads");
  ExpectError("a = \"\xFF\"", "1: not TOML: ", "");
  ExpectError("\n\n" + std::string(100000, '['), "3: not TOML: ", "");
  ExpectError("[=", "1: not TOML: ", "");
  ExpectError("[a.[", "1: not TOML: ", "");
  ExpectError("thr\u00C0eads = 1", "1: not TOML: ", "");
}

TEST(ConfigurationTest, PathsMayBeginWithTheHomeFolder) {
  setenv("HOME", "/home/somebody", 1);
  unsetenv("COTERIE_HOME");
  EXPECT_EQ(Parsed("home = \"~/models\"").home, "/home/somebody/models");
  EXPECT_EQ(Parsed("").home, "/home/somebody/.cache/coterie");
  setenv("COTERIE_HOME", "/store", 1);
  EXPECT_EQ(Parsed("").home, "/store");
  EXPECT_EQ(Parsed("home = \"~\"").home, "/home/somebody");
  unsetenv("COTERIE_HOME");
}

TEST(ConfigurationTest, AFileThatIsNotThereIsNotFound) {
  EXPECT_THAT(Configuration::Load("/no/such/coterie.toml"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/such/coterie.toml")));
  EXPECT_EQ(Configuration::Load("/").status().code(), absl::StatusCode::kInvalidArgument);
}

// A configuration file beside a store with one model.
class ConfigurationCatalogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "coterie_configuration_XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    fs::create_directories(folder_ / "store/models");
    Write("store/tiny.gguf", "GGUF....");
    Write("store/models/tiny.json", R"({"name": "tiny", "path": "tiny.gguf"})");
    Write("store/models/wrong.json", "?");
  }
  void TearDown() override { fs::remove_all(folder_); }

  void Write(const std::string& path, const std::string& text) {
    std::ofstream(folder_ / path) << text;
  }
  void Measure(const std::string& text) { Write("store/measurements.json", text); }
  absl::StatusOr<ExpertCatalog> Catalog(const std::string& text) {
    Write("coterie.toml", "home = \"store\"\n" + text);
    const absl::StatusOr<Configuration> configuration =
        Configuration::Load((folder_ / "coterie.toml").string());
    EXPECT_THAT(configuration, IsOk());
    if (!configuration.ok()) return configuration.status();
    return configuration->Catalog();
  }

  fs::path folder_;
};

TEST_F(ConfigurationCatalogTest, WithoutExpertsTheStoreIsTheCatalogue) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const ExpertCatalog catalog, Catalog(""));
  ASSERT_EQ(catalog.experts().size(), 1u);
  EXPECT_EQ(catalog.experts()[0].name, "tiny");
  EXPECT_EQ(catalog.problems().size(), 1u);
}

TEST_F(ConfigurationCatalogTest, ExpertsOfOneModelShareItsBase) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const ExpertCatalog catalog, Catalog(R"(
    [[expert]]
    name = "a"
    model = "tiny"
    domains = {code = 0.9}
    system_prompt = "Be brief."
    [[expert]]
    name = "b"
    model = "store/tiny.gguf"
    pinned = true
  )"));
  COTERIE_ASSERT_OK_AND_ASSIGN(const ExpertSpec* a, catalog.Find("a"));
  COTERIE_ASSERT_OK_AND_ASSIGN(const ExpertSpec* b, catalog.Find("b"));
  EXPECT_EQ(a->base_id, b->base_id);
  EXPECT_EQ(a->worth.quality.at("code"), 0.9);
  EXPECT_EQ(a->worth.quality.at("math"), b->worth.quality.at("math"));
  EXPECT_EQ(a->system_prompt, "Be brief.");
  EXPECT_TRUE(b->pinned);
  EXPECT_EQ(catalog.problems().size(), 1u);
}

TEST_F(ConfigurationCatalogTest, MeasurementsReplacePriorsAndTheFileReplacesMeasurements) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const ExpertCatalog before, Catalog(""));
  Measure(absl::StrCat(R"({"version": 1, "experts": [{"base": ")", before.experts()[0].base_id,
                       R"(", "domains": {"code": {"quality": 0.25, "answer_seconds": 9}}}]})"));
  COTERIE_ASSERT_OK_AND_ASSIGN(const ExpertCatalog store, Catalog(""));
  EXPECT_EQ(store.experts()[0].worth.quality.at("code"), 0.25);
  EXPECT_EQ(store.experts()[0].worth.answer_seconds.at("code"), 9);
  COTERIE_ASSERT_OK_AND_ASSIGN(const ExpertCatalog said, Catalog(R"(
    [[expert]]
    name = "a"
    model = "tiny"
    domains = {code = 0.9}
  )"));
  EXPECT_EQ(said.experts()[0].worth.quality.at("code"), 0.9);
  EXPECT_EQ(said.experts()[0].worth.answer_seconds.at("code"), 9);
}

TEST_F(ConfigurationCatalogTest, BrokenMeasurementsAreAProblemAndPriorsServe) {
  Measure("{}");
  COTERIE_ASSERT_OK_AND_ASSIGN(const ExpertCatalog catalog, Catalog(""));
  EXPECT_EQ(catalog.experts().size(), 1u);
  EXPECT_THAT(catalog.problems().back(), HasSubstr("measurements.json"));
}

TEST_F(ConfigurationCatalogTest, AMissingModelIsNamedWithItsPlaceInTheFile) {
  EXPECT_THAT(Catalog("\n[[expert]]\nname = \"a\"\nmodel = \"huge\"\n"),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("coterie.toml:3: [[expert]] a: "), HasSubstr("tiny"))));
  EXPECT_THAT(Catalog("\n[[expert]]\nname = \"a\"\nmodel = \"./huge.gguf\"\n"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("huge.gguf")));
}

TEST(ConfigurationTest, ProseWithManyDotsIsNoDeepKey) {
  std::string prose;
  for (int i = 0; i < 200; ++i) prose += "One more sentence. And so on... ";
  EXPECT_TRUE(Configuration::Parse(
                  "[[expert]]\nname = \"a\"\nmodel = \"m\"\nsystem_prompt = \"" + prose + "\"\n",
                  "coterie.toml")
                  .ok());
}

}  // namespace
}  // namespace coterie
