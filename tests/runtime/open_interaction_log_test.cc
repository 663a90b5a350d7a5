#include "runtime/open_interaction_log.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"

#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::IsOk;
using ::coterie::testing::StatusIs;
using ::testing::HasSubstr;

class OpenInteractionLogTest : public ::testing::Test {
 protected:
  OpenInteractionLogTest() { configuration_.home = folder_ + "/store"; }
  ~OpenInteractionLogTest() override { std::filesystem::remove_all(folder_); }

  // Tests run at once, each in a process.
  const std::string folder_ = absl::StrCat(::testing::TempDir(), "/coterie_open_log_", getpid());
  Configuration configuration_;
};

TEST_F(OpenInteractionLogTest, ItLiesInTheStoreUnlessAnotherPlaceIsNamed) {
  EXPECT_EQ(InteractionLogPath(configuration_), configuration_.home + "/interactions.db");
  configuration_.learning.log_path = configuration_.home + "/other/log.db";
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto log, OpenInteractionLog(configuration_));
  EXPECT_TRUE(std::filesystem::exists(configuration_.learning.log_path));
}

TEST_F(OpenInteractionLogTest, TheKeyFileEncryptsIt) {
  std::filesystem::create_directories(configuration_.home);
  configuration_.learning.key_file = configuration_.home + "/log.key";
  EXPECT_THAT(OpenInteractionLog(configuration_),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("log.key")));
  EXPECT_FALSE(std::filesystem::exists(InteractionLogPath(configuration_)));
  std::ofstream(configuration_.learning.key_file) << std::string(64, 'a');
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto log, OpenInteractionLog(configuration_));
  EXPECT_TRUE(log->is_encrypted());
}

TEST_F(OpenInteractionLogTest, WithoutALogItSaysHowToKeepOne) {
  configuration_.learning.log = false;
  EXPECT_THAT(OpenInteractionLog(configuration_),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("log = true")));
}

}  // namespace
}  // namespace coterie
