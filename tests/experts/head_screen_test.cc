// What is screened out could not have been among the best, and what is left has its own bits.

#include "experts/head_screen.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "core/threads/worker_pool.h"
#include "tests/core/kernels/kernel_testing.h"

namespace coterie {
namespace {

using ::testing::Each;
using testing::RandomFloats;
using testing::RandomMatrix;
using testing::RoundedActivations;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kRows = 5000;

class HeadScreenTest : public ::testing::TestWithParam<TensorType> {
 protected:
  static int64_t Columns() { return Traits(GetParam()).block_values == 256 ? 256 : 288; }

  HeadScreenTest() : head_(GetParam(), kRows, Columns(), 1) {}

  const MatrixView& head() const { return head_.view(); }

  // A hidden state that points to one row, with noise: that row's logit stands out.
  std::vector<float> Towards(int64_t row, float noise, uint32_t seed) const {
    const int64_t n_cols = head().n_cols;
    std::vector<float> x = RandomFloats(n_cols, seed, noise);
    std::vector<float> w(static_cast<size_t>(n_cols));
    Kernels().dequantize_row(head().type, head().row(row), n_cols, w.data());
    double squares = 0;
    for (const float v : w) squares += static_cast<double>(v) * v;
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] += w[i] * std::sqrt(static_cast<float>(static_cast<double>(n_cols) / squares));
    }
    x[3] *= 8;  // As some columns of hidden states are.
    return x;
  }

  HeadScreen ReadyScreen() {
    HeadScreen screen(head());
    for (uint32_t step = 0; !screen.is_ready(); ++step) {
      EXPECT_LT(step, 200u) << "it is ready some day";
      screen.Advance(head(), Towards(step, 0.3f, step).data(), pool_, areas());
    }
    return screen;
  }

  WorkerAreas areas() { return {scratch_.data(), kAreaBytes}; }

  std::vector<float> AllLogits(const RoundedActivations& x) {
    std::vector<float> logits(kRows);
    Kernels().matmul_q8(head(), 0, kRows, x.view, logits.data(), kRows, scratch_.data());
    return logits;
  }

  // How many logits are left. Checks them.
  int64_t Screened(HeadScreen& screen, LogitNeed need, const std::vector<float>& x_values) {
    const RoundedActivations x(Kernels(), x_values, 1, head().n_cols);
    const std::vector<float> all = AllLogits(x);
    std::vector<float> logits(kRows, std::nanf(""));
    if (!screen.Screen(head(), need, x.view, pool_, areas(), logits.data())) return -1;
    int64_t n_left = 0;
    std::vector<float> wanted(all.begin(), all.begin() + need.n_tokens);
    std::nth_element(wanted.begin(), wanted.begin() + need.n_best - 1, wanted.end(),
                     std::greater<float>());
    const float last = wanted[static_cast<size_t>(need.n_best - 1)];
    for (size_t i = 0; i < logits.size(); ++i) {
      if (logits[i] == -kInfinity) {
        if (i < static_cast<size_t>(need.n_tokens)) {
          EXPECT_LT(all[i], last) << "row " << i << " is among the best " << need.n_best;
        }
        continue;
      }
      EXPECT_EQ(logits[i], all[i]) << "row " << i;
      ++n_left;
    }
    return n_left;
  }

  static constexpr int64_t kAreaBytes = 1 << 18;
  RandomMatrix head_;
  WorkerPool pool_{2};
  AlignedBuffer scratch_{2 * kAreaBytes};
};

TEST_P(HeadScreenTest, LeavesTheBestWithTheirOwnBitsAndFewOthers) {
  HeadScreen screen = ReadyScreen();
  for (const int64_t n_best : {1, 3, 10}) {
    for (uint32_t seed = 0; seed < 10; ++seed) {
      const int64_t n_left =
          Screened(screen, {n_best, kRows}, Towards(100 * seed + 7, 0.2f, 50 + seed));
      EXPECT_GE(n_left, n_best);
      EXPECT_LT(n_left, n_best == 1 ? 20 : kRows / 8);
    }
  }
}

