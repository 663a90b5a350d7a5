#include "core/formats/gguf_writer.h"

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "core/formats/gguf_file.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

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

TEST(GgufWriterTest, WritingReplacesTheFileAndLeavesNothingBeside) {
  const std::filesystem::path folder =
      std::filesystem::path(::testing::TempDir()) / "gguf_writer_test";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  const std::string path = (folder / "a.gguf").string();
  for (const int64_t value : {1, 2}) {
    GgufWriter writer;
    writer.SetInt("n", value);
    COTERIE_ASSERT_OK(writer.Write(path));
    COTERIE_ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(path));
    EXPECT_EQ(*file->GetInt("n"), value);
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 1);
  std::filesystem::remove_all(folder);
}

TEST(GgufWriterTest, AMissingFolderIsNotFound) {
  GgufWriter writer;
  writer.SetInt("n", 1);
  EXPECT_THAT(writer.Write("/nonexistent-folder/a.gguf"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nonexistent-folder/a.gguf")));
}

}  // namespace
}  // namespace coterie
