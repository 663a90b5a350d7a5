#pragma once

// Reader of safetensors, the tensor container of Hugging Face (huggingface/safetensors:README.md).

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "core/formats/mapped_file.h"
#include "core/kernels/tensor_type.h"

namespace coterie {

// Element types that the format defines.
enum class SafetensorsType : uint8_t {
  kBool,
  kF4,
  kF6E2M3,
  kF6E3M2,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kF8E4M3Fnuz,
  kF8E5M2Fnuz,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kC64,
  kF64,
  kI64,
  kU64,
};

// "BF16", as files spell it.
absl::string_view SafetensorsTypeName(SafetensorsType type);
int BitsPerElement(SafetensorsType type);

// The weight type that kernels read, or nullopt for types without kernels.
std::optional<TensorType> TensorTypeOf(SafetensorsType type);

// A tensor inside a file; valid as long as the file. shape is outermost first, as PyTorch prints
// it; empty for a scalar. bytes are little-endian elements, row-major, at no particular alignment.
struct SafetensorsTensor {
  absl::string_view name;
  SafetensorsType type = SafetensorsType::kF32;
  std::vector<int64_t> shape;
  absl::Span<const uint8_t> bytes;

  // Elements of the tensor: 1 for a scalar, 0 if a dimension is 0.
  int64_t n_elements() const;
  // The tensor as a matrix of shape.back() columns; a vector has one row, a scalar one value.
  // kUnimplemented if kernels have no such type or the data is not aligned to its elements, which
  // the format allows.
  absl::StatusOr<MatrixView> matrix() const;
};

// A file, mapped and validated. Const after construction, thread-safe. Views returned live as long
// as the object.
//
// Opening checks everything the header says before it is used: no input makes it read outside the
// file, crash, or allocate more than a small multiple of the header's size. Refused with kDataLoss,
// the file's name and a sentence of its own: a file too short for its header, a header over
// 100,000,000 bytes, text before or after the JSON object, bad UTF-8 or JSON, JSON nested deeper
// than the format is, a name that occurs twice, an entry without dtype, shape or data_offsets or
// with another field, metadata that is not text, a dtype unknown to the format, a dimension, an
// offset or a product beyond 63 bits, a range that does not hold its shape or not a whole number of
// bytes, ranges that overlap or leave holes, and bytes after the last tensor. Tensor data is not
// touched.
class SafetensorsFile {
 public:
  static absl::StatusOr<std::unique_ptr<const SafetensorsFile>> Open(absl::string_view path);
  // Parses bytes that outlive the result; `name` stands in error messages.
  static absl::StatusOr<std::unique_ptr<const SafetensorsFile>> Parse(
      absl::Span<const uint8_t> bytes, absl::string_view name);

  const std::string& path() const { return path_; }
  // The mapping behind the file, or null if it was parsed from bytes.
  const MappedFile* mapping() const { return mapping_.get(); }
  // Bytes of all tensors.
  int64_t tensor_bytes() const { return tensor_bytes_; }

  // kNotFound naming file and tensor if there is no such tensor.
  absl::StatusOr<SafetensorsTensor> Find(absl::string_view name) const;
  bool Has(absl::string_view name) const { return tensors_.count(name) > 0; }
  std::vector<absl::string_view> TensorNames() const;  // In order of their data.

  // The texts under __metadata__.
  const std::map<std::string, std::string, std::less<>>& metadata() const { return metadata_; }

 private:
  // What the header says of a tensor; offsets count from the end of the header.
  struct Entry {
    std::string name;
    SafetensorsType type = SafetensorsType::kF32;
    std::vector<int64_t> shape;
    int64_t begin = 0;
    int64_t end = 0;
  };
  class HeaderReader;

  SafetensorsFile() = default;
  absl::Status Read(absl::Span<const uint8_t> bytes);
  absl::Status CheckLayout(int64_t n_data_bytes) const;
  absl::Status Error(absl::string_view message) const;

  std::string path_;
  std::unique_ptr<MappedFile> mapping_;
  absl::Span<const uint8_t> data_;
  std::vector<Entry> entries_;  // In order of their data.
  std::map<absl::string_view, size_t> tensors_;
  std::map<std::string, std::string, std::less<>> metadata_;
  int64_t tensor_bytes_ = 0;
};

}  // namespace coterie
