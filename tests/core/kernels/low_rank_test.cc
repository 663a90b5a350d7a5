// Both halves of a low-rank product y += scale * B (A x), on every instruction set.

#include <algorithm>
#include <cmath>

#include "gtest/gtest.h"

#include "tests/core/kernels/kernel_testing.h"

namespace coterie {
namespace {

using testing::OnEveryTable;
using testing::RandomFloats;
using testing::RandomMatrix;

struct Shape {
  int64_t rank;
  int64_t n;  // Columns of A, or rows of B.
};
constexpr Shape kShapes[] = {{1, 1}, {1, 33}, {3, 17}, {4, 64}, {8, 100}, {8, 576}, {13, 896}};

std::vector<double> ReferenceNarrow(const RandomMatrix& a, const std::vector<float>& x,
                                    int64_t n_tokens, float scale, std::vector<double>& bounds) {
  const std::vector<float> values = a.Dequantized();
  const size_t n_cols = static_cast<size_t>(a.view().n_cols);
  const size_t rank = static_cast<size_t>(a.view().n_rows);
  std::vector<double> u;
  for (size_t t = 0; t < static_cast<size_t>(n_tokens); ++t) {
    for (size_t r = 0; r < rank; ++r) {
      double sum = 0, magnitude = 0;
      for (size_t c = 0; c < n_cols; ++c) {
        const double term = static_cast<double>(values[r * n_cols + c]) * x[t * n_cols + c];
        sum += term;
        magnitude += std::fabs(term);
      }
      u.push_back(scale * sum);
      bounds.push_back(3e-6 * scale * magnitude + 1e-30);
    }
  }
  return u;
}

TEST(LowRankNarrowTest, MatchesFloat64) {
  for (const Shape& shape : kShapes) {
    constexpr int64_t kTokens = 7;
    const RandomMatrix a(TensorType::kF16, shape.rank, shape.n, 1);
    const std::vector<float> x = RandomFloats(kTokens * shape.n, 2);
    std::vector<double> bounds;
    const std::vector<double> expected = ReferenceNarrow(a, x, kTokens, 2.5f, bounds);
    OnEveryTable([&](const KernelTable& kernels) {
      std::vector<float> u(expected.size());
      kernels.low_rank_narrow(a.view(), x.data(), kTokens, shape.n, 2.5f, u.data(), shape.rank);
      for (size_t i = 0; i < u.size(); ++i) ASSERT_NEAR(u[i], expected[i], bounds[i]) << i;
    });
  }
}

TEST(LowRankWidenTest, AddsWhatFloat64Adds) {
  for (const Shape& shape : kShapes) {
    constexpr int64_t kTokens = 7;
    const RandomMatrix b(TensorType::kF16, shape.rank, shape.n, 3);
    const std::vector<float> values = b.Dequantized();
    const std::vector<float> u = RandomFloats(kTokens * shape.rank, 4);
    const std::vector<float> before = RandomFloats(kTokens * shape.n, 5);
    OnEveryTable([&](const KernelTable& kernels) {
      std::vector<float> y = before;
      kernels.low_rank_widen(b.view(), 0, shape.n, u.data(), kTokens, shape.rank, y.data(),
                             shape.n);
      for (int64_t i = 0; i < kTokens * shape.n; ++i) {
        const size_t at = static_cast<size_t>(i);
        double sum = before[at], magnitude = std::fabs(before[at]);
        for (int64_t k = 0; k < shape.rank; ++k) {
          const double term =
              static_cast<double>(values[static_cast<size_t>(k * shape.n + i % shape.n)]) *
              u[static_cast<size_t>(i / shape.n * shape.rank + k)];
          sum += term;
          magnitude += std::fabs(term);
        }
        ASSERT_NEAR(y[at], sum, 1e-6 * magnitude + 1e-30) << "value " << i;
      }
    });
  }
}

TEST(LowRankTest, ATokenGivesTheSameBitsInAnyBatchAndSplitOfTheRows) {
  constexpr int64_t kTokens = 11, kRank = 9, kIn = 83, kOut = 150, kStride = 12;
  const RandomMatrix a(TensorType::kF16, kRank, kIn, 6);
  const RandomMatrix b(TensorType::kF16, kRank, kOut, 7);
  const std::vector<float> x = RandomFloats(kTokens * kIn, 8);
  const std::vector<float> before = RandomFloats(kTokens * kOut, 9);
  OnEveryTable([&](const KernelTable& kernels) {
    std::vector<float> u(kTokens * kStride), y = before;
    kernels.low_rank_narrow(a.view(), x.data(), kTokens, kIn, 0.5f, u.data(), kStride);
    kernels.low_rank_widen(b.view(), 0, kOut, u.data(), kTokens, kStride, y.data(), kOut);
    std::vector<float> one_u(kTokens * kStride), one_y = before;
    for (int64_t t = 0; t < kTokens; ++t) {
      float* row = one_u.data() + t * kStride;
      kernels.low_rank_narrow(a.view(), x.data() + t * kIn, 1, kIn, 0.5f, row, kStride);
      for (int64_t begin = 0; begin < kOut; begin += 16) {
        kernels.low_rank_widen(b.view(), begin, std::min(kOut, begin + 16), row, 1, kStride,
                               one_y.data() + t * kOut, kOut);
      }
    }
    EXPECT_EQ(one_u, u);
    EXPECT_EQ(one_y, y);
  });
}

TEST(LowRankWidenTest, WritesOnlyTheRowsOfItsRange) {
  const RandomMatrix b(TensorType::kF16, 4, 40, 10);
  const std::vector<float> u = RandomFloats(4, 11);
  OnEveryTable([&](const KernelTable& kernels) {
    std::vector<float> y(40, 1.0f);
    kernels.low_rank_widen(b.view(), 16, 35, u.data(), 1, 4, y.data(), 40);
    for (size_t i = 0; i < y.size(); ++i) {
      if (i < 16 || i >= 35) {
        EXPECT_EQ(y[i], 1.0f) << i;
      } else {
        EXPECT_NE(y[i], 1.0f) << i;
      }
    }
  });
}

}  // namespace
}  // namespace coterie
