// GGUF and safetensors files that lie about themselves. The kinds are those that have broken
// readers of these formats, among them llama.cpp's own list (tests/test-gguf.cpp) and published
// CVEs.

#include "absl/strings/str_cat.h"

#include "tests/fuzz/gguf_bytes.h"
#include "tests/fuzz/malformed_file.h"

namespace coterie::testing {
namespace {

constexpr uint64_t kHuge = uint64_t{1} << 62;
constexpr auto kDamaged = absl::StatusCode::kDataLoss;
constexpr auto kUnsupported = absl::StatusCode::kUnimplemented;
constexpr uint32_t kTypeF32 = 0, kTypeQ8_0 = 8;

using Files = std::vector<MalformedFile>;

void AddHeaders(Files& files) {
  const auto add = [&](const char* name, const GgufBytes& bytes, const char* field,
                       absl::StatusCode code = kDamaged) {
    files.push_back({name, bytes.bytes(), code, field});
  };
  files.push_back({"Empty", "", kDamaged, "empty"});
  files.push_back({"Magic", "GGML____________________", kDamaged, "not a GGUF file"});
  files.push_back({"MagicAlone", "GGUF", kDamaged, "ends inside the header"});
  files.push_back({"HeaderCut", "GGUF\x03", kDamaged, "ends inside the header"});
  add("Version0", GgufBytes(0, 0, 0), "version=0", kUnsupported);
  add("Version1", GgufBytes(0, 0, 1), "version=1", kUnsupported);
  add("VersionFuture", GgufBytes(0, 0, 4), "version=4", kUnsupported);
  add("BigEndian", GgufBytes(0, 0, 0x03000000), "big-endian", kUnsupported);
  add("ValueCount", GgufBytes(0, kHuge), "more key-values");
  add("ValueCountWraps", GgufBytes(0, ~uint64_t{0}), "more key-values");
  add("TensorCount", GgufBytes(kHuge, 0), "more tensors");
  add("TensorCountWraps", GgufBytes(~uint64_t{0} / 24 + 1, 0), "more tensors");
  add("ValueCountOneTooMany", GgufBytes(0, 2).Key("k", kGgufU32).Zeros(4).Zeros(13), "a key is");
  GgufBytes many_values(0, 65537), many_tensors(65537, 0);
  for (int i = 0; i < 65537; ++i) {
    many_values.Key(absl::StrCat("k", i), kGgufU8).Number<uint8_t>(0);
    many_tensors.Tensor(absl::StrCat("t", i), {0}, kTypeF32, 0);
  }
  add("ManyValues", many_values, "more than 65536 key-values");
  add("ManyTensors", many_tensors.Pad(), "more than 65536 tensors");
  GgufBytes same_key(0, 60000);
  for (int i = 0; i < 60000; ++i) same_key.Key("k", kGgufU8).Number<uint8_t>(0);
  add("ManyEqualKeys", same_key, "appears twice: key=k");
}

void AddValues(Files& files) {
  const auto add = [&](const char* name, const GgufBytes& bytes, const char* field) {
    files.push_back({name, bytes.bytes(), kDamaged, field});
  };
  const auto one = [] { return GgufBytes(0, 1); };
  add("KeyLength", one().Number<uint64_t>(kHuge).Zeros(32), "ends inside a key");
  add("KeyLengthWraps", one().Number<uint64_t>(~uint64_t{0}).Zeros(32), "ends inside a key");
  add("KeyEmpty", one().Key("", kGgufU32).Zeros(32), "a key is empty");
  add("KeyControl", one().Key("a\nb", kGgufU32).Zeros(32), "key='a\\nb'");
  add("KeyNotAscii", one().Key("\xff\xfe", kGgufU32).Zeros(32), "key='\\xff\\xfe'");
  add("KeyLong", one().Key(std::string(5000, 'k'), kGgufU32).Zeros(32), "too long");
  add("ValueType", one().Key("k", 99).Zeros(32), "key=k, type=99");
  add("ValueTypeNegative", one().Key("k", 0xffffffff).Zeros(32), "key=k");
  add("ValueCut", one().Key("k", kGgufU64).Zeros(7), "key=k");
  add("ArrayType", one().Array("k", 99, 1).Zeros(32), "key=k, type=99");
  add("NestedArray", one().Array("k", kGgufArray, 1).Array("", kGgufU8, 1).Zeros(32), "key=k");
  add("ArrayLength", one().Array("k", kGgufU32, kHuge).Zeros(32), "key=k");
  add("ArrayLengthWraps", one().Array("k", kGgufU32, kHuge + 1).Zeros(32), "key=k");
  add("ArrayPastTheEnd", one().Array("k", kGgufU32, 9).Zeros(32), "past the end: key=k");
  add("ArrayLong", one().Array("k", kGgufU8, (1 << 21) + 1).Zeros((1 << 21) + 1), "key=k");
  add("StringArrayLength", one().Array("k", kGgufString, kHuge).Zeros(32), "key=k");
  add("StringArrayPastTheEnd", one().Array("k", kGgufString, 9).Zeros(32), "key=k");
  add("StringLength", one().Key("k", kGgufString).Number(kHuge).Zeros(32), "ends inside k");
  add("StringLengthWraps", one().Key("k", kGgufString).Number(~uint64_t{0}).Zeros(32), "inside k");
  add("StringInArrayLength", one().Array("k", kGgufString, 1).Number(kHuge).Zeros(32), "inside k");
  add("DuplicateKey", GgufBytes(0, 2).Key("k", kGgufU32).Zeros(4).Key("k", kGgufU32).Zeros(4),
      "appears twice: key=k");
  // 43 bytes that promise an array without end.
  files.push_back({"FortyThreeBytes",
                   one().Array("k", kGgufString, ~uint64_t{0}).bytes().substr(0, 43), kDamaged,
                   "an array length"});
  const auto alignment = [&](const char* name, const GgufBytes& bytes) {
    add(name, bytes, "general.alignment");
  };
  const char* key = "general.alignment";
  alignment("AlignmentType", one().Key(key, kGgufString).String("32"));
  alignment("AlignmentArray", one().Array(key, kGgufU32, 1).Number<uint32_t>(32));
  alignment("AlignmentZero", one().Key(key, kGgufU32).Number<uint32_t>(0));
  alignment("AlignmentOne", one().Key(key, kGgufU32).Number<uint32_t>(1));
  alignment("AlignmentOdd", one().Key(key, kGgufU32).Number<uint32_t>(48));
  alignment("AlignmentHuge", one().Key(key, kGgufU32).Number<uint32_t>(1 << 30));
  alignment("AlignmentBeyondInt64", one().Key(key, kGgufU64).Number(~uint64_t{0}));
  alignment("AlignmentTopBit", one().Key(key, kGgufU64).Number(uint64_t{1} << 63));
}

void AddTensors(Files& files) {
  const auto add = [&](const char* name, const GgufBytes& bytes, const char* field,
                       absl::StatusCode code = kDamaged) {
    files.push_back({name, bytes.bytes(), code, field});
  };
  using Extents = std::vector<uint64_t>;
  const auto one = [](Extents extents, uint32_t type = kTypeF32, uint64_t offset = 0) {
    return GgufBytes(1, 0).Tensor("w", std::move(extents), type, offset).Pad();
  };
  const auto named = [](absl::string_view name) {
    return GgufBytes(1, 0).Tensor(name, {16}, kTypeF32, 0).Pad().Zeros(64);
  };
  add("TensorNameLong", named(std::string(64, 'n')), "tensor name");
  add("TensorNameEmpty", named(""), "tensor name");
  add("TensorNameNotAscii", named("\xc3\xa4"), "tensor='\\xc3\\xa4'");
  add("TensorNameLength", GgufBytes(1, 0).Number(kHuge).Zeros(64), "a tensor name");
  add("Dimensions", one({1, 1, 1, 1, 1}).Zeros(64), "four dimensions: tensor=w");
  add("DimensionsHuge", GgufBytes(1, 0).String("w").Number(~uint32_t{0}).Zeros(64), "tensor=w");
  add("ExtentNegative", one({~uint64_t{0}}).Zeros(64), "tensor=w");
  add("ExtentsOverflow", one({1 << 16, uint64_t{1} << 31, uint64_t{1} << 31}).Zeros(64),
      "tensor=w");
  // The product is a small number once it has wrapped.
  add("ExtentsWrapToSmall", one({uint64_t{1} << 32, uint64_t{1} << 32, 1, 1}).Zeros(64),
      "tensor=w");
  add("ExtentsWrapWithType", one({(uint64_t{1} << 62) + 4}).Zeros(64), "tensor=w");
  // 160 bytes that ask for GiBs.
  add("GigabytesAsked", one({1 << 30, 16}).Zeros(64), "larger than the file: tensor=w");
  add("PartialBlock", one({33}, kTypeQ8_0).Zeros(64), "whole number of blocks: tensor=w");
  add("TensorTypeUnknown", one({32}, 77).Zeros(64), "tensor=w", kUnsupported);
  add("TensorTypeNegative", one({32}, ~uint32_t{0}).Zeros(64), "tensor=w", kUnsupported);
  add("TensorTypeRemoved", one({32}, 4).Zeros(64), "tensor=w", kUnsupported);
  add("TensorTypeUnsupported", one({256}, 23).Zeros(256), "IQ4_XS", kUnsupported);
  add("DuplicateTensor",
      GgufBytes(2, 0).Tensor("w", {1}, 0, 0).Tensor("w", {1}, 0, 32).Pad().Zeros(64),
      "appears twice: tensor=w");
  add("TensorInfoCut", GgufBytes(1, 0).String("w").Number<uint32_t>(1).Zeros(12), "a tensor's");
  const auto two = [](uint64_t a, uint64_t b) {
    return GgufBytes(2, 0).Tensor("a", {16}, 0, a).Tensor("b", {16}, 0, b).Pad().Zeros(256);
  };
  add("OffsetGap", one({1}, kTypeF32, 32).Zeros(64), "does not follow the one before it: tensor=w");
  add("OffsetOdd", one({1}, kTypeF32, 1).Zeros(64), "tensor=w");
  add("OffsetHuge", one({1}, kTypeF32, kHuge).Zeros(64), "tensor=w");
  add("OffsetWraps", one({1}, kTypeF32, ~uint64_t{31}).Zeros(64), "tensor=w");
  add("OffsetOverlap", two(0, 32), "tensor=b");
  add("OffsetsEqual", two(0, 0), "tensor=b");
  add("OffsetsSwapped", two(64, 0), "tensor=a");
}

void AddData(Files& files) {
  const auto add = [&](const char* name, const GgufBytes& bytes, const char* field) {
    files.push_back({name, bytes.bytes(), kDamaged, field});
  };
  const auto w = [] { return GgufBytes(1, 0).Tensor("w", {32}, kTypeF32, 0); };
  add("DataCut", w().Pad().Zeros(127), "ends inside a tensor");
  add("DataMissing", w(), "tensor");
  add("DataNotAligned", w().Zeros(128), "tensor=w");
  add("DataAfterTheLast", w().Pad().Zeros(128 + 32), "after the last tensor: n=32");
  // Laid out in steps of 32 bytes, declared as 64.
  add("AlignmentInconsistent",
      GgufBytes(2, 1)
          .Key("general.alignment", kGgufU32)
          .Number<uint32_t>(64)
          .Tensor("a", {8}, kTypeF32, 0)
          .Tensor("b", {8}, kTypeF32, 32)
          .Pad(64)
          .Zeros(128),
      "tensor=b");
}

// A safetensors file of a header and n_data zero bytes.
std::string Safetensors(absl::string_view header, size_t n_data) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(header.size() >> (8 * i)));
  absl::StrAppend(&bytes, header);
  return bytes + std::string(n_data, '\0');
}

