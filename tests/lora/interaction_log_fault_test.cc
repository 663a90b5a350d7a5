// What becomes of the interaction log when something goes wrong around it.

#include <signal.h>
#include <sqlite3.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"

#include "lora/interaction_log.h"
#include "lora/record_cipher.h"
#include "tests/lora/interaction_fixture.h"

#include <sys/resource.h>
#include <sys/wait.h>

namespace coterie {
namespace {

using ::coterie::testing::InteractionLogTest;
using ::coterie::testing::IsOk;
using ::coterie::testing::MakeInteraction;
using ::coterie::testing::StatusIs;
using ::testing::HasSubstr;
using InteractionLogFaultTest = InteractionLogTest;

void Execute(const std::string& path, const std::string& sql) {
  sqlite3* database = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &database), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(database, sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(database);
}

// Writes one interaction after another, telling `pipe` the number of each that Append has returned
// from, until it is killed.
[[noreturn]] void AppendForEver(const InteractionLogOptions& options, int pipe) {
  auto log = InteractionLog::Open(options);
  for (int i = 0; log.ok(); ++i) {
    const std::string id = absl::StrCat("n", i);
    if (!(*log)->Append(MakeInteraction(id, std::string(3000, 'x'), "y")).ok()) break;
    if (i % 3 == 0 && !(*log)->SetFeedback(id, {Verdict::kEdited, "z", ""}).ok()) break;
    if (write(pipe, &i, sizeof(i)) != sizeof(i)) break;
  }
  _exit(1);
}

TEST_F(InteractionLogFaultTest, WhatWasLoggedSurvivesKillMinus9) {
  options_.key = NewSealKey();
  for (int round = 0; round < 4; ++round) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) AppendForEver(options_, ends[1]);
    close(ends[1]);
    int last = -1;
    while (last < 20 + 7 * round) ASSERT_EQ(read(ends[0], &last, sizeof(last)), sizeof(last));
    kill(child, SIGKILL);
    ASSERT_EQ(waitpid(child, nullptr, 0), child);
    for (int more; read(ends[0], &more, sizeof(more)) == sizeof(more);) last = more;
    close(ends[0]);
    const auto log = Open();
    for (int i = 0; i <= last; ++i) {
      COTERIE_ASSERT_OK_AND_ASSIGN(const Interaction read, log->Get(absl::StrCat("n", i)));
      EXPECT_EQ(read.feedback.verdict, i % 3 == 0 ? Verdict::kEdited : Verdict::kNone);
    }
    Append(*log, "after");
  }
}

TEST_F(InteractionLogFaultTest, ManyProcessesMayOpenANewLogAtOnce) {
  for (int round = 0; round < 30; ++round) {
    options_.path = folder_ / absl::StrCat("new", round, ".db");
    std::vector<pid_t> children;
    for (int who = 0; who < 6; ++who) {
      const pid_t child = fork();
      ASSERT_GE(child, 0);
      if (child == 0) _exit(InteractionLog::Open(options_).ok() ? 0 : 1);
      children.push_back(child);
    }
    for (const pid_t child : children) {
      int status = -1;
      ASSERT_EQ(waitpid(child, &status, 0), child);
      EXPECT_EQ(status, 0) << "round " << round;
    }
  }
}

TEST_F(InteractionLogFaultTest, TwoProcessesShareOneLog) {
  std::vector<pid_t> children;
  for (int who = 0; who < 2; ++who) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      auto log = InteractionLog::Open(options_);
      bool ok = log.ok();
      for (int i = 0; ok && i < 50; ++i) {
        const std::string id = absl::StrCat(who, "-", i);
        ok = (*log)->Append(MakeInteraction(id, "ask", "reply")).ok() &&
             (*log)->SetFeedback(id, {Verdict::kAccepted, "", ""}).ok();
      }
      _exit(ok ? 0 : 1);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  const auto log = Open();
  EXPECT_EQ(Ids(*log, {.with_feedback = true}).size(), 100u);
  EXPECT_EQ(*log->LastChange(), 100);
}

