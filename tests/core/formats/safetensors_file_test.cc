#include "core/formats/safetensors_file.h"

#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A file of a header and n_data bytes 0, 1, 2 ...; aligned as a mapping would be.
std::vector<uint8_t> MakeFile(absl::string_view header, size_t n_data) {
  std::vector<uint8_t> bytes;
  bytes.reserve(8 + header.size() + n_data);
  for (size_t i = 0; i < 8; ++i) bytes.push_back(static_cast<uint8_t>(header.size() >> (8 * i)));
  for (char c : header) bytes.push_back(static_cast<uint8_t>(c));
  for (size_t i = 0; i < n_data; ++i) bytes.push_back(static_cast<uint8_t>(i));
  return bytes;
}

absl::Status ParseStatus(absl::string_view header, size_t n_data) {
  const std::vector<uint8_t> bytes = MakeFile(header, n_data);
  return SafetensorsFile::Parse(bytes, "f").status();
}

void ExpectRefused(absl::string_view header, size_t n_data, absl::string_view message) {
  SCOPED_TRACE(std::string(header));
  EXPECT_THAT(ParseStatus(header, n_data),
              StatusIs(absl::StatusCode::kDataLoss,
                       AllOf(HasSubstr("f: "), HasSubstr(std::string(message)))));
}

constexpr char kTwo[] =
    R"({"b":{"dtype":"F32","shape":[2,1],"data_offsets":[4,12]},)"
    R"("a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]},"__metadata__":{"format":"pt"}}   )";

TEST(SafetensorsFileTest, TensorsComeWithTypeShapeAndBytes) {
  const std::vector<uint8_t> bytes = MakeFile(kTwo, 12);
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Parse(bytes, "f"));
  EXPECT_THAT(file->TensorNames(), ElementsAre("a", "b"));
  EXPECT_EQ(file->tensor_bytes(), 12);
  EXPECT_EQ(file->metadata().at("format"), "pt");
  EXPECT_TRUE(file->Has("a"));
  EXPECT_FALSE(file->Has("__metadata__"));
  COTERIE_ASSERT_OK_AND_ASSIGN(const SafetensorsTensor b, file->Find("b"));
  EXPECT_EQ(b.name, "b");
  EXPECT_EQ(b.type, SafetensorsType::kF32);
  EXPECT_THAT(b.shape, ElementsAre(2, 1));
  EXPECT_THAT(b.bytes, ElementsAre(4, 5, 6, 7, 8, 9, 10, 11));
  EXPECT_EQ(b.n_elements(), 2);
}

TEST(SafetensorsFileTest, AMissingTensorIsNotFoundByName) {
  const std::vector<uint8_t> bytes = MakeFile(kTwo, 12);
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Parse(bytes, "f"));
  EXPECT_THAT(file->Find("c"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("there is no tensor 'c'")));
}

TEST(SafetensorsFileTest, OpenMapsAFileAndNamesAMissingOne) {
  const auto path = std::filesystem::temp_directory_path() /
                    absl::StrCat("coterie_safetensors_test_", ::getpid());
  const std::vector<uint8_t> bytes = MakeFile(kTwo, 12);
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<int64_t>(bytes.size()));
  const auto file = SafetensorsFile::Open(path.string());
  std::filesystem::remove(path);
  COTERIE_ASSERT_OK(file);
  EXPECT_NE((*file)->mapping(), nullptr);
  EXPECT_TRUE((*file)->Has("b"));
  EXPECT_THAT(SafetensorsFile::Open(path.string()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(path.filename().string())));
}

TEST(SafetensorsFileTest, EmptyTensorsAndScalarsAreLegal) {
  const std::vector<uint8_t> bytes =
      MakeFile(R"({"e":{"dtype":"F32","shape":[0,9223372036854775807,9],"data_offsets":[0,0]},)"
               R"("s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
               R"("z":{"dtype":"F4","shape":[0],"data_offsets":[4,4]}})",
               4);
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Parse(bytes, "f"));
  EXPECT_EQ(file->Find("e")->n_elements(), 0);
  EXPECT_EQ(file->Find("s")->n_elements(), 1);
  COTERIE_EXPECT_OK(ParseStatus("{}", 0));
}