std::string LengthAndText(uint64_t length, absl::string_view text) {
  std::string bytes(reinterpret_cast<const char*>(&length), sizeof(length));
  return absl::StrCat(bytes, text);
}

void AddSafetensorsHeaders(Files& files) {
  const auto add = [&](const char* name, std::string bytes, const char* field) {
    files.push_back({name, std::move(bytes), kDamaged, field});
  };
  add("Empty", "", "empty");
  add("Short", "1234567", "too short");
  add("HeaderBeyondTheFile", LengthAndText(100, "{}"), "ends after the file");
  add("HeaderBeyondTheLimit", LengthAndText(100000001, "{}"), "too long");
  add("HeaderLengthWraps", LengthAndText(~uint64_t{0}, "{}"), "too long");
  add("HeaderLengthWrapsToSmall", LengthAndText(~uint64_t{0} - 7, "{}"), "too long");
  add("HeaderEmpty", Safetensors("", 0), "begin with '{'");
  add("HeaderBlank", Safetensors("   ", 0), "begin with '{'");
  add("HeaderNoJson", Safetensors("{\"a\"", 0), "JSON");
  add("HeaderZeroByte", Safetensors(absl::string_view("{}\0 ", 4), 0), "zero byte");
  add("HeaderTrailing", Safetensors("{}x", 0), "JSON");
  add("HeaderNotUtf8", Safetensors("{\"\xff\":{}}", 0), "JSON");
  add("HeaderArray", Safetensors("[]", 0), "begin with '{'");
  add("HeaderDeep", Safetensors("{" + std::string(100000, '['), 0), "JSON");
  add("HeaderDeepObjects",
      Safetensors(
          [] {
            std::string deep;
            for (int i = 0; i < 20000; ++i) deep += "{\"a\":";
            return deep;
          }(),
          0),
      "'a'");
  add("HeaderLongString", Safetensors("{\"" + std::string(9 << 20, 'a'), 0), "8388608 bytes");
  add("HeaderLongNumber", Safetensors("{\"a\":" + std::string(9 << 20, '1') + "}", 0), "8388608");
  add("HeaderLongSpace", Safetensors("{" + std::string(9 << 20, '\n') + "}", 0), "8388608");
  std::string many = "{", metadata = "{\"__metadata__\":{", rank = "{\"a\":{\"shape\":[1";
  for (int i = 0; i < 65537; ++i) {
    absl::StrAppend(&many, i > 0 ? "," : "", "\"", i,
                    "\":{\"dtype\":\"F4\",\"shape\":[0],\"data_offsets\":[0,0]}");
    absl::StrAppend(&metadata, i > 0 ? "," : "", "\"", i, "\":\"\"");
  }
  for (int i = 0; i < 100000; ++i) rank += ",1";
  add("ManyTensors", Safetensors(many + "}", 0), "more than 65536 tensors");
  add("ManyMetadata", Safetensors(metadata + "}}", 0), "more than 65536 metadata");
  add("ManyDimensions", Safetensors(rank + "]}}", 0), "'a' has more than 64 numbers");
}

