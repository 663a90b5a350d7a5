// The products of training against float64, on every instruction set.

#include <cmath>
#include <cstring>

#include "gtest/gtest.h"

#include "core/kernels/training_kernels.h"
#include "tests/core/kernels/kernel_testing.h"

namespace coterie {
namespace {

using testing::RandomFloats;
using testing::RandomMatrix;

constexpr int64_t kTokenCounts[] = {1, 2, 3, 7, 8, 33, 128};
constexpr int64_t kRows = 166;

uint16_t ToBF16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

float FromBF16(uint16_t value) {
  const uint32_t bits = static_cast<uint32_t>(value) << 16;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}

std::vector<uint16_t> ToBF16(const std::vector<float>& values) {
  std::vector<uint16_t> out;
  for (const float value : values) out.push_back(ToBF16(value));
  return out;
}

std::vector<float> RoundedToBF16(std::vector<float> values) {
  for (float& value : values) value = FromBF16(ToBF16(value));
  return values;
}

int64_t ColumnsFor(TensorType type) {
  return Traits(type).block_values == 256 ? 1536 : Traits(type).block_values == 32 ? 1120 : 1058;
}

struct Shape {
  int64_t n_sums, n_outputs, n_tokens;
};

// y[t, o] = sum_s at(s, o) x[t, s], and the error allowed for it.
template <typename At>
void ExpectProduct(const std::vector<float>& y, const std::vector<float>& x, const Shape& shape,
                   float before, At at) {
  for (int64_t t = 0; t < shape.n_tokens; ++t) {
    for (int64_t o = 0; o < shape.n_outputs; ++o) {
      double sum = before, magnitude = std::fabs(before);
      for (int64_t s = 0; s < shape.n_sums; ++s) {
        const double product = static_cast<double>(at(s, o)) *
                               static_cast<double>(x[static_cast<size_t>(t * shape.n_sums + s)]);
        sum += product;
        magnitude += std::fabs(product);
      }
      ASSERT_NEAR(y[static_cast<size_t>(t * shape.n_outputs + o)], sum, 3e-6 * magnitude + 1e-7)
          << "token " << t << ", output " << o;
    }
  }
}

class TrainingProductTest : public ::testing::TestWithParam<TensorType> {
 protected:
  void SetUp() override {
    w_ = std::make_unique<RandomMatrix>(GetParam(), kRows, ColumnsFor(GetParam()), 1);
    values_ = w_->Dequantized();
    n_cols_ = ColumnsFor(GetParam());
  }

  float At(const std::vector<float>& values, int64_t row, int64_t col) const {
    return values[static_cast<size_t>(row * n_cols_ + col)];
  }

