// Versions of adapters on disk: what readers see whatever happens to writers and files.

#include "lora/adapter_store.h"

#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/experts/tiny_adapter.h"
#include "tests/experts/tiny_model.h"
#include "tests/fuzz/scratch_folder.h"
#include "tests/status_matchers.h"

#include <sys/resource.h>
#include <sys/wait.h>

namespace coterie {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::StatusIs;

class AdapterStoreTest : public ::testing::Test {
 protected:
  // Adapters differ by their seed.
  Adapter TinyAdapter(uint32_t seed, const std::string& name = "home") const {
    Adapter adapter;
    adapter.name = name;
    adapter.base.id = "sha256:aa";
    adapter.deltas = testing::TinyDeltas(spec_, seed);
    return adapter;
  }
  int64_t Publish(uint32_t seed, const std::string& name = "home") {
    const auto version =
        store_.Publish(TinyAdapter(seed, name), {{"i1", "i2"}, "{\"rank\":8}", ""});
    EXPECT_THAT(version, testing::IsOk());
    return version.value_or(0);
  }
  // The version in use and that it is whole: version N was made with seed N.
  int64_t WholeCurrent(const std::string& name = "home") {
    const auto stored = store_.Current(name);
    EXPECT_THAT(stored, testing::IsOk());
    if (!stored.ok()) return 0;
    const Adapter expected = TinyAdapter(static_cast<uint32_t>(stored->version), name);
    EXPECT_EQ(stored->adapter.deltas.size(), expected.deltas.size());
    EXPECT_EQ(stored->adapter.deltas[0].a, expected.deltas[0].a);
    EXPECT_EQ(stored->problem, "");
    return stored->version;
  }
  std::string FileOf(int64_t version, const std::string& file) const {
    return store_.FolderOf("home", version) + "/" + file;
  }

  const ArchSpec spec_ = testing::MakeTinyModel("qwen2").spec;
  const testing::ScratchFolder folder_;
  AdapterStore store_{folder_.path("store")};
};

TEST_F(AdapterStoreTest, PublishedVersionsAreReadBackWithTheirLedger) {
  EXPECT_EQ(Publish(1), 1);
  EXPECT_EQ(Publish(2), 2);
  EXPECT_EQ(WholeCurrent(), 2);
  COTERIE_ASSERT_OK_AND_ASSIGN(const StoredAdapter first, store_.Load("home", 1));
  EXPECT_EQ(first.label(), "home@1");
  EXPECT_EQ(first.ledger.interactions, (std::vector<std::string>{"i1", "i2"}));
  EXPECT_EQ(first.ledger.trainer, "{\"rank\":8}");
  EXPECT_EQ(first.adapter.base.id, "sha256:aa");
  EXPECT_EQ(first.adapter.deltas[0].b, TinyAdapter(1).deltas[0].b);
  const auto set = Serve(first.adapter, spec_, first.label());
  COTERIE_ASSERT_OK(set);
  EXPECT_THAT(store_.ServedBytes("home", 1), testing::IsOkAndHolds((*set)->bytes()));
}

TEST_F(AdapterStoreTest, RollbackMakesAnyVersionCurrentAndTheNextOneIsNew) {
  for (uint32_t seed : {1, 2, 3}) Publish(seed);
  COTERIE_ASSERT_OK(store_.Rollback("home", 1));
  EXPECT_EQ(WholeCurrent(), 1);
  EXPECT_THAT(store_.Rollback("home", 7),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("there are: 1, 2, 3")));
  EXPECT_EQ(WholeCurrent(), 1);
  EXPECT_EQ(Publish(4), 4);
}