void AddSafetensorsFields(Files& files) {
  // A file of one tensor "a" whose description is `text`.
  const auto add = [&](const char* name, absl::string_view text, size_t n_data, const char* field) {
    files.push_back(
        {name, Safetensors(absl::StrCat("{\"a\":", text, "}"), n_data), kDamaged, field});
  };
  const auto tensor = [&](const char* name, absl::string_view dtype, absl::string_view shape,
                          absl::string_view offsets, size_t n_data, const char* field) {
    add(name,
        absl::StrCat("{\"dtype\":", dtype, ",\"shape\":", shape, ",\"data_offsets\":", offsets,
                     "}"),
        n_data, field);
  };
  add("TensorNumber", "3", 0, "'a'");
  add("TensorNull", "null", 0, "'a'");
  add("TensorEmpty", "{}", 0, "'a' lacks");
  add("FieldUnknown", R"({"type":"F32"})", 0, "unknown field 'type'");
  add("FieldTwice", R"({"dtype":"U8","dtype":"U8"})", 0, "'dtype' twice");
  tensor("TypeUnknown", "\"Q8\"", "[1]", "[0,1]", 1, "unknown dtype 'Q8'");
  tensor("TypeNumber", "3", "[1]", "[0,1]", 1, "'a'");
  tensor("ShapeText", "\"U8\"", "\"1\"", "[0,1]", 1, "'a'");
  tensor("ShapeNested", "\"U8\"", "[[1]]", "[0,1]", 1, "'a'");
  tensor("ShapeNegative", "\"U8\"", "[-1]", "[0,1]", 1, "negative");
  tensor("ShapeReal", "\"U8\"", "[1.0]", "[0,1]", 1, "'a'");
  tensor("ShapeBeyondInt64", "\"U8\"", "[18446744073709551615]", "[0,1]", 1, "'a'");
  tensor("ShapeOverflow", "\"F32\"", "[4294967296,4294967296]", "[0,4]", 4, "'a'");
  // As in the GGUF list: wraps to what the range says.
  tensor("ShapeWrapsToSmall", "\"F32\"", "[4611686018427387905]", "[0,4]", 4, "'a'");
  tensor("ShapeMismatch", "\"F32\"", "[2]", "[0,4]", 4, "'a' does not match");
  tensor("SubByte", "\"F4\"", "[3]", "[0,1]", 1, "whole bytes");
  tensor("RangeReversed", "\"U8\"", "[0]", "[1,0]", 1, "data_offsets of tensor 'a'");
  tensor("RangeUnderflow", "\"U8\"", "[18446744073709551615]", "[1,0]", 1, "'a'");
  tensor("RangeOfOne", "\"U8\"", "[1]", "[0]", 1, "data_offsets of tensor 'a'");
  tensor("RangeOfThree", "\"U8\"", "[1]", "[0,1,2]", 1, "data_offsets of tensor 'a'");
  tensor("RangeNegative", "\"U8\"", "[1]", "[-1,0]", 1, "negative");
  tensor("RangeHuge", "\"U8\"", "[9223372036854775807]", "[0,9223372036854775807]", 1, "'a'");
  tensor("HoleBefore", "\"U8\"", "[1]", "[1,2]", 2, "hole before tensor 'a'");
  tensor("PastTheEnd", "\"U8\"", "[2]", "[0,2]", 1, "'a' ends after the file");
  tensor("BytesAfter", "\"U8\"", "[2]", "[0,2]", 3, "after the last tensor");
  files.push_back({"BytesWithoutTensors", Safetensors("{}", 5), kDamaged, "after the last tensor"});
  files.push_back({"MetadataNumber", Safetensors(R"({"__metadata__":{"a":3}})", 0), kDamaged,
                   "'__metadata__'"});
  files.push_back({"MetadataTwice", Safetensors(R"({"__metadata__":{"a":"","a":""}})", 0), kDamaged,
                   "'a' occurs twice"});
}