TEST_F(InteractionLogFaultTest, ThreadsShareOneLog) {
  const auto log = Open();
  std::vector<std::thread> threads;
  for (int who = 0; who < 3; ++who) {
    threads.emplace_back([&, who] {
      for (int i = 0; i < 30; ++i) {
        const std::string id = absl::StrCat(who, "-", i);
        EXPECT_THAT(log->Append(MakeInteraction(id, "ask", "reply")), IsOk());
        EXPECT_THAT(log->Get(id), IsOk());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Ids(*log).size(), 90u);
}

// A limit on the size of files is a disk that is full, but for the number of the error.
TEST_F(InteractionLogFaultTest, AFullDiskIsSaidAndWhatWasThereStays) {
  const auto log = Open();
  Append(*log, "a");
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  const rlimit small{200'000, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  absl::Status status;
  for (int i = 0; i < 100 && status.ok(); ++i) {
    status = log->Append(MakeInteraction(absl::StrCat("n", i), std::string(50'000, 'x'), ""));
  }
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, handler);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("is the disk full?")));
  EXPECT_THAT(log->Get("a"), IsOk());
  Append(*log, "after");
}

TEST_F(InteractionLogFaultTest, APlaceThatCannotBeWrittenIsSaidWithThePlace) {
  for (const char* path : {"/proc/interactions.db", "/dev/null/interactions.db"}) {
    options_.path = path;
    EXPECT_THAT(InteractionLog::Open(options_),
                StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(path)));
  }
}

TEST_F(InteractionLogFaultTest, AFileThatIsNoDatabaseIsRefusedAndLeftAsItIs) {
  const std::string text(5000, 'x');
  std::ofstream(options_.path) << text;
  EXPECT_THAT(InteractionLog::Open(options_),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("move the file away")));
  std::stringstream read;
  read << std::ifstream(options_.path).rdbuf();
  EXPECT_EQ(read.str(), text);
}

TEST_F(InteractionLogFaultTest, DamageInsideIsAnErrorOfTheCallThatMeetsIt) {
  {
    const auto log = Open();
    for (int i = 0; i < 100; ++i) Append(*log, absl::StrCat("n", i), std::string(1000, 'x'));
  }
  const auto size = std::filesystem::file_size(options_.path);
  std::fstream file(options_.path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(size / 4));
  file << std::string(size / 2, '\xa5');
  file.close();
  const auto log = InteractionLog::Open(options_);
  const absl::Status status = log.ok() ? (*log)->List({}).status() : log.status();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kDataLoss, HasSubstr("damaged")));
}

TEST_F(InteractionLogFaultTest, ARowThatSomethingElseWroteIsRefusedById) {
  {
    const auto log = Open();
    Append(*log, "a");
    Append(*log, "b");
  }
  Execute(options_.path, "UPDATE content SET body = '{\"messages\": 3}' WHERE seq = 1");
  Execute(options_.path, "UPDATE interaction SET verdict = 9 WHERE id = 'b'");
  const auto log = Open();
  EXPECT_THAT(log->Get("a"), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("id=a")));
  EXPECT_THAT(log->Get("b"), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("verdict=9")));
}

TEST_F(InteractionLogFaultTest, AnotherProgramsDatabaseIsRefused) {
  Execute(options_.path, "CREATE TABLE mine (x); INSERT INTO mine VALUES (1)");
  EXPECT_THAT(InteractionLog::Open(options_),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("another program")));
}

TEST_F(InteractionLogFaultTest, ALaterSchemaIsRefusedWithItsNumber) {
  ASSERT_NE(Open(), nullptr);
  Execute(options_.path, "PRAGMA user_version = 99");
  EXPECT_THAT(InteractionLog::Open(options_),
              StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("version=99")));
}

}  // namespace
}  // namespace coterie
