#include "core/base/read_file.h"

#include "tests/fuzz/scratch_folder.h"
#include "tests/status_matchers.h"

#include <sys/stat.h>

namespace coterie {
namespace {

using ::coterie::testing::ScratchFolder;
using ::coterie::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(ReadSmallFileTest, GivesTheBytesUpToTheLimit) {
  const ScratchFolder folder;
  const std::string path = folder.Write("a", std::string("x\0y", 3));
  EXPECT_EQ(*ReadSmallFile(path, 3), std::string("x\0y", 3));
  EXPECT_THAT(ReadSmallFile(path, 2),
              StatusIs(absl::StatusCode::kDataLoss,
                       AllOf(HasSubstr(path), HasSubstr("bytes=3, allowed=2"))));
}

TEST(ReadSmallFileTest, WhatIsNoFileIsNamed) {
  const ScratchFolder folder;
  EXPECT_THAT(ReadSmallFile(folder.path("none"), 9),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(folder.path("none"))));
  EXPECT_THAT(ReadSmallFile(folder.path(), 9),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not a regular file")));
  EXPECT_THAT(ReadSmallFile(std::string("a\0b", 3), 9),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("zero byte")));
}

TEST(ReadSmallFileTest, DoesNotWaitForTheWriterOfAPipe) {
  const ScratchFolder folder;
  ASSERT_EQ(::mkfifo(folder.path("pipe").c_str(), 0600), 0);
  EXPECT_THAT(ReadSmallFile(folder.path("pipe"), 9),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not a regular file")));
}

}  // namespace
}  // namespace coterie
