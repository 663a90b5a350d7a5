#include "core/formats/gguf_file.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "core/base/quote.h"
#include "core/base/status_macros.h"

namespace coterie {
namespace {

// GGUF value types, as stored in files.
enum ValueType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

constexpr absl::string_view kValueTypeNames[] = {
    "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"};

// Bytes of a value of fixed size, 0 for strings, arrays and unknown types.
int FixedSize(uint32_t type) {
  switch (type) {
    case kUint8:
    case kInt8:
    case kBool:
      return 1;
    case kUint16:
    case kInt16:
      return 2;
    case kUint32:
    case kInt32:
    case kFloat32:
      return 4;
    case kUint64:
    case kInt64:
    case kFloat64:
      return 8;
    default:
      return 0;
  }
}

template <typename T>
T LoadAs(const uint8_t* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

bool IsInteger(uint32_t type) {
  return type != kFloat32 && type != kFloat64 && type != kBool && FixedSize(type) > 0;
}

// Reads an integer of any width; false if a u64 does not fit int64.
bool ReadInteger(uint32_t type, const uint8_t* bytes, int64_t& value) {
  switch (type) {
    case kUint8:
      value = LoadAs<uint8_t>(bytes);
      return true;
    case kInt8:
      value = LoadAs<int8_t>(bytes);
      return true;
    case kUint16:
      value = LoadAs<uint16_t>(bytes);
      return true;
    case kInt16:
      value = LoadAs<int16_t>(bytes);
      return true;
    case kUint32:
      value = LoadAs<uint32_t>(bytes);
      return true;
    case kInt32:
      value = LoadAs<int32_t>(bytes);
      return true;
    case kInt64:
      value = LoadAs<int64_t>(bytes);
      return true;
    case kUint64: {
      const uint64_t wide = LoadAs<uint64_t>(bytes);
      if (wide > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return false;
      value = static_cast<int64_t>(wide);
      return true;
    }
    default:
      return false;
  }
}

absl::string_view AsString(const uint8_t* bytes) {
  return {reinterpret_cast<const char*>(bytes + 8), LoadAs<uint64_t>(bytes)};
}

bool IsPlainName(absl::string_view name) {
  return std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c < 0x7f; });
}

// Far above what models have (a few dozen keys, some thousand tensors, vocabularies and merge lists
// of up to half a million entries), and few enough that what is kept for each stays below 64 MB.
constexpr uint64_t kMaxKeyValues = 1 << 16;
constexpr uint64_t kMaxTensors = 1 << 16;
constexpr uint64_t kMaxArrayElements = 1 << 21;

constexpr uint64_t kMinAlignment = 8;
constexpr uint64_t kMaxAlignment = 1 << 16;
constexpr uint64_t kMaxKeyBytes = 1 << 10;
constexpr uint64_t kMaxTensorNameBytes = 63;
constexpr uint32_t kMaxDimensions = 4;

}  // namespace

// Walks the bytes of a file once, from front to back, and fills a GgufFile.
class GgufParser {
 public:
  GgufParser(absl::Span<const uint8_t> bytes, GgufFile& file) : bytes_(bytes), file_(file) {}

  absl::Status Parse() {
    COTERIE_RETURN_IF_ERROR(ParseHeader());
    for (uint64_t i = 0; i < n_values_; ++i) COTERIE_RETURN_IF_ERROR(ParseKeyValue());
    COTERIE_RETURN_IF_ERROR(ReadAlignment());
    file_.tensors_.reserve(n_tensors_);
    for (uint64_t i = 0; i < n_tensors_; ++i) COTERIE_RETURN_IF_ERROR(ParseTensorInfo());
    return PlaceTensors();
  }

 private:
  uint64_t remaining() const { return bytes_.size() - position_; }

  absl::Status Bad(absl::string_view what) const {
    return absl::DataLossError(absl::StrCat("damaged GGUF file: ", what, ": file=", file_.path_,
                                            ", byte=", position_, ", size=", bytes_.size()));
  }

  template <typename T>
  absl::Status Read(T& value, absl::string_view what) {
    if (remaining() < sizeof(T)) return Bad(absl::StrCat("the file ends inside ", what));
    value = LoadAs<T>(bytes_.data() + position_);
    position_ += sizeof(T);
    return absl::OkStatus();
  }