void AddSafetensorsPairs(Files& files) {
  // Two tensors of one byte each.
  const auto add = [&](const char* name, const char* second, const char* a, const char* b,
                       const char* field) {
    const std::string header =
        absl::StrCat(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":)", a, "},\"", second,
                     R"(":{"dtype":"U8","shape":[1],"data_offsets":)", b, "}}");
    files.push_back({name, Safetensors(header, 2), kDamaged, field});
  };
  add("NameTwice", "a", "[0,1]", "[1,2]", "'a' occurs twice");
  add("Aliases", "b", "[0,1]", "[0,1]", "'b' overlaps");
  add("HoleBetween", "b", "[0,1]", "[2,3]", "hole before tensor 'b'");
}

}  // namespace

std::vector<MalformedFile> MalformedGguf() {
  Files files;
  AddHeaders(files);
  AddValues(files);
  AddTensors(files);
  AddData(files);
  return files;
}

std::string ValidGguf() {
  return GgufBytes(1, 3)
      .Key("a.text", kGgufString)
      .String("hello")
      .Array("b.names", kGgufString, 2)
      .String("x")
      .String("yz")
      .Array("c.ids", kGgufU8, 3)
      .Number<uint8_t>(1)
      .Number<uint8_t>(2)
      .Number<uint8_t>(255)
      .Tensor("w", {32, 3}, kTypeQ8_0, 0)
      .Pad()
      .Zeros(3 * 34)
      .bytes();
}

std::vector<MalformedFile> MalformedSafetensors() {
  Files files;
  AddSafetensorsHeaders(files);
  AddSafetensorsFields(files);
  AddSafetensorsPairs(files);
  return files;
}

std::string ValidSafetensors() {
  return Safetensors(R"({"b":{"dtype":"F32","shape":[2,1],"data_offsets":[4,12]},)"
                     R"("a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]},)"
                     R"("__metadata__":{"format":"pt"}}   )",
                     12);
}

}  // namespace coterie::testing
