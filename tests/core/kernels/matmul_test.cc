#include <cstring>
#include <limits>

#include "gtest/gtest.h"

#include "tests/core/kernels/kernel_testing.h"

namespace coterie {
namespace {

using testing::NameOf;
using testing::RandomFloats;
using testing::RandomMatrix;
using testing::RoundedActivations;

constexpr int64_t kTokenCounts[] = {1, 2, 3, 4, 5, 7, 8, 33, 128};

struct Reference {
  std::vector<double> y;      // [n_tokens, n_rows]
  std::vector<double> scale;  // Sum of |w x| behind each value: what errors are relative to.
};

Reference Multiply(const std::vector<float>& w, const std::vector<float>& x, int64_t n_rows,
                   int64_t n_cols, int64_t n_tokens) {
  Reference out;
  for (int64_t t = 0; t < n_tokens; ++t) {
    for (int64_t r = 0; r < n_rows; ++r) {
      double sum = 0.0, magnitude = 0.0;
      for (int64_t c = 0; c < n_cols; ++c) {
        const double product = static_cast<double>(w[static_cast<size_t>(r * n_cols + c)]) *
                               x[static_cast<size_t>(t * n_cols + c)];
        sum += product;
        magnitude += std::fabs(product);
      }
      out.y.push_back(sum);
      out.scale.push_back(magnitude);
    }
  }
  return out;
}

// As other products leave it.
AlignedBuffer UsedScratch(int64_t n_cols) {
  AlignedBuffer scratch(MatmulScratchBytes(n_cols));
  std::memset(scratch.data(), 0xa5, static_cast<size_t>(scratch.bytes()));
  return scratch;
}

std::vector<float> MultiplyQ8(const KernelTable& kernels, const MatrixView& w, int64_t row_begin,
                              int64_t row_end, const QuantizedActivations& x) {
  std::vector<float> y(static_cast<size_t>(x.n_tokens * w.n_rows), -7.0f);
  AlignedBuffer scratch = UsedScratch(w.n_cols);
  kernels.matmul_q8(w, row_begin, row_end, x, y.data(), w.n_rows, scratch.data());
  return y;
}

std::vector<float> MultiplyF32(const KernelTable& kernels, const MatrixView& w, int64_t row_begin,
                               int64_t row_end, const std::vector<float>& x, int64_t n_tokens) {
  std::vector<float> y(static_cast<size_t>(n_tokens * w.n_rows), -7.0f);
  AlignedBuffer scratch = UsedScratch(w.n_cols);
  kernels.matmul_f32(w, row_begin, row_end, x.data(), n_tokens, w.n_cols, y.data(), w.n_rows,
                     scratch.data());
  return y;
}

// 288: one chunk of 256 and one block of 32.
int64_t ColumnsFor(TensorType type) { return Traits(type).block_values == 256 ? 512 : 288; }

// Rows that end with a chunk, and rows that end within one at every place that their type has.
std::vector<int64_t> AllEndsFor(TensorType type) {
  if (Traits(type).block_values == 256) return {256, 768};
  return {32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448, 480, 512};
}

void ExpectNear(const std::vector<float>& y, const Reference& reference, double relative) {
  ASSERT_EQ(y.size(), reference.y.size());
  for (size_t i = 0; i < y.size(); ++i) {
    ASSERT_NEAR(y[i], reference.y[i], relative * reference.scale[i] + 1e-7) << "value " << i;
  }
}

class MatmulTest : public ::testing::TestWithParam<TensorType> {};

TEST_P(MatmulTest, EightBitProductIsThatOfTheRoundedActivations) {
  const int64_t n_cols = ColumnsFor(GetParam()), n_rows = 37;
  const RandomMatrix w(GetParam(), n_rows, n_cols, 1);
  const std::vector<float> weights = w.Dequantized();
  const std::vector<float> x = RandomFloats(128 * n_cols, 2);
  testing::OnEveryTable([&](const KernelTable& kernels) {
    for (const int64_t n_tokens : kTokenCounts) {
      const RoundedActivations rounded(kernels, x, n_tokens, n_cols);
      const Reference reference = Multiply(weights, rounded.Values(), n_rows, n_cols, n_tokens);
      ExpectNear(MultiplyQ8(kernels, w.view(), 0, n_rows, rounded.view), reference, 3e-6);
    }
  });
}

TEST_P(MatmulTest, EightBitErrorIsWithinHalfAStepOfEveryActivation) {
  const int64_t n_cols = ColumnsFor(GetParam()), n_rows = 16, n_tokens = 3;
  const RandomMatrix w(GetParam(), n_rows, n_cols, 3);
  const std::vector<float> x = RandomFloats(n_tokens * n_cols, 4);
  const std::vector<float> weights = w.Dequantized();
  const Reference exact = Multiply(weights, x, n_rows, n_cols, n_tokens);
  testing::OnEveryTable([&](const KernelTable& kernels) {
    const RoundedActivations rounded(kernels, x, n_tokens, n_cols);
    const std::vector<float> y = MultiplyQ8(kernels, w.view(), 0, n_rows, rounded.view);
    for (size_t i = 0; i < y.size(); ++i) {
      const size_t r = i % n_rows, t = i / n_rows;
      double bound = 1e-5 * exact.scale[i];
      for (size_t c = 0; c < static_cast<size_t>(n_cols); ++c) {
        bound += 0.5001 * rounded.Scale(t, c) * std::fabs(weights[r * n_cols + c]);
      }
      ASSERT_NEAR(y[i], exact.y[i], bound);
    }
  });
}

TEST_P(MatmulTest, AnySplitOfRowsGivesTheSameBits) {
  const int64_t n_cols = ColumnsFor(GetParam()), n_rows = 45;
  const RandomMatrix w(GetParam(), n_rows, n_cols, 5);
  const std::vector<float> x = RandomFloats(9 * n_cols, 6);
  testing::OnEveryTable([&](const KernelTable& kernels) {
    for (const int64_t n_tokens : {1, 3, 7, 9}) {
      const RoundedActivations rounded(kernels, x, n_tokens, n_cols);
      const std::vector<float> whole = MultiplyQ8(kernels, w.view(), 0, n_rows, rounded.view);
      const std::vector<float> whole_f32 = MultiplyF32(kernels, w.view(), 0, n_rows, x, n_tokens);
      for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 1}, {1, 18}, {16, 45}}) {
        const std::vector<float> part = MultiplyQ8(kernels, w.view(), begin, end, rounded.view);
        const std::vector<float> part_f32 = MultiplyF32(kernels, w.view(), begin, end, x, n_tokens);
        for (int64_t i = 0; i < n_tokens * n_rows; ++i) {
          const bool inside = i % n_rows >= begin && i % n_rows < end;
          const size_t at = static_cast<size_t>(i);
          ASSERT_EQ(part[at], inside ? whole[at] : -7.0f) << "8-bit, value " << i;
          ASSERT_EQ(part_f32[at], inside ? whole_f32[at] : -7.0f) << "f32, value " << i;
        }
      }
    }
  });
}