  absl::Status ReadString(absl::string_view& value, absl::string_view what) {
    uint64_t length = 0;
    COTERIE_RETURN_IF_ERROR(Read(length, what));
    if (length > remaining()) return Bad(absl::StrCat("the file ends inside ", what));
    value = {reinterpret_cast<const char*>(bytes_.data() + position_), length};
    position_ += length;
    return absl::OkStatus();
  }

  absl::Status ParseHeader() {
    if (bytes_.size() < 4 || std::memcmp(bytes_.data(), "GGUF", 4) != 0) {
      return absl::DataLossError(
          absl::StrCat("not a GGUF file (it does not begin with \"GGUF\"): file=", file_.path_,
                       ", size=", bytes_.size()));
    }
    position_ = 4;
    uint32_t version = 0;
    COTERIE_RETURN_IF_ERROR(Read(version, "the header"));
    if ((version & 0xffff) == 0 && version != 0) {
      return absl::UnimplementedError(
          absl::StrCat("big-endian GGUF files are not supported: file=", file_.path_));
    }
    if (version < 2 || version > 3) {
      return absl::UnimplementedError(
          absl::StrCat("GGUF version is not supported (2 and 3 are): file=", file_.path_,
                       ", version=", version));
    }
    COTERIE_RETURN_IF_ERROR(Read(n_tensors_, "the header"));
    COTERIE_RETURN_IF_ERROR(Read(n_values_, "the header"));
    // The smallest key-value takes 13 bytes and the smallest tensor info 24: a count beyond what
    // the bytes can hold is refused before anything is reserved for it.
    if (n_values_ > remaining() / 13) return Bad("more key-values are announced than fit");
    if (n_tensors_ > remaining() / 24) return Bad("more tensors are announced than fit");
    if (n_values_ > kMaxKeyValues) {
      return Bad(absl::StrCat("there are more than ", kMaxKeyValues, " key-values: n=", n_values_));
    }
    if (n_tensors_ > kMaxTensors) {
      return Bad(absl::StrCat("there are more than ", kMaxTensors, " tensors: n=", n_tensors_));
    }
    return absl::OkStatus();
  }

  absl::Status ParseKeyValue() {
    absl::string_view key;
    COTERIE_RETURN_IF_ERROR(ReadString(key, "a key"));
    if (key.empty() || key.size() > kMaxKeyBytes || !IsPlainName(key)) {
      return Bad(absl::StrCat("a key is empty, too long or not plain ASCII: key=", Quote(key)));
    }
    GgufFile::Value value;
    COTERIE_RETURN_IF_ERROR(Read(value.type, "a value type"));
    if (value.type == kArray) {
      value.is_array = true;
      COTERIE_RETURN_IF_ERROR(Read(value.type, "an array type"));
      COTERIE_RETURN_IF_ERROR(Read(value.count, "an array length"));
      if (value.count > kMaxArrayElements) {
        return Bad(absl::StrCat("an array has more than ", kMaxArrayElements,
                                " elements: key=", key, ", n=", value.count));
      }
    }
    const uint64_t begin = position_;
    COTERIE_RETURN_IF_ERROR(SkipPayload(value, key));
    value.bytes = bytes_.subspan(begin, position_ - begin);
    if (!file_.values_.emplace(key, value).second) {
      return Bad(absl::StrCat("a key appears twice: key=", key));
    }
    return absl::OkStatus();
  }

  absl::Status SkipPayload(const GgufFile::Value& value, absl::string_view key) {
    if (value.type == kString) {
      if (value.count > remaining() / 8)
        return Bad(absl::StrCat("an array is too long: key=", key));
      absl::string_view ignored;
      for (uint64_t i = 0; i < value.count; ++i) {
        COTERIE_RETURN_IF_ERROR(ReadString(ignored, key));
      }
      return absl::OkStatus();
    }
    const uint64_t size = FixedSize(value.type);
    if (size == 0) {
      return Bad(
          absl::StrCat("a value has an unknown or nested type: key=", key, ", type=", value.type));
    }
    if (value.count > remaining() / size) {
      return Bad(absl::StrCat("a value reaches past the end: key=", key));
    }
    position_ += value.count * size;
    return absl::OkStatus();
  }