TEST_F(AdapterStoreTest, VersionsAndAdaptersAreRemoved) {
  for (uint32_t seed : {1, 2}) Publish(seed);
  Publish(1, "work");
  EXPECT_THAT(store_.RemoveVersion("home", 2),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("home@2")));
  COTERIE_ASSERT_OK(store_.RemoveVersion("home", 1));
  EXPECT_THAT(store_.Load("home", 1), StatusIs(absl::StatusCode::kNotFound, HasSubstr("home")));
  COTERIE_ASSERT_OK(store_.Remove("home"));
  EXPECT_THAT(store_.Current("home"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("home")));
  EXPECT_THAT(store_.Remove("home"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("home")));
  COTERIE_ASSERT_OK_AND_ASSIGN(const std::vector<AdapterSummary> left, store_.List());
  ASSERT_EQ(left.size(), 1u);
  EXPECT_EQ(left[0].name, "work");
}

TEST_F(AdapterStoreTest, ListSaysWhatThereIs) {
  EXPECT_THAT(store_.List(), testing::IsOkAndHolds(IsEmpty()));
  for (uint32_t seed : {1, 2}) Publish(seed);
  COTERIE_ASSERT_OK(store_.Rollback("home", 1));
  testing::WriteFile(FileOf(2, "ledger.json"), "{");
  COTERIE_ASSERT_OK_AND_ASSIGN(const std::vector<AdapterSummary> all, store_.List());
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0].current, 1);
  EXPECT_EQ(all[0].base.id, "sha256:aa");
  ASSERT_EQ(all[0].versions.size(), 2u);
  EXPECT_EQ(all[0].versions[0].n_interactions, 2);
  EXPECT_EQ(all[0].versions[0].problem, "");
  EXPECT_THAT(all[0].versions[1].problem, HasSubstr("ledger.json"));
}

TEST_F(AdapterStoreTest, ADamagedVersionGivesWayToTheLastGoodOneAndSaysSo) {
  for (uint32_t seed : {1, 2, 3}) Publish(seed);
  const std::string tensors = FileOf(3, "adapter_model.safetensors");
  std::string bytes = testing::ReadFile(tensors);
  const std::vector<std::string> damages = {bytes.substr(0, bytes.size() / 2), "", [&] {
                                              std::string flipped = bytes;
                                              flipped[flipped.size() - 5] ^= 1;
                                              return flipped;
                                            }()};
  for (const std::string& damage : damages) {
    testing::WriteFile(tensors, damage);
    EXPECT_THAT(store_.Load("home", 3), StatusIs(absl::StatusCode::kDataLoss, HasSubstr(tensors)));
    COTERIE_ASSERT_OK_AND_ASSIGN(const StoredAdapter served, store_.Current("home"));
    EXPECT_EQ(served.version, 2);
    EXPECT_THAT(served.problem, AllOf(HasSubstr("version 2"), HasSubstr(tensors)));
  }
  fs::remove_all(store_.FolderOf("home", 3));
  testing::WriteFile(FileOf(2, "adapter_config.json"), "{}");
  COTERIE_ASSERT_OK_AND_ASSIGN(const StoredAdapter served, store_.Current("home"));
  EXPECT_EQ(served.version, 1);
  testing::WriteFile(FileOf(1, "ledger.json"), "");
  EXPECT_THAT(store_.Current("home"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("3")));
}

TEST_F(AdapterStoreTest, ADamagedCurrentFileServesTheNewestVersionAndSaysSo) {
  for (uint32_t seed : {1, 2}) Publish(seed);
  testing::WriteFile(folder_.path("store/adapters/home/current"), "x\n");
  COTERIE_ASSERT_OK_AND_ASSIGN(const StoredAdapter served, store_.Current("home"));
  EXPECT_EQ(served.version, 2);
  EXPECT_THAT(served.problem, HasSubstr("home/current"));
}

