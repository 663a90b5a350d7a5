#include "lora/dropout.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"

namespace coterie {
namespace {

std::vector<float> Dropped(const Dropout& dropout, int64_t row, int64_t n = 4096, int64_t layer = 3,
                           AdapterInput input = AdapterInput::kActivated) {
  std::vector<float> x(static_cast<size_t>(n), 1.0f);
  dropout.Apply(layer, input, row, 0, n, x.data());
  return x;
}

TEST(DropoutTest, KeepsAllWithoutARate) {
  EXPECT_FALSE(Dropout().is_on());
  EXPECT_FALSE(Dropout(0, 7).is_on());
  EXPECT_EQ(Dropped(Dropout(0, 7), 0), std::vector<float>(4096, 1.0f));
}

TEST(DropoutTest, DropsItsShareAndKeepsTheMean) {
  constexpr int64_t kN = 1 << 18;
  for (const float rate : {0.05f, 0.3f, 0.9f}) {
    int64_t n_dropped = 0;
    double sum = 0;
    for (const float v : Dropped(Dropout(rate, 7), 0, kN)) {
      n_dropped += v == 0 ? 1 : 0;
      sum += static_cast<double>(v);
    }
    // Five standard deviations of a binomial share, and of the mean that follows from it.
    const double spread = 5 * std::sqrt(static_cast<double>(rate * (1 - rate)) / kN);
    EXPECT_NEAR(static_cast<double>(n_dropped) / kN, rate, spread);
    EXPECT_NEAR(sum / kN, 1, spread / static_cast<double>(1 - rate));
  }
}

TEST(DropoutTest, APartOfARowIsDroppedAsTheWhole) {
  const Dropout dropout(0.4f, 7);
  const std::vector<float> whole = Dropped(dropout, 5);
  std::vector<float> part(101, 1.0f);
  dropout.Apply(3, AdapterInput::kActivated, 5, 256, 256 + 101, part.data());
  EXPECT_EQ(part, std::vector<float>(whole.begin() + 256, whole.begin() + 256 + 101));
}

TEST(DropoutTest, EveryPlaceAndKeyHasItsOwnMask) {
  const Dropout dropout(0.5f, 7);
  const std::vector<float> mask = Dropped(dropout, 5);
  const std::vector<float> others[] = {Dropped(dropout, 6), Dropped(Dropout(0.5f, 8), 5),
                                       Dropped(dropout, 5, 4096, 4),
                                       Dropped(dropout, 5, 4096, 3, AdapterInput::kNormed)};
  for (const std::vector<float>& other : others) {
    int64_t n_equal = 0;
    for (size_t i = 0; i < mask.size(); ++i) n_equal += mask[i] == other[i] ? 1 : 0;
    EXPECT_NEAR(static_cast<double>(n_equal), 2048, 5 * 32) << "independent masks agree on half";
  }
  EXPECT_EQ(Dropped(dropout, 5), mask);
}

}  // namespace
}  // namespace coterie
