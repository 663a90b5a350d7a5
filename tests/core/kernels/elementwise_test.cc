#include <algorithm>
#include <limits>

#include "gtest/gtest.h"

#include "tests/core/kernels/kernel_testing.h"

namespace coterie {
namespace {

using testing::OnEveryTable;
using testing::RandomFloats;

constexpr int64_t kLengths[] = {1, 7, 8, 15, 16, 17, 64, 100, 256, 576, 640};

void ExpectAllNear(const std::vector<float>& y, const std::vector<double>& expected,
                   double relative, double absolute) {
  ASSERT_EQ(y.size(), expected.size());
  for (size_t i = 0; i < y.size(); ++i) {
    ASSERT_NEAR(y[i], expected[i], relative * std::fabs(expected[i]) + absolute) << "value " << i;
  }
}

// Inputs that sweep the range of an activation function and its far ends.
std::vector<float> Sweep() {
  std::vector<float> x;
  for (float v = -20.0f; v <= 20.0f; v += 0.013f) x.push_back(v);
  for (const float v : {-1000.0f, -88.0f, -87.2f, 87.2f, 88.0f, 1000.0f, 0.0f}) x.push_back(v);
  return x;
}

TEST(RmsNormTest, MatchesFloat64) {
  for (const int64_t n : kLengths) {
    const std::vector<float> x = RandomFloats(n, 1, 4.0f), weight = RandomFloats(n, 2);
    double squares = 0.0;
    for (const float v : x) squares += static_cast<double>(v) * v;
    std::vector<double> expected;
    for (size_t i = 0; i < x.size(); ++i) {
      expected.push_back(x[i] / std::sqrt(squares / static_cast<double>(n) + 1e-5) * weight[i]);
    }
    OnEveryTable([&](const KernelTable& kernels) {
      std::vector<float> y(x.size());
      kernels.rms_norm(x.data(), weight.data(), n, 1e-5f, y.data());
      ExpectAllNear(y, expected, 2e-6, 0.0);
      std::vector<float> in_place = x;
      kernels.rms_norm(in_place.data(), weight.data(), n, 1e-5f, in_place.data());
      EXPECT_EQ(in_place, y);
    });
  }
}

TEST(LayerNormTest, MatchesFloat64) {
  for (const int64_t n : kLengths) {
    const std::vector<float> x = RandomFloats(n, 3, 4.0f), weight = RandomFloats(n, 4);
    const std::vector<float> bias = RandomFloats(n, 5);
    double mean = 0.0, variance = 0.0;
    for (const float v : x) mean += v / static_cast<double>(n);
    for (const float v : x) variance += (v - mean) * (v - mean) / static_cast<double>(n);
    std::vector<double> expected;
    for (size_t i = 0; i < x.size(); ++i) {
      expected.push_back((x[i] - mean) / std::sqrt(variance + 1e-12) * weight[i] + bias[i]);
    }
    OnEveryTable([&](const KernelTable& kernels) {
      std::vector<float> y(x.size());
      kernels.layer_norm(x.data(), weight.data(), bias.data(), n, 1e-12f, y.data());
      if (n > 1) ExpectAllNear(y, expected, 2e-6, 2e-6);
    });
  }
}

TEST(SoftmaxTest, MatchesFloat64) {
  for (const int64_t n : kLengths) {
    std::vector<float> x = RandomFloats(n, 6, 10.0f);
    if (n > 7) x[5] = -std::numeric_limits<float>::infinity();
    const double max = *std::max_element(x.begin(), x.end());
    double sum = 0.0;
    for (const float v : x) sum += std::exp(v - max);
    std::vector<double> expected;
    for (const float v : x) expected.push_back(std::exp(v - max) / sum);
    OnEveryTable([&](const KernelTable& kernels) {
      std::vector<float> y = x;
      kernels.softmax(y.data(), n);
      ExpectAllNear(y, expected, 3e-6, 1e-37);
    });
  }
}

TEST(SiluMulTest, MatchesFloat64OverItsRange) {
  const std::vector<float> gate = Sweep(), up = RandomFloats(static_cast<int64_t>(gate.size()), 7);
  std::vector<double> expected;
  for (size_t i = 0; i < gate.size(); ++i) {
    expected.push_back(gate[i] / (1.0 + std::exp(-static_cast<double>(gate[i]))) * up[i]);
  }
  OnEveryTable([&](const KernelTable& kernels) {
    std::vector<float> y(gate.size());
    kernels.silu_mul(gate.data(), up.data(), static_cast<int64_t>(y.size()), y.data());
    ExpectAllNear(y, expected, 1e-6, 1e-34);
  });
}

TEST(GeluErfTest, MatchesFloat64OverItsRange) {
  const std::vector<float> x = Sweep();
  std::vector<double> expected;
  for (const float v : x) expected.push_back(0.5 * v * (1.0 + std::erf(v / std::sqrt(2.0))));
  OnEveryTable([&](const KernelTable& kernels) {
    std::vector<float> y = x;
    kernels.gelu_erf(y.data(), static_cast<int64_t>(y.size()), y.data());
    ExpectAllNear(y, expected, 1e-6, 2e-6);
  });
}

TEST(GeluTanhMulTest, MatchesFloat64OverItsRange) {
  const std::vector<float> gate = Sweep(), up = RandomFloats(static_cast<int64_t>(gate.size()), 8);
  std::vector<double> expected;
  for (size_t i = 0; i < gate.size(); ++i) {
    const double g = gate[i];
    const double inner = std::sqrt(2.0 / M_PI) * (g + 0.044715 * g * g * g);
    expected.push_back(0.5 * g * (1.0 + std::tanh(inner)) * up[i]);
  }
  OnEveryTable([&](const KernelTable& kernels) {
    std::vector<float> y(gate.size());
    kernels.gelu_tanh_mul(gate.data(), up.data(), static_cast<int64_t>(y.size()), y.data());
    ExpectAllNear(y, expected, 5e-6, 1e-6);
  });
}

TEST(ActivationTest, NanStaysNan) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> x(17, nan), ones(17, 1.0f);
  OnEveryTable([&](const KernelTable& kernels) {
    std::vector<float> y(17);
    kernels.silu_mul(x.data(), ones.data(), 17, y.data());
    for (const float v : y) EXPECT_TRUE(std::isnan(v));
    kernels.gelu_tanh_mul(x.data(), ones.data(), 17, y.data());
    for (const float v : y) EXPECT_TRUE(std::isnan(v));
    kernels.gelu_erf(x.data(), 17, y.data());
    for (const float v : y) EXPECT_TRUE(std::isnan(v));
  });
}

TEST(AddTest, AddsInPlaceAndNoFurther) {
  for (const int64_t n : kLengths) {
    const std::vector<float> x = RandomFloats(n, 9), start = RandomFloats(n + 1, 10);
    OnEveryTable([&](const KernelTable& kernels) {
      std::vector<float> y = start;
      kernels.add(x.data(), n, y.data());
      for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(y[i], start[i] + x[i]);
      EXPECT_EQ(y.back(), start.back());
    });
  }
}

TEST(RopeTest, RotatesAdjacentPairsOrHalves) {
  const int64_t n_pairs = 20, n = 44;  // The last four values are not rotated.
  const std::vector<float> x = RandomFloats(n, 11), angle = RandomFloats(n_pairs, 12, 2.0f);
  std::vector<float> cos, sin;
  for (const float a : angle) cos.push_back(std::cos(a));
  for (const float a : angle) sin.push_back(std::sin(a));
  std::vector<double> adjacent(x.begin(), x.end()), halves(x.begin(), x.end());
  for (size_t i = 0; i < cos.size(); ++i) {
    const size_t far = i + cos.size();
    adjacent[2 * i] = double{x[2 * i]} * cos[i] - double{x[2 * i + 1]} * sin[i];
    adjacent[2 * i + 1] = double{x[2 * i]} * sin[i] + double{x[2 * i + 1]} * cos[i];
    halves[i] = double{x[i]} * cos[i] - double{x[far]} * sin[i];
    halves[far] = double{x[i]} * sin[i] + double{x[far]} * cos[i];
  }
  OnEveryTable([&](const KernelTable& kernels) {
    std::vector<float> y = x;
    kernels.rope_adjacent(y.data(), n_pairs, cos.data(), sin.data());
    ExpectAllNear(y, adjacent, 0.0, 1e-6);
    y = x;
    kernels.rope_halves(y.data(), n_pairs, cos.data(), sin.data());
    ExpectAllNear(y, halves, 0.0, 1e-6);
  });
}

TEST(F32ToF16Test, RoundsToNearestEvenAsHardwareDoes) {
  const float inf = std::numeric_limits<float>::infinity();
  // 2049 and 2051 lie halfway between neighbours; 65520 rounds to infinity, 65519 does not.
  const std::vector<float> x = {0.0f,     -0.0f,    1.0f,      2049.0f,  2051.0f,  65504.0f,
                                65519.0f, 65520.0f, -65520.0f, inf,      -inf,     5.9604645e-8f,
                                2.98e-8f, 2.99e-8f, 6.1e-5f,   6.09e-5f, 1.00049f, -0.3333f};
  const std::vector<uint16_t> expected = {0x0000, 0x8000, 0x3c00, 0x6800, 0x6802, 0x7bff,
                                          0x7bff, 0x7c00, 0xfc00, 0x7c00, 0xfc00, 0x0001,
                                          0x0000, 0x0001, 0x03ff, 0x03fe, 0x3c01, 0xb555};
  OnEveryTable([&](const KernelTable& kernels) {
    std::vector<uint16_t> y(x.size());
    kernels.f32_to_f16(x.data(), static_cast<int64_t>(x.size()), y.data());
    EXPECT_EQ(y, expected);
  });
}

TEST(F32ToF16Test, EveryHalfSurvivesTheWayToFloatAndBack) {
  std::vector<uint16_t> halves;
  for (uint32_t h = 0; h < 0x10000; ++h) {
    if ((h & 0x7c00) != 0x7c00 || (h & 0x3ff) == 0) halves.push_back(static_cast<uint16_t>(h));
  }
  const int64_t n = static_cast<int64_t>(halves.size());
  OnEveryTable([&](const KernelTable& kernels) {
    std::vector<float> values(halves.size());
    std::vector<uint16_t> back(halves.size());
    kernels.dequantize_row(TensorType::kF16, reinterpret_cast<const uint8_t*>(halves.data()), n,
                           values.data());
    kernels.f32_to_f16(values.data(), n, back.data());
    EXPECT_EQ(back, halves);
  });
}

}  // namespace
}  // namespace coterie