  absl::Status ReadAlignment() {
    if (!file_.Has("general.alignment")) return absl::OkStatus();
    COTERIE_ASSIGN_OR_RETURN(const int64_t alignment, file_.GetInt("general.alignment"));
    alignment_ = static_cast<uint64_t>(alignment);
    const bool power_of_two = (alignment_ & (alignment_ - 1)) == 0;
    if (power_of_two && alignment_ >= kMinAlignment && alignment_ <= kMaxAlignment) {
      return absl::OkStatus();
    }
    return Bad(absl::StrCat("general.alignment is no power of two from ", kMinAlignment, " to ",
                            kMaxAlignment, ": value=", alignment));
  }

  absl::Status ParseTensorInfo() {
    TensorRef tensor;
    COTERIE_RETURN_IF_ERROR(ReadString(tensor.name, "a tensor name"));
    const absl::string_view name = tensor.name;
    if (name.empty() || name.size() > kMaxTensorNameBytes || !IsPlainName(name)) {
      return Bad(absl::StrCat("a tensor name is empty, too long or not plain ASCII: tensor=",
                              Quote(name)));
    }
    uint32_t n_dimensions = 0;
    COTERIE_RETURN_IF_ERROR(Read(n_dimensions, "a tensor's shape"));
    if (n_dimensions > kMaxDimensions) {
      return Bad(absl::StrCat("a tensor has more than four dimensions: tensor=", name));
    }
    tensor.shape.resize(std::max<uint32_t>(n_dimensions, 1), 1);
    for (uint32_t i = 0; i < n_dimensions; ++i) {
      uint64_t extent = 0;
      COTERIE_RETURN_IF_ERROR(Read(extent, "a tensor's shape"));
      if (extent > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        return Bad(absl::StrCat("a tensor's shape is too large: tensor=", name));
      }
      // Files list the fastest dimension first; shapes here list it last.
      tensor.shape[n_dimensions - 1 - i] = static_cast<int64_t>(extent);
    }
    uint32_t ggml_type = 0;
    uint64_t offset = 0;
    COTERIE_RETURN_IF_ERROR(Read(ggml_type, "a tensor's type"));
    COTERIE_RETURN_IF_ERROR(Read(offset, "a tensor's offset"));
    const std::optional<TensorType> type = TensorTypeFromGgmlId(ggml_type);
    if (!type.has_value()) {
      return absl::UnimplementedError(
          absl::StrCat("tensor type is not supported: type=", GgmlTypeName(ggml_type), " (",
                       ggml_type, "), tensor=", name, ", file=", file_.path_));
    }
    tensor.type = *type;
    offsets_.push_back(offset);
    if (!file_.tensor_index_.emplace(name, file_.tensors_.size()).second) {
      return Bad(absl::StrCat("a tensor appears twice: tensor=", name));
    }
    file_.tensors_.push_back(std::move(tensor));
    return absl::OkStatus();
  }

  // Computes the bytes of a tensor with checked arithmetic.
  absl::Status TensorBytes(const TensorRef& tensor, uint64_t& size) const {
    const TensorTypeTraits& traits = Traits(tensor.type);
    if (tensor.shape.back() % traits.block_values != 0) {
      return Bad(absl::StrCat("a row is no whole number of blocks: tensor=", tensor.name,
                              ", type=", traits.name, ", row=", tensor.shape.back()));
    }
    size = static_cast<uint64_t>(tensor.shape.back() / traits.block_values);
    bool overflow = __builtin_mul_overflow(size, static_cast<uint64_t>(traits.block_bytes), &size);
    for (size_t i = 0; i + 1 < tensor.shape.size(); ++i) {
      overflow |= __builtin_mul_overflow(size, static_cast<uint64_t>(tensor.shape[i]), &size);
    }
    if (overflow || size > bytes_.size()) {
      return Bad(absl::StrCat("a tensor is larger than the file: tensor=", tensor.name, ", shape=[",
                              absl::StrJoin(tensor.shape, ", "), "], type=", traits.name));
    }
    return absl::OkStatus();
  }