  std::unique_ptr<RandomMatrix> w_;
  std::vector<float> values_;
  int64_t n_cols_ = 0;
  AlignedBuffer scratch_{TrainingScratchBytes()};
};

TEST_P(TrainingProductTest, ForwardIsTheProductWithTheRows) {
  for (const TrainingKernelTable* kernels : RunnableTrainingKernels()) {
    SCOPED_TRACE(kernels->isa);
    for (const int64_t n_tokens : kTokenCounts) {
      const std::vector<float> x = RandomFloats(n_tokens * n_cols_, 2);
      std::vector<float> y(static_cast<size_t>(n_tokens * kRows), 3.0f);
      kernels->forward_f32(w_->view(), 0, kRows, {x.data(), n_tokens, n_cols_},
                           {y.data(), kRows, true}, scratch_.data());
      ExpectProduct(y, x, {n_cols_, kRows, n_tokens}, 3.0f,
                    [&](int64_t s, int64_t o) { return At(values_, o, s); });
      if (kernels->forward_bf16 == nullptr) continue;
      const std::vector<uint16_t> halves = ToBF16(x);
      const std::vector<float> rounded = RoundedToBF16(values_);
      kernels->forward_bf16(w_->view(), 0, kRows, {halves.data(), n_tokens, n_cols_},
                            {y.data(), kRows, false}, scratch_.data());
      ExpectProduct(y, RoundedToBF16(x), {n_cols_, kRows, n_tokens}, 0.0f,
                    [&](int64_t s, int64_t o) { return At(rounded, o, s); });
    }
  }
}

TEST_P(TrainingProductTest, BackwardIsTheProductWithTheColumns) {
  for (const TrainingKernelTable* kernels : RunnableTrainingKernels()) {
    SCOPED_TRACE(kernels->isa);
    for (const int64_t n_tokens : kTokenCounts) {
      const std::vector<float> x = RandomFloats(n_tokens * kRows, 2);
      std::vector<float> y(static_cast<size_t>(n_tokens * n_cols_), 3.0f);
      kernels->backward_f32(w_->view(), 0, n_cols_, {x.data(), n_tokens, kRows},
                            {y.data(), n_cols_, true}, scratch_.data());
      ExpectProduct(y, x, {kRows, n_cols_, n_tokens}, 3.0f,
                    [&](int64_t s, int64_t o) { return At(values_, s, o); });
      if (kernels->backward_bf16 == nullptr) continue;
      const std::vector<uint16_t> halves = ToBF16(x);
      const std::vector<float> rounded = RoundedToBF16(values_);
      kernels->backward_bf16(w_->view(), 0, n_cols_, {halves.data(), n_tokens, kRows},
                             {y.data(), n_cols_, false}, scratch_.data());
      ExpectProduct(y, RoundedToBF16(x), {kRows, n_cols_, n_tokens}, 0.0f,
                    [&](int64_t s, int64_t o) { return At(rounded, s, o); });
    }
  }
}

class QuantizedProductTest : public TrainingProductTest {};

// 8 bits of a value that rounds to nearest, as a share of the largest beside it.
constexpr double kRounding = 1.0 / 254;

TEST_P(QuantizedProductTest, BackwardIn8BitsRoundsWeightsByColumnsOf32Rows) {
  constexpr int64_t kEvenRows = 160;
  for (const TrainingKernelTable* kernels : RunnableTrainingKernels()) {
    SCOPED_TRACE(kernels->isa);
    for (const int64_t n_tokens : kTokenCounts) {
      // Whole numbers of which each block's largest is 127, so that x is exact in 8 bits.
      std::vector<float> x(static_cast<size_t>(n_tokens * kEvenRows));
      for (size_t i = 0; i < x.size(); ++i) {
        x[i] = i % 32 == 0 ? 127.0f : static_cast<float>(static_cast<int>(i * 37 % 201) - 100);
      }
      AlignedBuffer memory(QuantizedActivations::Bytes(n_tokens, kEvenRows));
      const auto quantized = QuantizedActivations::In(memory.data(), n_tokens, kEvenRows);
      Kernels().quantize_activations(x.data(), kEvenRows, quantized);
      MatrixView w = w_->view();
      w.n_rows = kEvenRows;
      std::vector<float> y(static_cast<size_t>(n_tokens * n_cols_), 3.0f);
      kernels->backward_q8(w, 0, n_cols_, quantized, {y.data(), n_cols_, true}, scratch_.data());
      for (int64_t t = 0; t < n_tokens; ++t) {
        for (int64_t c = 0; c < n_cols_; c += 7) {
          double sum = 3, allowed = 1e-4, largest = 0;
          for (int64_t r = 0; r < kEvenRows; ++r) {
            if (r % 32 == 0) {
              largest = 0;
              for (int64_t i = r; i < r + 32; ++i) {
                largest = std::max(largest, std::fabs(static_cast<double>(At(values_, i, c))));
              }
            }
            const double factor = static_cast<double>(x[static_cast<size_t>(t * kEvenRows + r)]);
            sum += static_cast<double>(At(values_, r, c)) * factor;
            allowed += std::fabs(factor) * largest * (kRounding + 1e-5);
          }
          ASSERT_NEAR(y[static_cast<size_t>(t * n_cols_ + c)], sum, allowed) << t << ", " << c;
        }
      }
    }
  }
}

TEST_P(QuantizedProductTest, BackwardIn8BitsDependsNeitherOnTheBatchNorOnTheSplit) {
  constexpr int64_t kTokens = 19, kEvenRows = 160;
  const std::vector<float> x = RandomFloats(kTokens * kEvenRows, 2);
  AlignedBuffer memory(QuantizedActivations::Bytes(kTokens, kEvenRows));
  const auto quantized = QuantizedActivations::In(memory.data(), kTokens, kEvenRows);
  Kernels().quantize_activations(x.data(), kEvenRows, quantized);
  MatrixView w = w_->view();
  w.n_rows = kEvenRows;
  for (const TrainingKernelTable* kernels : RunnableTrainingKernels()) {
    SCOPED_TRACE(kernels->isa);
    std::vector<float> whole(static_cast<size_t>(kTokens * n_cols_)), parts = whole;
    kernels->backward_q8(w, 0, n_cols_, quantized, {whole.data(), n_cols_, false}, scratch_.data());
    for (int64_t t = 0; t < kTokens; t += 3) {
      const int64_t end = std::min(kTokens, t + 3);
      for (int64_t c = 0; c < n_cols_; c += 256) {
        kernels->backward_q8(w, c, std::min(n_cols_, c + 256), quantized.Rows(t, end),
                             {parts.data() + t * n_cols_, n_cols_, false}, scratch_.data());
      }
    }
    EXPECT_TRUE(whole == parts);
  }
}

TEST_P(TrainingProductTest, BitsDependNeitherOnTheBatchNorOnTheSplit) {
  constexpr int64_t kTokens = 33;
  const int64_t split = GetParam() == TensorType::kF32 ? 64 : 256;
  for (const TrainingKernelTable* kernels : RunnableTrainingKernels()) {
    SCOPED_TRACE(kernels->isa);
    const std::vector<float> x = RandomFloats(kTokens * n_cols_, 2);
    const std::vector<float> dy = RandomFloats(kTokens * kRows, 3);
    std::vector<float> whole(static_cast<size_t>(kTokens * kRows)), parts = whole;
    std::vector<float> dx(static_cast<size_t>(kTokens * n_cols_)), dx_parts = dx;
    const auto forward = [&](int64_t begin, int64_t end, int64_t t, int64_t n, float* y) {
      kernels->forward_f32(w_->view(), begin, end, {x.data() + t * n_cols_, n, n_cols_},
                           {y + t * kRows, kRows, false}, scratch_.data());
    };
    const auto backward = [&](int64_t begin, int64_t end, int64_t t, int64_t n, float* y) {
      kernels->backward_f32(w_->view(), begin, end, {dy.data() + t * kRows, n, kRows},
                            {y + t * n_cols_, n_cols_, false}, scratch_.data());
    };
    forward(0, kRows, 0, kTokens, whole.data());
    backward(0, n_cols_, 0, kTokens, dx.data());
    for (int64_t t = 0; t < kTokens; ++t) {
      forward(0, 64, t, 1, parts.data());
      forward(64, kRows, t, 1, parts.data());
      backward(split, n_cols_, t, 1, dx_parts.data());
      backward(0, split, t, 1, dx_parts.data());
    }
    EXPECT_EQ(whole, parts);
    EXPECT_EQ(dx, dx_parts);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, QuantizedProductTest, ::testing::ValuesIn(testing::kQuantizedTypes),
                         [](const auto& info) { return testing::NameOf(info.param); });
INSTANTIATE_TEST_SUITE_P(Types, TrainingProductTest, ::testing::ValuesIn(testing::kAllTypes),
                         [](const auto& info) { return testing::NameOf(info.param); });

}  // namespace
}  // namespace coterie
