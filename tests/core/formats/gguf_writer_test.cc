#include "core/formats/gguf_writer.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "core/formats/gguf_file.h"
#include "tests/fuzz/scratch_folder.h"
#include "tests/status_matchers.h"

#include <sys/resource.h>
#include <sys/wait.h>

namespace coterie {
namespace {

using ::coterie::testing::ScratchFolder;
using ::coterie::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::Span<const uint8_t> Bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

template <typename T>
absl::Span<const uint8_t> Bytes(const std::vector<T>& values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(T)};
}

TEST(GgufWriterTest, WhatIsWrittenIsReadBack) {
  const std::vector<float> matrix = {1, 2, 3, 4, 5, 6};
  const std::vector<uint8_t> blocks(2 * 34, 7);
  GgufWriter writer;
  writer.SetString("a.name", "größer");
  writer.SetInt("a.count", -5);
  writer.SetFloat("a.rate", 0.25);
  writer.SetBool("a.on", true);
  writer.SetStringArray("a.words", std::vector<std::string>{"x", "", "yz"});
  writer.SetIntArray("a.ints", std::vector<int64_t>{1, -2});
  writer.SetFloatArray("a.floats", std::vector<float>{0.5f});
  writer.AddTensor("m", TensorType::kF32, {2, 3}, Bytes(matrix));
  writer.AddTensor("q", TensorType::kQ8_0, {2, 32}, blocks);
  COTERIE_ASSERT_OK_AND_ASSIGN(const std::string bytes, writer.Serialize());
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Parse(Bytes(bytes), "test"));

  EXPECT_EQ(*file->GetString("a.name"), "größer");
  EXPECT_EQ(*file->GetInt("a.count"), -5);
  EXPECT_EQ(*file->GetFloat("a.rate"), 0.25);
  EXPECT_TRUE(*file->GetBool("a.on"));
  EXPECT_THAT(*file->GetStringArray("a.words"), ElementsAre("x", "", "yz"));
  EXPECT_THAT(*file->GetIntArray("a.ints"), ElementsAre(1, -2));
  EXPECT_THAT(*file->GetFloatArray("a.floats"), ElementsAre(0.5f));
  EXPECT_THAT(file->TensorNames(), ElementsAre("m", "q"));
  COTERIE_ASSERT_OK_AND_ASSIGN(const TensorRef m, file->Find("m"));
  EXPECT_THAT(m.shape, ElementsAre(2, 3));
  EXPECT_EQ(std::memcmp(m.bytes.data(), matrix.data(), m.bytes.size()), 0);
  COTERIE_ASSERT_OK_AND_ASSIGN(const TensorRef q, file->Find("q"));
  EXPECT_EQ(q.type, TensorType::kQ8_0);
  EXPECT_EQ(q.bytes.size(), blocks.size());
}

TEST(GgufWriterTest, AKeySetTwiceIsRefused) {
  GgufWriter writer;
  writer.SetInt("n", 1);
  writer.SetInt("n", 2);
  EXPECT_THAT(writer.Serialize(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("set twice: name=n")));
}

TEST(GgufWriterTest, BytesThatDoNotMatchTheShapeAreRefused) {
  const std::vector<float> matrix(5);
  GgufWriter writer;
  writer.AddTensor("m", TensorType::kF32, {2, 3}, Bytes(matrix));
  EXPECT_THAT(writer.Serialize(), StatusIs(absl::StatusCode::kInvalidArgument,
                                           HasSubstr("do not match its shape: name=m")));
}

TEST(GgufWriterTest, AMistakeIsReportedEvenAfterGoodCalls) {
  GgufWriter writer;
  writer.SetInt("two words", 1);
  writer.SetInt("fine", 2);
  EXPECT_THAT(writer.Serialize(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("two words")));
}

// A file of n_bytes that says which version it is.
absl::Status WriteVersion(const std::string& path, int64_t version, size_t n_bytes) {
  const std::vector<uint8_t> weights(n_bytes, static_cast<uint8_t>(version));
  GgufWriter writer;
  writer.SetInt("version", version);
  writer.AddTensor("w", TensorType::kF32, {static_cast<int64_t>(n_bytes / 4)}, weights);
  return writer.Write(path);
}

// The version of a whole file; fails if it is torn.
int64_t ReadVersion(const std::string& path) {
  const auto file = GgufFile::Open(path);
  if (!file.ok()) {
    ADD_FAILURE() << file.status();
    return -1;
  }
  const int64_t version = *(*file)->GetInt("version");
  const absl::Span<const uint8_t> bytes = (*file)->Find("w")->bytes;
  EXPECT_TRUE(std::all_of(bytes.begin(), bytes.end(), [&](uint8_t b) { return b == version; }));
  return version;
}

TEST(GgufWriterTest, WritingReplacesTheFileAndLeavesNothingBeside) {
  const ScratchFolder folder;
  for (const int64_t version : {1, 2}) {
    COTERIE_ASSERT_OK(WriteVersion(folder.path("a.gguf"), version, 64));
    EXPECT_EQ(ReadVersion(folder.path("a.gguf")), version);
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

// The limit on a file's size stands in for a disk without room: write fails in its middle.
TEST(GgufWriterTest, ADiskWithoutRoomLeavesTheOldFileAndNothingBeside) {
  const ScratchFolder folder;
  const std::string path = folder.path("a.gguf");
  COTERIE_ASSERT_OK(WriteVersion(path, 1, 64));
  rlimit before;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small = {100000, before.rlim_max};
  const auto old_handler = ::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status status = WriteVersion(path, 2, 1 << 20);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, old_handler);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInternal,
                               ::testing::AllOf(HasSubstr("cannot write"), HasSubstr(path))));
  EXPECT_EQ(ReadVersion(path), 1);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

// Kills a process that does nothing but write, at moments spread over what a write takes.
TEST(GgufWriterTest, AKilledWriterLeavesAWholeFile) {
  const ScratchFolder folder;
  const std::string path = folder.path("a.gguf");
  COTERIE_ASSERT_OK(WriteVersion(path, 1, 1 << 20));
  for (int kill = 0; kill < 20; ++kill) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      for (int64_t version = 2;; version = 5 - version) {
        if (!WriteVersion(path, version, 1 << 20).ok()) ::_exit(1);
      }
    }
    ::usleep(static_cast<useconds_t>(1000 * kill));
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    int ended = 0;
    ASSERT_EQ(::waitpid(child, &ended, 0), child);
    EXPECT_TRUE(WIFSIGNALED(ended));
    EXPECT_THAT(ReadVersion(path), ::testing::AnyOf(1, 2, 3));
  }
}

TEST(GgufWriterTest, AMissingFolderIsNotFound) {
  GgufWriter writer;
  writer.SetInt("n", 1);
  EXPECT_THAT(writer.Write("/nonexistent-folder/a.gguf"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nonexistent-folder/a.gguf")));
}

}  // namespace
}  // namespace coterie