  absl::Status PlaceTensors() {
    if (n_tensors_ == 0) return absl::OkStatus();
    const uint64_t data_begin = (position_ + alignment_ - 1) / alignment_ * alignment_;
    if (data_begin > bytes_.size()) return Bad("the file ends before the tensor data");
    const absl::Span<const uint8_t> data = bytes_.subspan(data_begin);
    uint64_t expected_offset = 0;
    for (size_t i = 0; i < file_.tensors_.size(); ++i) {
      TensorRef& tensor = file_.tensors_[i];
      uint64_t size = 0;
      COTERIE_RETURN_IF_ERROR(TensorBytes(tensor, size));
      if (offsets_[i] != expected_offset) {
        return Bad(absl::StrCat("a tensor does not follow the one before it: tensor=", tensor.name,
                                ", offset=", offsets_[i], ", expected=", expected_offset));
      }
      if (expected_offset > data.size() || size > data.size() - expected_offset) {
        return Bad(absl::StrCat(
            "the file ends inside a tensor (is the download complete?): tensor=", tensor.name,
            ", bytes=", size));
      }
      tensor.bytes = data.subspan(expected_offset, size);
      file_.tensor_bytes_ += static_cast<int64_t>(size);
      expected_offset += (size + alignment_ - 1) / alignment_ * alignment_;
    }
    // The last tensor may be padded like the others; a second file may not hide behind it.
    if (expected_offset >= data.size()) return absl::OkStatus();
    return Bad(
        absl::StrCat("there are bytes after the last tensor: n=", data.size() - expected_offset));
  }

  const absl::Span<const uint8_t> bytes_;
  GgufFile& file_;
  uint64_t position_ = 0;
  uint64_t n_tensors_ = 0;
  uint64_t n_values_ = 0;
  uint64_t alignment_ = 32;
  std::vector<uint64_t> offsets_;
};

MatrixView TensorRef::matrix() const {
  if (bytes.empty()) return MatrixView{type, 0, shape.back(), bytes.data()};
  int64_t n_rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) n_rows *= shape[i];
  return MatrixView{type, n_rows, shape.back(), bytes.data()};
}

absl::Status GgufFile::Read(absl::Span<const uint8_t> bytes) {
  bytes_ = bytes;
  return GgufParser(bytes, *this).Parse();
}

bool GgufFile::Has(absl::string_view key) const { return values_.contains(key); }

std::vector<absl::string_view> GgufFile::Keys() const {
  std::vector<absl::string_view> keys;
  for (const auto& [key, value] : values_) keys.push_back(key);
  return keys;
}

absl::StatusOr<const GgufFile::Value*> GgufFile::FindValue(absl::string_view key) const {
  const auto it = values_.find(key);
  if (it == values_.end()) {
    return absl::NotFoundError(absl::StrCat("GGUF key is missing: key=", key, ", file=", path_));
  }
  return &it->second;
}

absl::Status GgufFile::WrongType(absl::string_view key, absl::string_view wanted) const {
  return absl::DataLossError(absl::StrCat("GGUF key has the wrong type: key=", key, ", wanted=",
                                          wanted, ", found=", Describe(key), ", file=", path_));
}

absl::StatusOr<absl::string_view> GgufFile::GetString(absl::string_view key) const {
  COTERIE_ASSIGN_OR_RETURN(const Value* value, FindValue(key));
  if (value->is_array || value->type != kString) return WrongType(key, "string");
  return AsString(value->bytes.data());
}

absl::StatusOr<int64_t> GgufFile::GetInt(absl::string_view key) const {
  COTERIE_ASSIGN_OR_RETURN(const Value* value, FindValue(key));
  int64_t result = 0;
  if (value->is_array || !ReadInteger(value->type, value->bytes.data(), result)) {
    return WrongType(key, "integer");
  }
  return result;
}

absl::StatusOr<double> GgufFile::GetFloat(absl::string_view key) const {
  COTERIE_ASSIGN_OR_RETURN(const Value* value, FindValue(key));
  if (!value->is_array && value->type == kFloat32) return LoadAs<float>(value->bytes.data());
  if (!value->is_array && value->type == kFloat64) return LoadAs<double>(value->bytes.data());
  return WrongType(key, "float");
}