TEST_P(HeadScreenTest, RowsWithoutATokenAreNeitherCountedNorLeft) {
  HeadScreen screen = ReadyScreen();
  for (const int64_t n_tokens : {int64_t{100}, int64_t{4000}, kRows - 1}) {
    const RoundedActivations x(Kernels(), Towards(kRows - 1, 0.2f, 3), 1, head().n_cols);
    const std::vector<float> all = AllLogits(x);
    std::vector<float> logits(kRows);
    if (!screen.Screen(head(), {1, n_tokens}, x.view, pool_, areas(), logits.data())) continue;
    EXPECT_THAT(std::vector<float>(logits.begin() + n_tokens, logits.end()), Each(-kInfinity));
    const auto best = std::max_element(all.begin(), all.begin() + n_tokens);
    EXPECT_EQ(logits[static_cast<size_t>(best - all.begin())], *best);
  }
}

TEST_P(HeadScreenTest, DoesWithoutWhereTooManyRowsMayBeAmongTheBest) {
  HeadScreen screen = ReadyScreen();
  EXPECT_EQ(Screened(screen, {150, kRows}, RandomFloats(head().n_cols, 77)), -1);
  EXPECT_EQ(Screened(screen, {2, kRows}, Towards(5, 0.2f, 1)), -1) << "and so for a while";
  EXPECT_GE(Screened(screen, {1, kRows}, Towards(5, 0.2f, 1)), 1) << "but for greedy answers";
  int n_passes = 0;
  while (Screened(screen, {2, kRows}, Towards(5, 0.2f, 1)) < 0) ASSERT_LT(++n_passes, 100);
  EXPECT_EQ(Screened(screen, {kRows, kRows}, Towards(5, 0.2f, 1)), -1) << "more than groups";
}

TEST_P(HeadScreenTest, AHiddenStateOfZerosIsScreenedRightly) {
  HeadScreen screen = ReadyScreen();
  Screened(screen, {1, kRows}, std::vector<float>(static_cast<size_t>(head().n_cols)));
}

TEST_P(HeadScreenTest, LearnsFromStatesThatAreZeroOrNotFiniteAndIsStillRight) {
  for (const float value : {0.0f, kInfinity, std::nanf("")}) {
    HeadScreen screen(head());
    const std::vector<float> x(static_cast<size_t>(head().n_cols), value);
    while (!screen.is_ready()) screen.Advance(head(), x.data(), pool_, areas());
    EXPECT_GE(Screened(screen, {1, kRows}, Towards(9, 0.2f, 4)), 1) << value;
  }
}

TEST_P(HeadScreenTest, ARowThatIsNotANumberIsNeverScreenedOut) {
  const size_t row_bytes = static_cast<size_t>(RowBytes(head().type, head().n_cols));
  const size_t scale = static_cast<size_t>(testing::ScaleOffsets(head().type)[0]);
  for (const uint16_t hostile : {uint16_t{0x7e00}, uint16_t{0x7c00}, uint16_t{0xfc00}}) {
    const std::vector<uint8_t> before = head_.bytes();
    std::memcpy(&head_.bytes()[2000 * row_bytes + scale], &hostile, 2);
    HeadScreen screen = ReadyScreen();
    const RoundedActivations x(Kernels(), Towards(5, 0.2f, 1), 1, head().n_cols);
    const std::vector<float> all = AllLogits(x);
    std::vector<float> logits(kRows);
    ASSERT_TRUE(screen.Screen(head(), {2, kRows}, x.view, pool_, areas(), logits.data()));
    if (std::isnan(all[2000])) {
      EXPECT_TRUE(std::isnan(logits[2000])) << hostile;
    } else {
      EXPECT_EQ(logits[2000], all[2000]) << hostile;
    }
    head_.bytes() = before;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, HeadScreenTest,
                         ::testing::Values(TensorType::kQ8_0, TensorType::kQ6_K),
                         [](const auto& info) { return testing::NameOf(info.param); });

TEST(HeadScreenPaysTest, ForQuantisedHeadsOfManyBits) {
  for (const TensorType type : testing::kAllTypes) {
    const bool pays =
        type == TensorType::kQ8_0 || type == TensorType::kQ6_K || type == TensorType::kQ5_1;
    EXPECT_EQ(HeadScreen::Pays({type, kRows, 512, nullptr}), pays) << testing::NameOf(type);
  }
}

}  // namespace
}  // namespace coterie
