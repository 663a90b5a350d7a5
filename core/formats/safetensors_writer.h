#pragma once

// Writer of safetensors: what SafetensorsFile and Hugging Face's own reader take.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "core/formats/safetensors_file.h"

namespace coterie {

// Collects tensors and texts of one file and writes them; equal contents give equal bytes.
// Thread-compatible. Mistakes of the caller (a name given twice, bytes that do not match a shape)
// come back as kInvalidArgument from Serialize and Write.
class SafetensorsWriter {
 public:
  // A text under __metadata__; PyTorch's readers want {"format": "pt"}.
  void SetMetadata(absl::string_view name, absl::string_view text);

  // shape is outermost first. `bytes`, little-endian elements, are not copied: they must live until
  // the file has been written.
  void AddTensor(absl::string_view name, SafetensorsType type, absl::Span<const int64_t> shape,
                 absl::Span<const uint8_t> bytes);

  // The whole file in memory.
  absl::StatusOr<std::string> Serialize() const;

  // WriteFileAtomically and its errors.
  absl::Status Write(absl::string_view path) const;

 private:
  struct Tensor {
    std::string name;
    SafetensorsType type;
    std::vector<int64_t> shape;
    absl::Span<const uint8_t> bytes;
  };

  std::map<std::string, std::string> metadata_;
  std::vector<Tensor> tensors_;
  absl::Status status_;  // The first mistake.
};

}  // namespace coterie