TEST_P(MatmulTest, ListedRowsGiveTheBitsThatTheyGiveAmongTheirNeighbours) {
  const int64_t n_rows = 37;
  for (const int64_t n_cols : AllEndsFor(GetParam())) {
    const RandomMatrix w(GetParam(), n_rows, n_cols, 3);
    for (const KernelTable* kernels : RunnableKernels()) {
      const RoundedActivations x(*kernels, RandomFloats(n_cols, 4), 1, n_cols);
      const std::vector<float> all = MultiplyQ8(*kernels, w.view(), 0, n_rows, x.view);
      AlignedBuffer scratch = UsedScratch(n_cols);
      for (const int64_t n_listed : {0, 1, 7, 8, 9, 20}) {
        std::vector<int32_t> rows;
        for (int64_t i = 0; i < n_listed; ++i) rows.push_back(static_cast<int32_t>(i * 23 % 37));
        std::vector<float> y(static_cast<size_t>(n_listed), -7.0f);
        kernels->matmul_q8_rows(w.view(), rows.data(), n_listed, x.view, y.data(), scratch.data());
        for (size_t i = 0; i < y.size(); ++i) {
          ASSERT_EQ(y[i], all[static_cast<size_t>(rows[i])])
              << kernels->isa << ", columns " << n_cols << ", row " << rows[i];
        }
      }
    }
  }
}