TEST(SafetensorsFileTest, EveryTypeOfTheFormatHasItsSize) {
  int n_types = 0;
  for (; n_types <= static_cast<int>(SafetensorsType::kU64); ++n_types) {
    const auto type = static_cast<SafetensorsType>(n_types);
    const int n_bytes = BitsPerElement(type);  // Of eight elements.
    const std::vector<uint8_t> bytes =
        MakeFile(absl::StrCat(R"({"t":{"dtype":")", SafetensorsTypeName(type),
                              R"(","shape":[8],"data_offsets":[0,)", n_bytes, "]}}"),
                 static_cast<size_t>(n_bytes));
    COTERIE_ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Parse(bytes, "f"));
    EXPECT_EQ(file->Find("t")->type, type);
    EXPECT_EQ(file->Find("t")->n_elements(), 8);
  }
  EXPECT_EQ(n_types, 22);
}

TEST(SafetensorsFileTest, FloatTensorsBecomeMatricesForKernels) {
  // 72 bytes of header put the data on a multiple of four.
  std::string header = R"({"w":{"dtype":"BF16","shape":[2,3,4],"data_offsets":[0,48]}})";
  header.resize(72, ' ');
  const std::vector<uint8_t> bytes = MakeFile(header, 48);
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Parse(bytes, "f"));
  COTERIE_ASSERT_OK_AND_ASSIGN(const MatrixView matrix, file->Find("w")->matrix());
  EXPECT_EQ(matrix.type, TensorType::kBF16);
  EXPECT_EQ(matrix.n_rows, 6);
  EXPECT_EQ(matrix.n_cols, 4);
  EXPECT_EQ(matrix.row(1)[0], 8);
}

TEST(SafetensorsFileTest, MatricesOfOtherTypesOrUnalignedDataAreRefused) {
  const std::vector<uint8_t> integers =
      MakeFile(R"({"w":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})", 8);
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Parse(integers, "f"));
  EXPECT_THAT(file->Find("w")->matrix(),
              StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("I64")));
  std::string header = R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  header.resize(header.size() / 4 * 4 + 5, ' ');
  const std::vector<uint8_t> odd = MakeFile(header, 4);
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto unaligned, SafetensorsFile::Parse(odd, "f"));
  EXPECT_THAT(unaligned->Find("w")->matrix(),
              StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("not aligned")));
}

TEST(SafetensorsFileTest, HeadersThatDoNotFitAreRefused) {
  const std::vector<uint8_t> tiny = {1, 0, 0, 0, 0, 0, 0};
  EXPECT_THAT(SafetensorsFile::Parse(tiny, "f"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("too short")));
  std::vector<uint8_t> bytes = MakeFile("{}", 0);
  bytes[0] = 3;
  EXPECT_THAT(SafetensorsFile::Parse(bytes, "f"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("ends after the file: 3 bytes")));
  const uint64_t too_long = 100000001;
  std::memcpy(bytes.data(), &too_long, 8);
  EXPECT_THAT(SafetensorsFile::Parse(bytes, "f"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("too long: 100000001")));
  std::memset(bytes.data(), 0xFF, 8);
  EXPECT_THAT(SafetensorsFile::Parse(bytes, "f"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("too long")));
}

TEST(SafetensorsFileTest, HeadersThatAreNoJsonObjectAreRefused) {
  ExpectRefused("", 0, "does not begin with '{'");
  ExpectRefused(" {}", 0, "does not begin with '{'");
  ExpectRefused("[]", 0, "does not begin with '{'");
  ExpectRefused("{}x", 0, "not valid JSON at byte 3");
  ExpectRefused("{\"a\":", 0, "not valid JSON");
  ExpectRefused("{\"\xff\":{}}", 0, "not valid JSON");
  ExpectRefused(std::string("{}\0", 3), 0, "not valid JSON");
}

