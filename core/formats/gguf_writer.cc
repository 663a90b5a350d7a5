#include "core/formats/gguf_writer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "core/base/status_macros.h"
#include "core/base/write_file.h"

namespace coterie {
namespace {

constexpr uint32_t kInt64 = 11, kFloat32 = 6, kFloat64 = 12, kBool = 7, kString = 8, kArray = 9;
constexpr uint32_t kVersion = 3;
constexpr size_t kAlignment = 32;
constexpr size_t kMaxTensorNameBytes = 63;

template <typename T>
void Append(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void AppendString(std::string& out, absl::string_view value) {
  Append<uint64_t>(out, value.size());
  out.append(value.data(), value.size());
}

size_t Padded(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

bool IsPlainName(absl::string_view name) {
  return !name.empty() &&
         std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c < 0x7f; });
}

// Bytes of a tensor, or -1 if the type does not allow the shape.
int64_t TensorBytes(TensorType type, absl::Span<const int64_t> shape) {
  if (shape.empty() || shape.size() > 4) return -1;
  if (shape.back() % Traits(type).block_values != 0) return -1;
  int64_t bytes = RowBytes(type, shape.back());
  for (size_t i = 0; i + 1 < shape.size(); ++i) bytes *= shape[i];
  return bytes;
}

}  // namespace

void GgufWriter::Refuse(absl::string_view what, absl::string_view name) {
  if (status_.ok()) status_ = absl::InvalidArgumentError(absl::StrCat(what, ": name=", name));
}

void GgufWriter::BeginValue(absl::string_view key, uint32_t type) {
  if (!IsPlainName(key)) Refuse("a GGUF key must be plain ASCII without spaces", key);
  if (std::find(keys_.begin(), keys_.end(), key) != keys_.end()) {
    Refuse("a GGUF key was set twice", key);
  }
  keys_.emplace_back(key);
  AppendString(encoded_values_, key);
  Append<uint32_t>(encoded_values_, type);
}

void GgufWriter::BeginArray(absl::string_view key, uint32_t type, size_t count) {
  BeginValue(key, kArray);
  Append<uint32_t>(encoded_values_, type);
  Append<uint64_t>(encoded_values_, count);
}

void GgufWriter::SetString(absl::string_view key, absl::string_view value) {
  BeginValue(key, kString);
  AppendString(encoded_values_, value);
}

void GgufWriter::SetInt(absl::string_view key, int64_t value) {
  BeginValue(key, kInt64);
  Append<int64_t>(encoded_values_, value);
}

void GgufWriter::SetFloat(absl::string_view key, double value) {
  BeginValue(key, kFloat64);
  Append<double>(encoded_values_, value);
}

void GgufWriter::SetFloat32(absl::string_view key, float value) {
  BeginValue(key, kFloat32);
  Append<float>(encoded_values_, value);
}

void GgufWriter::SetBool(absl::string_view key, bool value) {
  BeginValue(key, kBool);
  Append<uint8_t>(encoded_values_, value ? 1 : 0);
}

void GgufWriter::SetStringArray(absl::string_view key, absl::Span<const std::string> values) {
  BeginArray(key, kString, values.size());
  for (const std::string& value : values) AppendString(encoded_values_, value);
}

void GgufWriter::SetIntArray(absl::string_view key, absl::Span<const int64_t> values) {
  BeginArray(key, kInt64, values.size());
  for (const int64_t value : values) Append<int64_t>(encoded_values_, value);
}

void GgufWriter::SetFloatArray(absl::string_view key, absl::Span<const float> values) {
  BeginArray(key, kFloat32, values.size());
  for (const float value : values) Append<float>(encoded_values_, value);
}

void GgufWriter::CopyKey(const GgufFile& file, absl::string_view key) {
  const absl::StatusOr<const GgufFile::Value*> value = file.FindValue(key);
  if (!value.ok()) return Refuse("a GGUF key to copy is missing", key);
  if ((*value)->is_array) {
    BeginArray(key, (*value)->type, (*value)->count);
  } else {
    BeginValue(key, (*value)->type);
  }
  encoded_values_.append(reinterpret_cast<const char*>((*value)->bytes.data()),
                         (*value)->bytes.size());
}

void GgufWriter::AddTensor(absl::string_view name, TensorType type, absl::Span<const int64_t> shape,
                           absl::Span<const uint8_t> bytes) {
  if (!IsPlainName(name) || name.size() > kMaxTensorNameBytes) {
    Refuse("a GGUF tensor name must be plain ASCII of at most 63 characters", name);
  }
  if (std::any_of(tensors_.begin(), tensors_.end(),
                  [&](const Tensor& tensor) { return tensor.name == name; })) {
    Refuse("a GGUF tensor was added twice", name);
  }
  if (TensorBytes(type, shape) != static_cast<int64_t>(bytes.size())) {
    Refuse("a GGUF tensor's bytes do not match its shape", name);
  }
  tensors_.push_back({std::string(name), type, {shape.begin(), shape.end()}, bytes});
}

std::string GgufWriter::Head() const {
  std::string head = "GGUF";
  Append<uint32_t>(head, kVersion);
  Append<uint64_t>(head, tensors_.size());
  Append<uint64_t>(head, keys_.size());
  head += encoded_values_;
  uint64_t offset = 0;
  for (const Tensor& tensor : tensors_) {
    AppendString(head, tensor.name);
    Append<uint32_t>(head, static_cast<uint32_t>(tensor.shape.size()));
    // Files list the fastest dimension first.
    for (auto it = tensor.shape.rbegin(); it != tensor.shape.rend(); ++it) {
      Append<uint64_t>(head, static_cast<uint64_t>(*it));
    }
    Append<uint32_t>(head, Traits(tensor.type).ggml_id);
    Append<uint64_t>(head, offset);
    offset += Padded(tensor.bytes.size());
  }
  head.resize(Padded(head.size()));
  return head;
}

// The file as it lies in memory already: `head`, then each tensor with its padding.
absl::StatusOr<std::vector<absl::string_view>> GgufWriter::Pieces(std::string& head) const {
  static constexpr char kPadding[kAlignment] = {};
  COTERIE_RETURN_IF_ERROR(status_);
  head = Head();
  std::vector<absl::string_view> pieces = {head};
  for (const Tensor& tensor : tensors_) {
    const size_t n = tensor.bytes.size();
    pieces.emplace_back(reinterpret_cast<const char*>(tensor.bytes.data()), n);
    pieces.emplace_back(kPadding, Padded(n) - n);
  }
  return pieces;
}

absl::StatusOr<std::string> GgufWriter::Serialize() const {
  std::string head;
  COTERIE_ASSIGN_OR_RETURN(const std::vector<absl::string_view> pieces, Pieces(head));
  return absl::StrJoin(pieces, "");
}

absl::Status GgufWriter::Write(absl::string_view path) const {
  std::string head;
  COTERIE_ASSIGN_OR_RETURN(const std::vector<absl::string_view> pieces, Pieces(head));
  return WriteFileAtomically(path, pieces);
}

}  // namespace coterie
