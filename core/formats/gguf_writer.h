#pragma once

// Writer of GGUF version 3 (ggml-org/ggml:docs/gguf.md): what GgufFile reads back.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "core/formats/gguf_file.h"
#include "core/kernels/tensor_type.h"

namespace coterie {

// Collects keys and tensors of one file and writes them in the order they were given.
// Thread-compatible. Mistakes of the caller (a key or a tensor named twice, names that GGUF does
// not allow, bytes that do not match a shape) come back as kInvalidArgument from Serialize and
// Write, so that the setters can be chained without checks.
class GgufWriter {
 public:
  void SetString(absl::string_view key, absl::string_view value);
  void SetInt(absl::string_view key, int64_t value);   // i64
  void SetFloat(absl::string_view key, double value);  // f64
  // f32, for keys of which other readers take no other type.
  void SetFloat32(absl::string_view key, float value);
  void SetBool(absl::string_view key, bool value);
  void SetStringArray(absl::string_view key, absl::Span<const std::string> values);
  void SetIntArray(absl::string_view key, absl::Span<const int64_t> values);  // i64
  void SetFloatArray(absl::string_view key, absl::Span<const float> values);  // f32

  // A key of another file with its type and value; kInvalidArgument if the file has no such key.
  void CopyKey(const GgufFile& file, absl::string_view key);

  // shape is outermost first, as TensorRef has it. `bytes` are not copied: they must live until the
  // file has been written.
  void AddTensor(absl::string_view name, TensorType type, absl::Span<const int64_t> shape,
                 absl::Span<const uint8_t> bytes);

  // The whole file in memory.
  absl::StatusOr<std::string> Serialize() const;

  // WriteFileAtomically and its errors.
  absl::Status Write(absl::string_view path) const;

 private:
  struct Tensor {
    std::string name;
    TensorType type;
    std::vector<int64_t> shape;
    absl::Span<const uint8_t> bytes;
  };

  void BeginValue(absl::string_view key, uint32_t type);
  void BeginArray(absl::string_view key, uint32_t type, size_t count);
  void Refuse(absl::string_view what, absl::string_view name);
  absl::StatusOr<std::vector<absl::string_view>> Pieces(std::string& head) const;
  std::string Head() const;  // Everything before the tensor data, padded to its alignment.

  std::vector<std::string> keys_;
  std::string encoded_values_;
  std::vector<Tensor> tensors_;
  absl::Status status_;  // The first mistake.
};

}  // namespace coterie
