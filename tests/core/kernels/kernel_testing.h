#pragma once

// Random weights and activations, and plain float64 references, for the kernel tests.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "core/kernels/kernels.h"
#include "core/memory/aligned_buffer.h"

namespace coterie::testing {

inline const TensorType kQuantizedTypes[] = {
    TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kQ5_0, TensorType::kQ5_1,
    TensorType::kQ8_0, TensorType::kQ4_K, TensorType::kQ5_K, TensorType::kQ6_K};
inline const TensorType kAllTypes[] = {TensorType::kF32,  TensorType::kF16,  TensorType::kBF16,
                                       TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kQ5_0,
                                       TensorType::kQ5_1, TensorType::kQ8_0, TensorType::kQ4_K,
                                       TensorType::kQ5_K, TensorType::kQ6_K};

inline std::string NameOf(TensorType type) { return std::string(Traits(type).name); }

inline std::vector<float> RandomFloats(int64_t n, uint32_t seed, float spread = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = normal(random);
  return values;
}

inline std::vector<uint16_t> ToF16(const std::vector<float>& values) {
  std::vector<uint16_t> halves(values.size());
  RunnableKernels()[0]->f32_to_f16(values.data(), static_cast<int64_t>(values.size()),
                                   halves.data());
  return halves;
}

inline std::vector<float> FromF16(const std::vector<uint16_t>& halves) {
  std::vector<float> values(halves.size());
  RunnableKernels()[0]->dequantize_row(TensorType::kF16,
                                       reinterpret_cast<const uint8_t*>(halves.data()),
                                       static_cast<int64_t>(halves.size()), values.data());
  return values;
}

// Where a block keeps its f16 scales.
inline std::vector<int> ScaleOffsets(TensorType type) {
  switch (type) {
    case TensorType::kQ4_1:
    case TensorType::kQ5_1:
    case TensorType::kQ4_K:
    case TensorType::kQ5_K:
      return {0, 2};
    case TensorType::kQ6_K:
      return {208};
    case TensorType::kQ4_0:
    case TensorType::kQ5_0:
    case TensorType::kQ8_0:
      return {0};
    default:
      return {};
  }
}

// A random weight matrix with scales near 0.01. The bytes end at the end of their allocation, so
// that a sanitizer sees a kernel read past the last row.
class RandomMatrix {
 public:
  RandomMatrix(TensorType type, int64_t n_rows, int64_t n_cols, uint32_t seed) {
    const std::vector<float> values = RandomFloats(n_rows * n_cols, seed, 0.05f);
    bytes_.resize(static_cast<size_t>(n_rows * RowBytes(type, n_cols)));
    std::mt19937 random(seed);
    for (uint8_t& b : bytes_) b = static_cast<uint8_t>(random());
    if (type == TensorType::kF32) std::memcpy(bytes_.data(), values.data(), bytes_.size());
    if (type == TensorType::kF16) std::memcpy(bytes_.data(), ToF16(values).data(), bytes_.size());
    if (type == TensorType::kBF16) {
      for (size_t i = 0; i < values.size(); ++i) {
        std::memcpy(&bytes_[2 * i], reinterpret_cast<const uint8_t*>(&values[i]) + 2, 2);
      }
    }
    const std::vector<int> offsets = ScaleOffsets(type);
    const size_t block = static_cast<size_t>(Traits(type).block_bytes);
    for (size_t at = 0; !offsets.empty() && at < bytes_.size(); at += block) {
      for (const int offset : offsets) {
        const uint16_t scale = static_cast<uint16_t>(0x2000 | (random() & 0x83ff));
        std::memcpy(&bytes_[at + static_cast<size_t>(offset)], &scale, 2);
      }
    }
    view_ = {type, n_rows, n_cols, bytes_.data()};
  }
  RandomMatrix(const RandomMatrix&) = delete;
  RandomMatrix& operator=(const RandomMatrix&) = delete;

  const MatrixView& view() const { return view_; }
  std::vector<uint8_t>& bytes() { return bytes_; }

  std::vector<float> Dequantized() const {
    std::vector<float> values(static_cast<size_t>(view_.n_rows * view_.n_cols));
    for (int64_t r = 0; r < view_.n_rows; ++r) {
      RunnableKernels()[0]->dequantize_row(view_.type, view_.row(r), view_.n_cols,
                                           values.data() + r * view_.n_cols);
    }
    return values;
  }

 private:
  std::vector<uint8_t> bytes_;
  MatrixView view_;
};

// Activations rounded by one table, with the memory behind them.
struct RoundedActivations {
  RoundedActivations(const KernelTable& kernels, const std::vector<float>& x, int64_t n_tokens,
                     int64_t n_cols)
      : memory(QuantizedActivations::Bytes(n_tokens, n_cols)),
        view(QuantizedActivations::In(memory.data(), n_tokens, n_cols)) {
    kernels.quantize_activations(x.data(), n_cols, view);
  }

  std::vector<float> Values() const {
    std::vector<float> values(static_cast<size_t>(view.n_tokens * view.n_cols));
    for (int64_t t = 0; t < view.n_tokens; ++t) {
      for (int64_t c = 0; c < view.n_cols; ++c) {
        values[static_cast<size_t>(t * view.n_cols + c)] = Scale(t, c) * Rounded(t, c);
      }
    }
    return values;
  }
  const ActivationBlock& Block(int64_t token, int64_t col) const {
    return *view.At(token, view.PlaceOf(col / kActivationBlock));
  }
  float Scale(int64_t token, int64_t col) const { return Block(token, col).scale; }
  float Rounded(int64_t token, int64_t col) const {
    return Block(token, col).values[col % kActivationBlock];
  }

  AlignedBuffer memory;
  QuantizedActivations view;
};

// Runs `body` once for each table this CPU can run, naming it in failures.
template <typename Body>
void OnEveryTable(Body body) {
  for (const KernelTable* kernels : RunnableKernels()) {
    SCOPED_TRACE(std::string(kernels->isa));
    body(*kernels);
  }
}

}  // namespace coterie::testing