TEST(SafetensorsFileTest, NamesThatOccurTwiceAreRefused) {
  ExpectRefused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                2, "the name 'a' occurs twice");
  ExpectRefused(R"({"__metadata__":{"k":"1","k":"2"}})", 0, "metadata name 'k' occurs twice");
  ExpectRefused(R"({"__metadata__":{},"__metadata__":{}})", 0, "'__metadata__' occurs twice");
  ExpectRefused(R"({"a":{"dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1]}})", 1,
                "the field 'shape' twice");
}

TEST(SafetensorsFileTest, EntriesOfAnotherFormAreRefused) {
  ExpectRefused(R"({"a":{"dtype":"U8","shape":[1]}})", 0, "lacks dtype, shape or data_offsets");
  ExpectRefused(R"({"a":{}})", 0, "lacks dtype");
  ExpectRefused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}})", 1,
                "unknown field 'x'");
  ExpectRefused(R"({"a":1})", 0, "wrong type");
  ExpectRefused(R"({"a":null})", 0, "wrong type");
  ExpectRefused(R"({"a":{"dtype":8,"shape":[1],"data_offsets":[0,1]}})", 1, "wrong type");
  ExpectRefused(R"({"a":{"dtype":"U8","shape":"1","data_offsets":[0,1]}})", 1, "wrong type");
  ExpectRefused(R"({"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}})", 1, "wrong type");
  ExpectRefused(R"({"a":{"dtype":"U8","shape":[[1]],"data_offsets":[0,1]}})", 1, "wrong type");
  ExpectRefused(R"({"a":{"dtype":"U8","shape":[{}],"data_offsets":[0,1]}})", 1, "wrong type");
  ExpectRefused(R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", 1, "negative");
  ExpectRefused(R"({"__metadata__":{"k":1}})", 0, "wrong type");
  ExpectRefused(R"({"__metadata__":{"k":{}}})", 0, "wrong type");
  ExpectRefused(R"({"__metadata__":"k"})", 0, "wrong type");
  const std::string nested = absl::StrCat(R"({"a":)", std::string(100000, '['));
  EXPECT_THAT(ParseStatus(nested, 0), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("type")));
}

TEST(SafetensorsFileTest, UnknownTypesAreRefused) {
  ExpectRefused(R"({"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}})", 4,
                "unknown dtype 'F33'");
  ExpectRefused(R"({"a":{"dtype":"f32","shape":[1],"data_offsets":[0,4]}})", 4, "unknown dtype");
}

TEST(SafetensorsFileTest, SizesBeyond63BitsAreRefused) {
  ExpectRefused(R"({"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,1]}})", 1,
                "beyond 63 bits");
  ExpectRefused(R"({"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0,
                "beyond 63 bits");
  ExpectRefused(R"({"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}})", 0,
                "beyond 63 bits");
}

TEST(SafetensorsFileTest, RangesThatDoNotHoldTheirShapeAreRefused) {
  ExpectRefused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4,
                "does not match its byte range: shape [2], 8 bytes, range 4");
  ExpectRefused(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[4,0]}})", 4, "no range: [4, 0]");
  ExpectRefused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", 1, "no range");
  ExpectRefused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}})", 1, "no range");
  ExpectRefused(R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}})", 1,
                "does not fill whole bytes");
}

TEST(SafetensorsFileTest, HolesOverlapsAndBytesLeftOverAreRefused) {
  ExpectRefused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2,
                "a hole before tensor 'a': bytes 0 to 1");
  ExpectRefused(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
                3, "tensor 'b' overlaps another");
  ExpectRefused(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                R"("b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
                2, "overlaps another");
  ExpectRefused(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 1,
                "ends after the file: 2 bytes of data wanted, 1 there");
  ExpectRefused(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 3,
                "1 bytes after the last tensor");
  ExpectRefused("{}", 5, "5 bytes after the last tensor");
}

TEST(SafetensorsFileTest, EveryTruncationOfAFileIsRefused) {
  const std::vector<uint8_t> bytes = MakeFile(kTwo, 12);
  for (size_t n = 0; n < bytes.size(); ++n) {
    EXPECT_FALSE(SafetensorsFile::Parse(absl::MakeSpan(bytes.data(), n), "f").ok()) << n;
  }
}

}  // namespace
}  // namespace coterie
