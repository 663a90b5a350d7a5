#pragma once

// Reader of GGUF, the one-file model format (ggml-org/ggml:docs/gguf.md, versions 2 and 3).

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "core/formats/mapped_file.h"
#include "core/kernels/tensor_type.h"

namespace coterie {

// A tensor inside a mapped file; valid as long as the file. shape is outermost first, as PyTorch
// prints it: [n_rows, n_cols] for a matrix.
struct TensorRef {
  absl::string_view name;
  TensorType type = TensorType::kF32;
  std::vector<int64_t> shape;
  absl::Span<const uint8_t> bytes;

  // The tensor as a matrix of shape.back() columns; a vector has one row.
  MatrixView matrix() const;
};

// A model file, mapped and validated; a file that llama.cpp's gguf-split cut into parts is opened
// by its first part, NAME-00001-of-00004.gguf, which holds all keys, and reads as one. Const after
// construction, thread-safe. Views returned live as long as the object.
//
// Open checks every length, count, offset, type and shape against the bytes that are there, before
// anything is allocated from them: no input makes it read outside the file, crash, or allocate more
// than a small multiple of the file's size. It does not touch tensor data.
class GgufFile {
 public:
  // Of a split file the other parts must lie beside the first under the same NAME: kNotFound naming
  // the part that is missing, kDataLoss for one that belongs to another file or another place in
  // the order, kInvalidArgument for a part that is not the first.
  static absl::StatusOr<std::unique_ptr<const GgufFile>> Open(absl::string_view path);
  // Parses bytes that outlive the result; `name` stands in error messages. A part of a split file
  // stands for itself.
  static absl::StatusOr<std::unique_ptr<const GgufFile>> Parse(absl::Span<const uint8_t> bytes,
                                                               absl::string_view name);

  const std::string& path() const { return path_; }
  int64_t size() const;  // Of all parts.

  bool Has(absl::string_view key) const;
  std::vector<absl::string_view> Keys() const;  // Sorted.

  // Typed access to a key. kNotFound if it is absent, kDataLoss if it has another type or a value
  // outside the result's range; all messages name file and key. Integers of any width are accepted
  // where an int is asked for, f32 and f64 where a float is.
  absl::StatusOr<absl::string_view> GetString(absl::string_view key) const;
  absl::StatusOr<int64_t> GetInt(absl::string_view key) const;
  absl::StatusOr<double> GetFloat(absl::string_view key) const;
  absl::StatusOr<bool> GetBool(absl::string_view key) const;
  absl::StatusOr<std::vector<absl::string_view>> GetStringArray(absl::string_view key) const;
  absl::StatusOr<std::vector<int64_t>> GetIntArray(absl::string_view key) const;
  absl::StatusOr<std::vector<float>> GetFloatArray(absl::string_view key) const;

  // The same with a value for an absent key; a present key of the wrong type is still an error.
  absl::StatusOr<int64_t> GetInt(absl::string_view key, int64_t fallback) const;
  absl::StatusOr<double> GetFloat(absl::string_view key, double fallback) const;
  absl::StatusOr<bool> GetBool(absl::string_view key, bool fallback) const;
  absl::StatusOr<absl::string_view> GetString(absl::string_view key,
                                              absl::string_view fallback) const;

  // One line for people: "string \"llama\"", "u32 30", "string[49152]".
  std::string Describe(absl::string_view key) const;

  // kNotFound if there is no such tensor.
  absl::StatusOr<TensorRef> Find(absl::string_view name) const;
  bool HasTensor(absl::string_view name) const;
  std::vector<absl::string_view> TensorNames() const;  // In file order.

  // Bytes of all tensors.
  int64_t tensor_bytes() const { return tensor_bytes_; }
  // The mappings behind the file, one a part; none if it was parsed from bytes.
  std::vector<const MappedFile*> mappings() const;

 private:
  friend class GgufParser;
  friend class GgufWriter;  // Copies keys as they are.

  struct Value {
    uint32_t type = 0;  // GGUF value type; for arrays the element type.
    bool is_array = false;
    uint64_t count = 1;               // Elements of an array.
    absl::Span<const uint8_t> bytes;  // Encoded payload, bounds checked.
  };

  GgufFile() = default;
  static absl::StatusOr<std::unique_ptr<GgufFile>> OpenOne(absl::string_view path);
  absl::Status Read(absl::Span<const uint8_t> bytes);  // gguf_file.cc
  absl::Status AddParts();
  absl::Status AddPart(std::unique_ptr<const GgufFile> part, int64_t index, int64_t n_parts);
  absl::StatusOr<const Value*> FindValue(absl::string_view key) const;
  absl::Status WrongType(absl::string_view key, absl::string_view wanted) const;

  std::string path_;
  std::unique_ptr<MappedFile> mapping_;
  absl::Span<const uint8_t> bytes_;
  std::map<absl::string_view, Value> values_;
  std::map<absl::string_view, size_t> tensor_index_;
  std::vector<TensorRef> tensors_;
  int64_t tensor_bytes_ = 0;
  std::vector<std::unique_ptr<const GgufFile>> parts_;  // Those after the first.
};

// The paths of all parts, the first included, of a split file whose first part is at `path`, by its
// name alone; just `path` if that does not end in "-00001-of-NNNNN.gguf".
std::vector<std::string> GgufPartPaths(absl::string_view path);

}  // namespace coterie