TEST_P(MatmulTest, ATokenAloneGivesTheBitsItGivesInABatch) {
  const int64_t n_cols = ColumnsFor(GetParam()), n_rows = 21, n_tokens = 33;
  const RandomMatrix w(GetParam(), n_rows, n_cols, 7);
  const std::vector<float> x = RandomFloats(n_tokens * n_cols, 8);
  testing::OnEveryTable([&](const KernelTable& kernels) {
    std::vector<float> alone;
    for (int64_t t = 0; t < n_tokens; ++t) {
      const std::vector<float> one_x(x.begin() + t * n_cols, x.begin() + (t + 1) * n_cols);
      const RoundedActivations one(kernels, one_x, 1, n_cols);
      const std::vector<float> y = MultiplyQ8(kernels, w.view(), 0, n_rows, one.view);
      alone.insert(alone.end(), y.begin(), y.end());
    }
    for (const int64_t n : {2, 3, 4, 5, 6, 7, 8, 9, 33}) {
      const RoundedActivations batch(kernels, x, n, n_cols);
      const std::vector<float> y = MultiplyQ8(kernels, w.view(), 0, n_rows, batch.view);
      for (size_t i = 0; i < y.size(); ++i) {
        ASSERT_EQ(y[i], alone[i]) << n << " tokens, value " << i;
      }
    }
  });
}

TEST_P(MatmulTest, RowsMayEndWhereverABlockEnds) {
  const int64_t n_rows = 21, n_tokens = 9;
  for (const int64_t n_cols : AllEndsFor(GetParam())) {
    SCOPED_TRACE(n_cols);
    const RandomMatrix w(GetParam(), n_rows, n_cols, 13);
    const std::vector<float> weights = w.Dequantized();
    const std::vector<float> x = RandomFloats(n_tokens * n_cols, 14);
    testing::OnEveryTable([&](const KernelTable& kernels) {
      const RoundedActivations all(kernels, x, n_tokens, n_cols);
      const Reference reference = Multiply(weights, all.Values(), n_rows, n_cols, n_tokens);
      const std::vector<float> y = MultiplyQ8(kernels, w.view(), 0, n_rows, all.view);
      ExpectNear(y, reference, 3e-6);
      for (const int64_t n : {1, 2, 8}) {
        const RoundedActivations few(kernels, x, n, n_cols);
        const std::vector<float> few_y = MultiplyQ8(kernels, w.view(), 0, n_rows, few.view);
        ASSERT_TRUE(std::equal(few_y.begin(), few_y.end(), y.begin())) << n << " tokens";
      }
    });
  }
}

