#pragma once

#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"

namespace coterie {

// How the values of a weight tensor are stored. The names are those of GGUF; block layouts are in
// core/kernels/block_readers_scalar.inl.
enum class TensorType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ4_K,
  kQ5_K,
  kQ6_K,
};
inline constexpr int kTensorTypeCount = 11;

struct TensorTypeTraits {
  absl::string_view name;  // "Q4_K"
  uint32_t ggml_id;        // The id that GGUF files carry.
  int block_values;        // Values per block; a row is a whole number of blocks.
  int block_bytes;
};

const TensorTypeTraits& Traits(TensorType type);

// The type of a GGUF id, or nullopt where this library has no kernels for it.
std::optional<TensorType> TensorTypeFromGgmlId(uint32_t ggml_id);

// Name of any type id GGUF has ever defined, "type 99" otherwise: for error messages.
absl::string_view GgmlTypeName(uint32_t ggml_id);

// Bytes of a row of n_values. Requires n_values % block_values == 0.
inline int64_t RowBytes(TensorType type, int64_t n_values) {
  const TensorTypeTraits& traits = Traits(type);
  return n_values / traits.block_values * traits.block_bytes;
}

// A weight matrix [n_rows, n_cols] as it lies in the file: rows contiguous, values along a row
// blocked by type. n_rows are output features, n_cols input features.
struct MatrixView {
  TensorType type = TensorType::kF32;
  int64_t n_rows = 0;
  int64_t n_cols = 0;
  const uint8_t* data = nullptr;

  const uint8_t* row(int64_t r) const { return data + r * RowBytes(type, n_cols); }
};

}  // namespace coterie
