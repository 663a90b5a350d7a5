#include "core/formats/gguf_file.h"

#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::IsOk;
using ::coterie::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Writes GGUF bytes field by field, so that tests can write wrong ones.
class GgufBytes {
 public:
  GgufBytes(uint64_t n_tensors, uint64_t n_values, uint32_t version = 3) {
    bytes_ = "GGUF";
    Number<uint32_t>(version).Number<uint64_t>(n_tensors).Number<uint64_t>(n_values);
  }

  template <typename T>
  GgufBytes& Number(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  GgufBytes& String(absl::string_view text) {
    Number<uint64_t>(text.size());
    bytes_.append(text.data(), text.size());
    return *this;
  }
  GgufBytes& Key(absl::string_view key, uint32_t type) { return String(key).Number(type); }
  GgufBytes& Tensor(absl::string_view name, std::vector<uint64_t> extents, uint32_t type,
                    uint64_t offset) {
    String(name).Number<uint32_t>(extents.size());
    for (const uint64_t extent : extents) Number(extent);
    return Number(type).Number(offset);
  }
  GgufBytes& Pad(size_t alignment = 32) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment);
    return *this;
  }
  GgufBytes& Zeros(size_t n) {
    bytes_.append(n, '\0');
    return *this;
  }

  auto Parse() const {
    return GgufFile::Parse({reinterpret_cast<const uint8_t*>(bytes_.data()), bytes_.size()},
                           "test.gguf");
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

constexpr uint32_t kU8 = 0, kU32 = 4, kF32 = 6, kBool = 7, kString = 8, kArray = 9, kU64 = 10;

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
  const auto file = bytes.Parse();
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
  const auto file = bytes.Parse();
  ASSERT_THAT(file, IsOk());
  COTERIE_ASSERT_OK_AND_ASSIGN(const TensorRef tensor, (*file)->Find("w"));
  EXPECT_THAT(tensor.shape, ElementsAre(3, 32));
  EXPECT_EQ(tensor.matrix().n_rows, 3);
  EXPECT_EQ(tensor.bytes.size(), 3u * 34);
}

TEST(GgufFileTest, AbsentKeysAndWrongTypesAreNamed) {
  const GgufBytes bytes = GgufBytes(0, 1).Key("k", kString).String("v");
  const auto file = bytes.Parse();
  ASSERT_THAT(file, IsOk());
  EXPECT_THAT((*file)->GetInt("nope"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("nope")));
  EXPECT_THAT((*file)->GetInt("k"), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("string")));
  EXPECT_EQ(*(*file)->GetInt("nope", 3), 3);
  EXPECT_THAT((*file)->GetInt("k", 3), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("k")));
}

TEST(GgufFileTest, IntegersBeyondInt64AreRefused) {
  const GgufBytes bytes = GgufBytes(0, 1).Key("k", kU64).Number<uint64_t>(~uint64_t{0});
  const auto file = bytes.Parse();
  ASSERT_THAT(file, IsOk());
  EXPECT_THAT((*file)->GetInt("k"), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("k")));
}

struct BadFile {
  absl::string_view name;
  std::string bytes;
  absl::StatusCode code;
  absl::string_view message;
};

class BadGgufTest : public ::testing::TestWithParam<BadFile> {};

TEST_P(BadGgufTest, IsRefusedWithItsReason) {
  const BadFile& bad = GetParam();
  const auto file = GgufFile::Parse(
      {reinterpret_cast<const uint8_t*>(bad.bytes.data()), bad.bytes.size()}, "bad.gguf");
  EXPECT_THAT(file, StatusIs(bad.code, HasSubstr(std::string(bad.message))));
  EXPECT_THAT(file, StatusIs(bad.code, HasSubstr("bad.gguf")));
}

constexpr uint64_t kHuge = uint64_t{1} << 62;
constexpr auto kDamaged = absl::StatusCode::kDataLoss;
constexpr auto kUnsupported = absl::StatusCode::kUnimplemented;