absl::StatusOr<bool> GgufFile::GetBool(absl::string_view key) const {
  COTERIE_ASSIGN_OR_RETURN(const Value* value, FindValue(key));
  if (value->is_array || value->type != kBool) return WrongType(key, "bool");
  return value->bytes[0] != 0;
}

absl::StatusOr<std::vector<absl::string_view>> GgufFile::GetStringArray(
    absl::string_view key) const {
  COTERIE_ASSIGN_OR_RETURN(const Value* value, FindValue(key));
  if (!value->is_array || value->type != kString) return WrongType(key, "string array");
  std::vector<absl::string_view> strings;
  strings.reserve(value->count);
  const uint8_t* position = value->bytes.data();
  for (uint64_t i = 0; i < value->count; ++i) {
    strings.push_back(AsString(position));
    position += 8 + strings.back().size();
  }
  return strings;
}

absl::StatusOr<std::vector<int64_t>> GgufFile::GetIntArray(absl::string_view key) const {
  COTERIE_ASSIGN_OR_RETURN(const Value* value, FindValue(key));
  if (!value->is_array || !IsInteger(value->type)) return WrongType(key, "integer array");
  std::vector<int64_t> integers(value->count);
  const int size = FixedSize(value->type);
  for (uint64_t i = 0; i < value->count; ++i) {
    if (!ReadInteger(value->type, value->bytes.data() + i * size, integers[i])) {
      return WrongType(key, "integer array within 63 bits");
    }
  }
  return integers;
}

absl::StatusOr<std::vector<float>> GgufFile::GetFloatArray(absl::string_view key) const {
  COTERIE_ASSIGN_OR_RETURN(const Value* value, FindValue(key));
  if (!value->is_array || value->type != kFloat32) return WrongType(key, "f32 array");
  std::vector<float> floats(value->count);
  if (!floats.empty()) std::memcpy(floats.data(), value->bytes.data(), value->bytes.size());
  return floats;
}

absl::StatusOr<int64_t> GgufFile::GetInt(absl::string_view key, int64_t fallback) const {
  return Has(key) ? GetInt(key) : fallback;
}

absl::StatusOr<double> GgufFile::GetFloat(absl::string_view key, double fallback) const {
  return Has(key) ? GetFloat(key) : fallback;
}

absl::StatusOr<bool> GgufFile::GetBool(absl::string_view key, bool fallback) const {
  return Has(key) ? GetBool(key) : fallback;
}

absl::StatusOr<absl::string_view> GgufFile::GetString(absl::string_view key,
                                                      absl::string_view fallback) const {
  return Has(key) ? GetString(key) : fallback;
}

std::string GgufFile::Describe(absl::string_view key) const {
  const auto it = values_.find(key);
  if (it == values_.end()) return "absent";
  const Value& value = it->second;
  const absl::string_view type = kValueTypeNames[value.type];
  if (value.is_array) return absl::StrCat(type, "[", value.count, "]");
  if (value.type == kString) {
    return absl::StrCat(
        "string \"", absl::Utf8SafeCHexEscape(AsString(value.bytes.data()).substr(0, 200)), "\"");
  }
  if (value.type == kBool) return value.bytes[0] != 0 ? "bool true" : "bool false";
  if (value.type == kFloat32) return absl::StrCat(type, " ", LoadAs<float>(value.bytes.data()));
  if (value.type == kFloat64) return absl::StrCat(type, " ", LoadAs<double>(value.bytes.data()));
  if (value.type == kUint64) return absl::StrCat(type, " ", LoadAs<uint64_t>(value.bytes.data()));
  int64_t integer = 0;
  ReadInteger(value.type, value.bytes.data(), integer);
  return absl::StrCat(type, " ", integer);
}

absl::StatusOr<TensorRef> GgufFile::Find(absl::string_view name) const {
  const auto it = tensor_index_.find(name);
  if (it == tensor_index_.end()) {
    return absl::NotFoundError(absl::StrCat("tensor is missing: tensor=", name, ", file=", path_));
  }
  return tensors_[it->second];
}

bool GgufFile::HasTensor(absl::string_view name) const { return tensor_index_.contains(name); }

std::vector<absl::string_view> GgufFile::TensorNames() const {
  std::vector<absl::string_view> names;
  for (const TensorRef& tensor : tensors_) names.push_back(tensor.name);
  return names;
}

}  // namespace coterie
