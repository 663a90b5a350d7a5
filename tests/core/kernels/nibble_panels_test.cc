#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

#include "tests/core/kernels/kernel_testing.h"

namespace coterie {
namespace {

using testing::RandomFloats;
using testing::RoundedActivations;

// Rows of 4 bits, and what rounding them measured.
struct RoundedRows {
  RoundedRows(const KernelTable& table, const std::vector<float>& w,
              const std::vector<float>& metric, int64_t rows)
      : kernels(table),
        n_rows(rows),
        n_cols(static_cast<int64_t>(metric.size())),
        memory(NibblePanels::Bytes(n_rows, n_cols)),
        panels{n_rows, n_cols, memory.data()} {
    for (int64_t r = 0; r < n_rows; ++r) {
      roundings.push_back(
          kernels.round_to_nibbles(w.data() + r * n_cols, metric.data(), r, panels));
    }
  }

  std::vector<float> Times(const QuantizedActivations& x, int64_t begin, int64_t end) const {
    std::vector<float> y(static_cast<size_t>(n_rows), -7.0f);
    kernels.multiply_nibbles(panels, begin, end, x, y.data());
    return y;
  }

  // Column by column, by products with unit vectors.
  std::vector<float> Values() const {
    std::vector<float> values(static_cast<size_t>(n_rows * n_cols));
    for (int64_t c = 0; c < n_cols; ++c) {
      std::vector<float> unit(static_cast<size_t>(n_cols));
      unit[static_cast<size_t>(c)] = 127;  // Rounded with a scale of 1.
      const RoundedActivations x(kernels, unit, 1, n_cols);
      const std::vector<float> column = Times(x.view, 0, n_rows);
      for (int64_t r = 0; r < n_rows; ++r) {
        values[static_cast<size_t>(r * n_cols + c)] = column[static_cast<size_t>(r)] / 127;
      }
    }
    return values;
  }

  const KernelTable& kernels;
  int64_t n_rows, n_cols;
  AlignedBuffer memory;
  NibblePanels panels;
  std::vector<RowRounding> roundings;
};

std::vector<float> SomeMetric(int64_t n) {
  std::vector<float> metric = RandomFloats(n, 9);
  for (float& m : metric) m = 0.1f + std::fabs(m);
  return metric;
}

constexpr int64_t kWidths[] = {32, 96, 256, 288, 576, 640};

TEST(NibblePanelsTest, ValuesLieWithinAStepOfWhatTheyWere) {
  for (const KernelTable* kernels : RunnableKernels()) {
    const int64_t n_rows = 21, n_cols = 288;
    const std::vector<float> w = RandomFloats(n_rows * n_cols, 1, 0.05f);
    const RoundedRows rows(*kernels, w, SomeMetric(n_cols), n_rows);
    const std::vector<float> values = rows.Values();
    double error = 0;
    for (size_t begin = 0; begin < w.size(); begin += 32) {
      float largest = 0;
      for (size_t i = begin; i < begin + 32; ++i) largest = std::max(largest, std::fabs(w[i]));
      for (size_t i = begin; i < begin + 32; ++i) {
        ASSERT_LE(std::fabs(values[i] - w[i]), largest / 8 * 1.3f) << kernels->isa << " " << i;
        error += std::fabs(values[i] - w[i]) / largest;
      }
    }
    EXPECT_LT(error / static_cast<double>(w.size()), 1.0 / 30) << "a quarter of a step in the mean";
  }
}

TEST(NibblePanelsTest, WhatRoundingChangedIsMeasuredInTheMetric) {
  for (const KernelTable* kernels : RunnableKernels()) {
    for (const int64_t n_cols : kWidths) {
      const int64_t n_rows = 5;
      const std::vector<float> w = RandomFloats(n_rows * n_cols, 2, 0.05f);
      const std::vector<float> metric = SomeMetric(n_cols);
      const RoundedRows rows(*kernels, w, metric, n_rows);
      const std::vector<float> values = rows.Values();
      for (int64_t r = 0; r < n_rows; ++r) {
        double error = 0, norm = 0;
        for (int64_t c = 0; c < n_cols; ++c) {
          const double m = metric[static_cast<size_t>(c)];
          const double before = w[static_cast<size_t>(r * n_cols + c)];
          error += std::pow(m * (before - values[static_cast<size_t>(r * n_cols + c)]), 2);
          norm += std::pow(m * before, 2);
        }
        const RowRounding& measured = rows.roundings[static_cast<size_t>(r)];
        EXPECT_NEAR(measured.error, std::sqrt(error), 2e-4 * std::sqrt(error)) << kernels->isa;
        EXPECT_NEAR(measured.norm, std::sqrt(norm), 1e-4 * std::sqrt(norm)) << kernels->isa;
      }
    }
  }
}

TEST(NibblePanelsTest, ProductIsThatOfTheRoundedRowsWhereverRowsAndRangesEnd) {
  for (const KernelTable* kernels : RunnableKernels()) {
    for (const int64_t n_cols : kWidths) {
      const int64_t n_rows = 53;
      const RoundedRows rows(*kernels, RandomFloats(n_rows * n_cols, 3), SomeMetric(n_cols),
                             n_rows);
      const std::vector<float> values = rows.Values();
      const RoundedActivations x(*kernels, RandomFloats(n_cols, 4), 1, n_cols);
      const std::vector<float> activations = x.Values();
      const std::vector<float> y = rows.Times(x.view, 0, n_rows);
      for (int64_t r = 0; r < n_rows; ++r) {
        double sum = 0, magnitude = 0;
        for (int64_t c = 0; c < n_cols; ++c) {
          const double product = static_cast<double>(values[static_cast<size_t>(r * n_cols + c)]) *
                                 activations[static_cast<size_t>(c)];
          sum += product;
          magnitude += std::fabs(product);
        }
        ASSERT_NEAR(y[static_cast<size_t>(r)], sum, 3e-6 * magnitude) << kernels->isa << " " << r;
      }
      const std::vector<float> part = rows.Times(x.view, 16, 50);
      for (int64_t r = 0; r < n_rows; ++r) {
        const size_t i = static_cast<size_t>(r);
        ASSERT_EQ(part[i], r >= 16 && r < 50 ? y[i] : -7.0f) << kernels->isa << " " << r;
      }
    }
  }
}

TEST(NibblePanelsTest, ZerosStayZeros) {
  for (const KernelTable* kernels : RunnableKernels()) {
    const std::vector<float> metric(64, 1.0f);
    const RoundedRows rows(*kernels, std::vector<float>(64), metric, 1);
    EXPECT_EQ(rows.roundings[0].error, 0);
    EXPECT_EQ(rows.roundings[0].norm, 0);
    EXPECT_EQ(rows.Values(), std::vector<float>(64));
  }
}

TEST(NibblePanelsTest, RowsThatAreNotFiniteOrTooLargeHaveNoFiniteError) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const KernelTable* kernels : RunnableKernels()) {
    for (const float hostile : {std::nanf(""), kInfinity, -kInfinity, 3e38f}) {
      for (const size_t at : {0u, 17u, 40u, 63u}) {
        std::vector<float> w = RandomFloats(64, 5);
        w[at] = hostile;
        const RoundedRows rows(*kernels, w, std::vector<float>(64, 1.0f), 1);
        EXPECT_FALSE(std::isfinite(rows.roundings[0].error))
            << kernels->isa << ": " << hostile << " at " << at;
      }
    }
  }
}

}  // namespace
}  // namespace coterie
