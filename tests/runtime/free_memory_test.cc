#include "runtime/free_memory.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "gtest/gtest.h"

#include "tests/status_matchers.h"

namespace coterie {
namespace {

namespace fs = std::filesystem;
using ::coterie::testing::IsOk;

// A system's files below a folder.
class FreeMemoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "coterie_memory_XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    Write("proc/meminfo", "MemTotal:  9000 kB\nMemFree: 10 kB\nMemAvailable:    4000 kB\n");
  }
  void TearDown() override { fs::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  int64_t FreeKib() {
    const absl::StatusOr<int64_t> bytes = FreeMemoryBytes(root_.string());
    EXPECT_THAT(bytes, IsOk());
    return bytes.value_or(-1) / 1024;
  }

  fs::path root_;
};

TEST_F(FreeMemoryTest, WithoutGroupsItIsWhatTheSystemHasAvailable) { EXPECT_EQ(FreeKib(), 4000); }

TEST_F(FreeMemoryTest, AGroupsLimitLessItsUseCounts) {
  Write("proc/self/cgroup", "0::/app\n");
  Write("sys/fs/cgroup/app/memory.max", "2048000\n");
  Write("sys/fs/cgroup/app/memory.current", "1024000\n");
  EXPECT_EQ(FreeKib(), 1000);
  Write("sys/fs/cgroup/app/memory.max", "max\n");
  EXPECT_EQ(FreeKib(), 4000);
  Write("sys/fs/cgroup/app/memory.max", "1000\n");
  EXPECT_EQ(FreeKib(), 0);
}

TEST_F(FreeMemoryTest, TheTightestGroupAboveCounts) {
  Write("proc/self/cgroup", "0::/a/b\n");
  Write("sys/fs/cgroup/a/b/memory.max", "3072000");
  Write("sys/fs/cgroup/a/memory.max", "1024000");
  EXPECT_EQ(FreeKib(), 1000);
  Write("sys/fs/cgroup/memory.max", "512000");
  EXPECT_EQ(FreeKib(), 500);
}

TEST_F(FreeMemoryTest, GroupsOfTheFirstVersionCountToo) {
  Write("proc/self/cgroup", "4:cpu,memory:/job\n0::/\n");
  Write("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "1024000");
  EXPECT_EQ(FreeKib(), 1000);
}

// A group that has read its model files is full of pages that cost nothing to drop.
TEST_F(FreeMemoryTest, PagesOfFilesCountAsAvailable) {
  Write("proc/self/cgroup", "0::/app\n");
  Write("sys/fs/cgroup/app/memory.max", "2048000\n");
  Write("sys/fs/cgroup/app/memory.current", "2048000\n");
  Write("sys/fs/cgroup/app/memory.stat",
        "anon 1024000\nfile 1024000\ninactive_file 512000\nactive_file 102400\n");
  EXPECT_EQ(FreeKib(), 600);
  Write("proc/self/cgroup", "4:memory:/job\n");
  Write("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "2048000");
  Write("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "2048000");
  Write("sys/fs/cgroup/memory/job/memory.stat",
        "inactive_file 1\ntotal_inactive_file 102400\ntotal_active_file 0\n");
  EXPECT_EQ(FreeKib(), 100);
}

TEST_F(FreeMemoryTest, TheSofterLimitOfAGroupCounts) {
  Write("proc/self/cgroup", "0::/app\n");
  Write("sys/fs/cgroup/app/memory.max", "max\n");
  Write("sys/fs/cgroup/app/memory.high", "1024000\n");
  EXPECT_EQ(FreeKib(), 1000);
}

TEST_F(FreeMemoryTest, StallsAreThoseOfTheGroupElseOfTheSystem) {
  const auto stalled = [&] { return ReadMemoryRoom(root_.string())->stalled_share; };
  EXPECT_FALSE(stalled().has_value());
  Write("proc/pressure/memory", "some avg10=12.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=1\n");
  EXPECT_DOUBLE_EQ(stalled().value(), 0.125);
  Write("proc/self/cgroup", "0::/app\n");
  Write("sys/fs/cgroup/app/memory.max", "1024000\n");
  Write("sys/fs/cgroup/app/memory.pressure", "some avg10=50.00 avg60=0.00\n");
  EXPECT_DOUBLE_EQ(stalled().value(), 0.5);
}

TEST_F(FreeMemoryTest, TheProcessItselfIsResident) { EXPECT_GT(ResidentBytes(), 1'000'000); }

TEST_F(FreeMemoryTest, ASystemThatDoesNotSayIsAnError) {
  Write("proc/meminfo", "MemTotal: 9000 kB\n");
  EXPECT_EQ(FreeMemoryBytes(root_.string()).status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace coterie