// At every step between two writes, a killed writer leaves the old version or the new one.
TEST_F(AdapterStoreTest, AWriterKilledAtAnyStepHarmsNothing) {
  Publish(1);
  const std::vector<std::string> steps = {"folder made", "files written", "ledger written",
                                          "version in place", "current"};
  int64_t newest = 1;
  for (const std::string& step : steps) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      const AdapterStore::StepHook die = [&](absl::string_view now) {
        if (now == step) ::kill(::getpid(), SIGKILL);
      };
      AdapterStore doomed(folder_.path("store"), die);
      (void)doomed.Publish(TinyAdapter(static_cast<uint32_t>(newest + 1)), {});
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << step;
    const int64_t current = WholeCurrent();
    EXPECT_TRUE(step == "current" ? current > newest : current <= newest) << step;
    // The next writer goes on, and clears away what was left.
    const fs::path folder = folder_.path("store/adapters/home");
    COTERIE_ASSERT_OK_AND_ASSIGN(std::vector<AdapterSummary> all, store_.List());
    newest = all[0].versions.back().version + 1;
    EXPECT_EQ(Publish(static_cast<uint32_t>(newest)), newest) << step;
    EXPECT_EQ(WholeCurrent(), newest);
    for (const auto& entry : fs::directory_iterator(folder)) {
      EXPECT_NE(entry.path().filename().string().front(), '.') << entry.path();
    }
  }
}

// Moments that no step names, too.
TEST_F(AdapterStoreTest, AWriterKilledAtAnyMomentLeavesAWholeVersion) {
  Publish(1);
  for (int kill = 0; kill < 8; ++kill) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      for (;;) {
        const auto next = store_.CurrentVersion("home").value_or(0) + 1;
        if (!store_.Publish(TinyAdapter(static_cast<uint32_t>(next)), {}).ok()) ::_exit(1);
      }
    }
    ::usleep(static_cast<useconds_t>(3000 * kill));
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status));
    const auto stored = store_.Current("home");
    COTERIE_ASSERT_OK(stored.status());
    EXPECT_EQ(stored->problem, "");
    COTERIE_ASSERT_OK(store_.Remove("home"));
    Publish(1);
  }
}

TEST_F(AdapterStoreTest, AFullDiskIsOneErrorAndTheOldVersionStays) {
  Publish(1);
  rlimit before;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small = {10000, before.rlim_max};
  const auto old_handler = ::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto failed = store_.Publish(TinyAdapter(2), {});
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, old_handler);
  EXPECT_THAT(failed, StatusIs(absl::StatusCode::kInternal, HasSubstr("cannot write")));
  EXPECT_EQ(WholeCurrent(), 1);
  EXPECT_EQ(Publish(2), 2);
}

TEST_F(AdapterStoreTest, AStoreThatCannotBeWrittenIsOneErrorAndStaysReadable) {
  Publish(1);
  if (::geteuid() != 0) {
    fs::permissions(folder_.path("store/adapters/home"),
                    fs::perms::owner_read | fs::perms::owner_exec);
    EXPECT_THAT(store_.Publish(TinyAdapter(2), {}),
                StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("home")));
    fs::permissions(folder_.path("store/adapters/home"), fs::perms::owner_all);
  }
  EXPECT_EQ(WholeCurrent(), 1);
  testing::WriteFile(folder_.path("file"), "");
  AdapterStore blocked(folder_.path("file"));
  const auto failed = blocked.Publish(TinyAdapter(1), {});
  EXPECT_FALSE(failed.ok());
  EXPECT_THAT(std::string(failed.status().message()), HasSubstr(folder_.path("file")));
}

TEST_F(AdapterStoreTest, NamesThatLeaveTheStoreAreRefused) {
  for (const char* name : {"", "..", "../x", "a/b", ".hidden", "a b", "\xff"}) {
    EXPECT_THAT(store_.Current(name), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("")));
    EXPECT_THAT(store_.Publish(TinyAdapter(1, name), {}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("an adapter's name")));
    EXPECT_THAT(store_.Remove(name), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("")));
  }
}

TEST_F(AdapterStoreTest, ALedgerThatIsNoJsonIsTheCallersMistakeAndPublishesNothing) {
  EXPECT_FALSE(store_.Publish(TinyAdapter(1), {{}, "{\"rank\":", ""}).ok());
  EXPECT_FALSE(store_.Current("home").ok());
}

}  // namespace
}  // namespace coterie
