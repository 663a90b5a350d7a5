// What GgufFile refuses, and how, is in tests/fuzz.

#include "core/formats/gguf_file.h"

#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/fuzz/gguf_bytes.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::GgufBytes;
using ::coterie::testing::IsOk;
using ::coterie::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<std::unique_ptr<const GgufFile>> Parse(const GgufBytes& file) {
  return GgufFile::Parse(
      {reinterpret_cast<const uint8_t*>(file.bytes().data()), file.bytes().size()}, "test.gguf");
}

constexpr uint32_t kU8 = testing::kGgufU8, kU32 = testing::kGgufU32, kF32 = testing::kGgufF32,
                   kBool = testing::kGgufBool, kString = testing::kGgufString,
                   kArray = testing::kGgufArray, kU64 = testing::kGgufU64;

TEST(GgufFileTest, ReadsValuesOfEveryKind) {
  const GgufBytes bytes = GgufBytes(0, 6)
                              .Key("a.text", kString)
                              .String("hello")
                              .Key("b.count", kU32)
                              .Number<uint32_t>(7)
                              .Key("c.epsilon", kF32)
                              .Number<float>(0.5f)
                              .Key("d.flag", kBool)
                              .Number<uint8_t>(1)
                              .Key("e.names", kArray)
                              .Number<uint32_t>(kString)
                              .Number<uint64_t>(2)
                              .String("x")
                              .String("yz")
                              .Key("f.ids", kArray)
                              .Number<uint32_t>(kU8)
                              .Number<uint64_t>(3)
                              .Number<uint8_t>(1)
                              .Number<uint8_t>(2)
                              .Number<uint8_t>(255);
  const auto file = Parse(bytes);
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ(*(*file)->GetString("a.text"), "hello");
  EXPECT_EQ(*(*file)->GetInt("b.count"), 7);
  EXPECT_EQ(*(*file)->GetFloat("c.epsilon"), 0.5);
  EXPECT_TRUE(*(*file)->GetBool("d.flag"));
  EXPECT_THAT(*(*file)->GetStringArray("e.names"), ElementsAre("x", "yz"));
  EXPECT_THAT(*(*file)->GetIntArray("f.ids"), ElementsAre(1, 2, 255));
  EXPECT_EQ((*file)->Describe("e.names"), "string[2]");
}

TEST(GgufFileTest, ShapesAreOutermostFirst) {
  const GgufBytes bytes = GgufBytes(1, 0).Tensor("w", {32, 3}, 8, 0).Pad().Zeros(3 * 34);
  const auto file = Parse(bytes);
  ASSERT_THAT(file, IsOk());
  COTERIE_ASSERT_OK_AND_ASSIGN(const TensorRef tensor, (*file)->Find("w"));
  EXPECT_THAT(tensor.shape, ElementsAre(3, 32));
  EXPECT_EQ(tensor.matrix().n_rows, 3);
  EXPECT_EQ(tensor.bytes.size(), 3u * 34);
}

TEST(GgufFileTest, AbsentKeysAndWrongTypesAreNamed) {
  const GgufBytes bytes = GgufBytes(0, 1).Key("k", kString).String("v");
  const auto file = Parse(bytes);
  ASSERT_THAT(file, IsOk());
  EXPECT_THAT((*file)->GetInt("nope"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("nope")));
  EXPECT_THAT((*file)->GetInt("k"), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("string")));
  EXPECT_EQ(*(*file)->GetInt("nope", 3), 3);
  EXPECT_THAT((*file)->GetInt("k", 3), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("k")));
}

TEST(GgufFileTest, IntegersBeyondInt64AreRefused) {
  const GgufBytes bytes = GgufBytes(0, 1).Key("k", kU64).Number<uint64_t>(~uint64_t{0});
  const auto file = Parse(bytes);
  ASSERT_THAT(file, IsOk());
  EXPECT_THAT((*file)->GetInt("k"), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("k")));
}

// A file cut anywhere is refused or parses; it never reads past its end (AddressSanitizer watches).
TEST(GgufFileTest, EveryTruncationIsHandled) {
  const std::string whole = GgufBytes(1, 2)
                                .Key("a.text", kString)
                                .String("hello")
                                .Key("e.names", kArray)
                                .Number<uint32_t>(kString)
                                .Number<uint64_t>(2)
                                .String("x")
                                .String("yz")
                                .Tensor("w", {32, 3}, 8, 0)
                                .Pad()
                                .Zeros(3 * 34)
                                .bytes();
  for (size_t n = 0; n < whole.size(); ++n) {
    const std::vector<uint8_t> cut(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(n));
    EXPECT_FALSE(GgufFile::Parse(cut, "cut.gguf").ok()) << n;
  }
}

TEST(GgufFileTest, MissingFilesAndFoldersAreNamed) {
  EXPECT_THAT(GgufFile::Open("/nonexistent/model.gguf"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nonexistent/model.gguf")));
  EXPECT_THAT(GgufFile::Open("/"), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("/")));
}

}  // namespace
}  // namespace coterie
