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

TEST_F(FreeMemoryTest, ASystemThatDoesNotSayIsAnError) {
  Write("proc/meminfo", "MemTotal: 9000 kB\n");
  EXPECT_EQ(FreeMemoryBytes(root_.string()).status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace coterie