INSTANTIATE_TEST_SUITE_P(
    Kinds, BadGgufTest,
    ::testing::Values(
        BadFile{"Empty", "", kDamaged, "not a GGUF file"},
        BadFile{"Magic", "GGML____________________", kDamaged, "not a GGUF file"},
        BadFile{"HeaderCut", "GGUF\x03", kDamaged, "ends inside the header"},
        BadFile{"Version1", GgufBytes(0, 0, 1).bytes(), kUnsupported, "version"},
        BadFile{"VersionFuture", GgufBytes(0, 0, 4).bytes(), kUnsupported, "version"},
        BadFile{"BigEndian", GgufBytes(0, 0, 0x03000000).bytes(), kUnsupported, "big-endian"},
        BadFile{"ValueCount", GgufBytes(0, kHuge).bytes(), kDamaged, "more key-values"},
        BadFile{"TensorCount", GgufBytes(kHuge, 0).bytes(), kDamaged, "more tensors"},
        BadFile{"KeyLength", GgufBytes(0, 1).Number<uint64_t>(kHuge).Zeros(32).bytes(), kDamaged,
                "ends inside a key"},
        BadFile{"KeyEmpty", GgufBytes(0, 1).Key("", kU32).Zeros(32).bytes(), kDamaged, "key"},
        BadFile{"KeyControl", GgufBytes(0, 1).Key("a\nb", kU32).Zeros(32).bytes(), kDamaged,
                "plain ASCII"},
        BadFile{"ValueType", GgufBytes(0, 1).Key("k", 99).Zeros(32).bytes(), kDamaged,
                "unknown or nested type"},
        BadFile{
            "NestedArray",
            GgufBytes(0, 1).Key("k", kArray).Number(kArray).Number<uint64_t>(1).Zeros(32).bytes(),
            kDamaged, "nested"},
        BadFile{"ArrayLength",
                GgufBytes(0, 1).Key("k", kArray).Number(kU32).Number(kHuge).Zeros(32).bytes(),
                kDamaged, "past the end"},
        BadFile{"StringArrayLength",
                GgufBytes(0, 1).Key("k", kArray).Number(kString).Number(kHuge).Zeros(32).bytes(),
                kDamaged, "too long"},
        BadFile{"StringLength", GgufBytes(0, 1).Key("k", kString).Number(kHuge).Zeros(32).bytes(),
                kDamaged, "ends inside k"},
        BadFile{"DuplicateKey",
                GgufBytes(0, 2).Key("k", kU32).Zeros(4).Key("k", kU32).Zeros(4).bytes(), kDamaged,
                "appears twice"},
        BadFile{"AlignmentType",
                GgufBytes(0, 1).Key("general.alignment", kString).String("32").bytes(), kDamaged,
                "general.alignment"},
        BadFile{"AlignmentValue",
                GgufBytes(0, 1).Key("general.alignment", kU32).Number<uint32_t>(48).bytes(),
                kDamaged, "power of two"},
        BadFile{"AlignmentHuge",
                GgufBytes(0, 1).Key("general.alignment", kU32).Number<uint32_t>(1 << 30).bytes(),
                kDamaged, "power of two"},
        BadFile{"TensorName",
                GgufBytes(1, 0).Tensor(std::string(64, 'n'), {1}, 0, 0).Pad().Zeros(64).bytes(),
                kDamaged, "tensor name"},
        BadFile{"Dimensions",
                GgufBytes(1, 0).Tensor("w", {1, 1, 1, 1, 1}, 0, 0).Pad().Zeros(64).bytes(),
                kDamaged, "four dimensions"},
        BadFile{"ExtentNegative",
                GgufBytes(1, 0).Tensor("w", {~uint64_t{0}}, 0, 0).Pad().Zeros(64).bytes(), kDamaged,
                "too large"},
        BadFile{"ExtentsOverflow",
                GgufBytes(1, 0)
                    .Tensor("w", {1 << 16, uint64_t{1} << 31, uint64_t{1} << 31}, 0, 0)
                    .Pad()
                    .Zeros(64)
                    .bytes(),
                kDamaged, "larger than the file"},
        BadFile{"PartialBlock", GgufBytes(1, 0).Tensor("w", {33}, 8, 0).Pad().Zeros(64).bytes(),
                kDamaged, "whole number of blocks"},
        BadFile{"TensorTypeUnknown",
                GgufBytes(1, 0).Tensor("w", {32}, 77, 0).Pad().Zeros(64).bytes(), kUnsupported,
                "tensor=w"},
        BadFile{"TensorTypeUnsupported",
                GgufBytes(1, 0).Tensor("w", {256}, 23, 0).Pad().Zeros(256).bytes(), kUnsupported,
                "IQ4_XS"},
        BadFile{
            "DuplicateTensor",
            GgufBytes(2, 0).Tensor("w", {1}, 0, 0).Tensor("w", {1}, 0, 32).Pad().Zeros(64).bytes(),
            kDamaged, "appears twice"},
        BadFile{"OffsetGap", GgufBytes(1, 0).Tensor("w", {1}, 0, 32).Pad().Zeros(64).bytes(),
                kDamaged, "does not follow"},
        BadFile{"OffsetOverlap",
                GgufBytes(2, 0)
                    .Tensor("a", {16}, 0, 0)
                    .Tensor("b", {16}, 0, 32)
                    .Pad()
                    .Zeros(256)
                    .bytes(),
                kDamaged, "does not follow"},
        BadFile{"DataCut", GgufBytes(1, 0).Tensor("w", {32}, 0, 0).Pad().Zeros(127).bytes(),
                kDamaged, "ends inside a tensor"},
        BadFile{"DataMissing", GgufBytes(1, 0).Tensor("w", {1}, 0, 0).bytes(), kDamaged, "file"}),
    [](const auto& info) { return std::string(info.param.name); });

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