TEST_P(MatmulTest, AHostileScaleSpoilsItsOwnRowOnly) {
  const int64_t n_cols = ColumnsFor(GetParam()), n_rows = 20;
  RandomMatrix w(GetParam(), n_rows, n_cols, 9);
  const int64_t row_bytes = RowBytes(GetParam(), n_cols);
  const uint16_t bad[] = {0x7c00, 0xfe00};
  for (const int offset : testing::ScaleOffsets(GetParam())) {
    std::memcpy(&w.bytes()[static_cast<size_t>(5 * row_bytes + offset)], &bad[0], 2);
    std::memcpy(&w.bytes()[static_cast<size_t>(11 * row_bytes + offset)], &bad[1], 2);
  }
  const std::vector<float> x = RandomFloats(9 * n_cols, 10);
  testing::OnEveryTable([&](const KernelTable& kernels) {
    for (const int64_t n_tokens : {1, 5, 9}) {
      const RoundedActivations rounded(kernels, x, n_tokens, n_cols);
      const std::vector<float> y = MultiplyQ8(kernels, w.view(), 0, n_rows, rounded.view);
      for (size_t i = 0; i < y.size(); ++i) {
        const size_t r = i % static_cast<size_t>(n_rows);
        EXPECT_EQ(std::isfinite(y[i]), r != 5 && r != 11) << "value " << i;
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(QuantizedTypes, MatmulTest, ::testing::ValuesIn(testing::kQuantizedTypes),
                         [](const auto& info) { return NameOf(info.param); });

class MatmulF32Test : public ::testing::TestWithParam<TensorType> {};

TEST_P(MatmulF32Test, IsTheProductOfTheDequantisedWeights) {
  const int64_t n_rows = 37;
  for (const int64_t n_cols : {ColumnsFor(GetParam()), int64_t{768}}) {
    const RandomMatrix w(GetParam(), n_rows, n_cols, 11);
    const std::vector<float> weights = w.Dequantized();
    const std::vector<float> x = RandomFloats(128 * n_cols, 12);
    const Reference reference = Multiply(weights, x, n_rows, n_cols, 128);
    testing::OnEveryTable([&](const KernelTable& kernels) {
      for (const int64_t n_tokens : kTokenCounts) {
        Reference part = reference;
        part.y.resize(static_cast<size_t>(n_tokens * n_rows));
        part.scale.resize(part.y.size());
        ExpectNear(MultiplyF32(kernels, w.view(), 0, n_rows, x, n_tokens), part, 3e-6);
      }
    });
  }
}

TEST_P(MatmulF32Test, ATokenAloneGivesTheBitsItGivesInABatchOfAnySize) {
  const int64_t n_cols = ColumnsFor(GetParam()), n_rows = 21;
  const RandomMatrix w(GetParam(), n_rows, n_cols, 7);
  const std::vector<float> x = RandomFloats(128 * n_cols, 8);
  testing::OnEveryTable([&](const KernelTable& kernels) {
    std::vector<float> alone;
    for (int64_t t = 0; t < 128; ++t) {
      const std::vector<float> one(x.begin() + t * n_cols, x.begin() + (t + 1) * n_cols);
      const std::vector<float> y = MultiplyF32(kernels, w.view(), 0, n_rows, one, 1);
      alone.insert(alone.end(), y.begin(), y.end());
    }
    for (const int64_t n_tokens : kTokenCounts) {
      const std::vector<float> batch = MultiplyF32(kernels, w.view(), 0, n_rows, x, n_tokens);
      for (size_t i = 0; i < batch.size(); ++i) {
        ASSERT_EQ(batch[i], alone[i]) << n_tokens << " tokens, value " << i;
      }
    }
  });
}

// Infinity and NaN where a row keeps its scales, or among its values where it has none.
TEST_P(MatmulF32Test, AHostileValueSpoilsItsOwnRowOnly) {
  const int64_t n_cols = ColumnsFor(GetParam()), n_rows = 20;
  RandomMatrix w(GetParam(), n_rows, n_cols, 9);
  const int64_t row_bytes = RowBytes(GetParam(), n_cols);
  std::vector<int> offsets = testing::ScaleOffsets(GetParam());
  if (offsets.empty()) offsets = {0};
  for (const int offset : offsets) {
    // An exponent of all ones in f16, bf16 and, over the other two bytes, in f32.
    for (const int64_t row : {5, 11}) {
      const uint16_t bad = row == 5 ? 0x7f80 : 0xffff;
      const int high = GetParam() == TensorType::kF32 ? 2 : 0;
      std::memcpy(&w.bytes()[static_cast<size_t>(row * row_bytes + offset + high)], &bad, 2);
    }
  }
  const std::vector<float> x = RandomFloats(9 * n_cols, 10);
  testing::OnEveryTable([&](const KernelTable& kernels) {
    for (const int64_t n_tokens : {1, 9}) {
      const std::vector<float> y = MultiplyF32(kernels, w.view(), 0, n_rows, x, n_tokens);
      for (size_t i = 0; i < y.size(); ++i) {
        const size_t r = i % static_cast<size_t>(n_rows);
        EXPECT_EQ(std::isfinite(y[i]), r != 5 && r != 11) << "value " << i;
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(AllTypes, MatmulF32Test, ::testing::ValuesIn(testing::kAllTypes),
                         [](const auto& info) { return NameOf(info.param); });

TEST(MatmulF32ShapeTest, ColumnsNeedNotBeAMultipleOfAnyVector) {
  for (const int64_t n_cols : {1, 7, 19, 515}) {
    const RandomMatrix w(TensorType::kF32, 3, n_cols, 13);
    const std::vector<float> x = RandomFloats(2 * n_cols, 14);
    const Reference reference = Multiply(w.Dequantized(), x, 3, n_cols, 2);
    testing::OnEveryTable([&](const KernelTable& kernels) {
      ExpectNear(MultiplyF32(kernels, w.view(), 0, 3, x, 2), reference, 3e-6);
    });
  }
}

TEST(QuantizeActivationsTest, RoundsToTheNearestOf255Steps) {
  const int64_t n_cols = 96, n_tokens = 3;
  const std::vector<float> x = RandomFloats(n_tokens * n_cols, 15, 3.0f);
  testing::OnEveryTable([&](const KernelTable& kernels) {
    const RoundedActivations rounded(kernels, x, n_tokens, n_cols);
    const std::vector<float> values = rounded.Values();
    for (int64_t t = 0; t < n_tokens; ++t) {
      for (int64_t c = 0; c < n_cols; ++c) {
        const size_t i = static_cast<size_t>(t * n_cols + c);
        EXPECT_NEAR(values[i], x[i], 0.5001f * rounded.Scale(t, c));
        EXPECT_NE(rounded.Rounded(t, c), -128);
      }
      for (int64_t block = 0; block < n_cols / 32; ++block) {
        const auto sum = [&](int64_t n) {
          float total = 0;
          for (int64_t c = 32 * block; c < 32 * block + n; ++c) total += rounded.Rounded(t, c);
          return total;
        };
        const ActivationBlock& at = rounded.Block(t, 32 * block);
        EXPECT_EQ(at.offset, -sum(32));
        EXPECT_EQ(at.first_offset, -sum(16));
        EXPECT_EQ(at.sum, at.scale * sum(32));
      }
    }
  });
}

TEST(QuantizeActivationsTest, NonFiniteAndTinyInputGivesFiniteValues) {
  std::vector<float> x = RandomFloats(96, 16);
  x[3] = std::numeric_limits<float>::infinity();
  x[40] = std::numeric_limits<float>::quiet_NaN();
  for (size_t i = 64; i < 96; ++i) x[i] = 1e-39f;
  testing::OnEveryTable([&](const KernelTable& kernels) {
    const RoundedActivations rounded(kernels, x, 1, 96);
    for (const float v : rounded.Values()) EXPECT_TRUE(std::isfinite(v));
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(std::isfinite(rounded.Block(0, 32 * i).sum));
  });
}

TEST(QuantizeActivationsTest, BlocksLieLaneAfterLaneThatOfAPartialChunkFirst) {
  const auto order_of = [](int64_t n_cols) {
    const QuantizedActivations view = QuantizedActivations::In(nullptr, 1, n_cols);
    std::vector<int64_t> order;
    for (int64_t place = 0; place < view.n_blocks(); ++place) {
      order.push_back(view.BlockAt(place));
      EXPECT_EQ(view.PlaceOf(order.back()), place);
    }
    return order;
  };
  EXPECT_EQ(order_of(64), (std::vector<int64_t>{0, 1}));
  EXPECT_EQ(order_of(512),
            (std::vector<int64_t>{0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15}));
  EXPECT_EQ(order_of(576),
            (std::vector<int64_t>{16, 0, 8, 17, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15}));
}

TEST(QuantizeActivationsTest, RoundedRowsMayLieAmongWhatElseIsThere) {
  const int64_t n_tokens = 3, n_cols = 288;
  const std::vector<float> x = RandomFloats(n_tokens * n_cols, 19);
  testing::OnEveryTable([&](const KernelTable& kernels) {
    const RoundedActivations apart(kernels, x, n_tokens, n_cols);
    AlignedBuffer memory(n_tokens * n_cols * 4);
    const auto among = QuantizedActivations::In(memory.data(), n_tokens, n_cols, 4 * n_cols);
    for (int64_t t = 0; t < n_tokens; ++t) {
      std::memcpy(among.At(t, 0), apart.view.At(t, 0),
                  static_cast<size_t>(QuantizedActivations::RowBytes(n_cols)));
    }
    const RandomMatrix w(TensorType::kQ8_0, 33, n_cols, 20);
    EXPECT_EQ(MultiplyQ8(kernels, w.view(), 0, 33, among),
              MultiplyQ8(kernels, w.view(), 0, 33, apart.view));
  });
}

TEST(QuantizeActivationsTest, RowsMayBeStridedApart) {
  const std::vector<float> x = RandomFloats(2 * 100, 17);
  const std::vector<float> first(x.begin(), x.begin() + 64),
      second(x.begin() + 100, x.begin() + 164);
  testing::OnEveryTable([&](const KernelTable& kernels) {
    RoundedActivations both(kernels, RandomFloats(128, 18), 2, 64);
    kernels.quantize_activations(x.data(), 100, both.view);
    const RoundedActivations a(kernels, first, 1, 64), b(kernels, second, 1, 64);
    std::vector<float> expected = a.Values();
    const std::vector<float> more = b.Values();
    expected.insert(expected.end(), more.begin(), more.end());
    EXPECT_EQ(both.Values(), expected);
  });
}

}  // namespace
}  // namespace coterie
