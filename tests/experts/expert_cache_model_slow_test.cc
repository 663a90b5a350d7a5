// A million steps of the walks of expert_cache_model_test.cc, which also replays one of them.

#include <string>

#include "gtest/gtest.h"

#include "tests/experts/cache_model.h"

namespace coterie {
namespace {

class ExpertCacheLongModelTest : public ::testing::TestWithParam<int> {};

TEST_P(ExpertCacheLongModelTest, AHundredThousandStepsKeepTheLawsOfTheCache) {
  constexpr int64_t kSteps = 5'000;
  for (uint64_t i = 0; i < 20 && !HasFailure(); ++i) {
    const uint64_t seed = 1000 * static_cast<uint64_t>(GetParam()) + i;
    testing::CacheModel model(seed);
    const std::string error = model.Walk(kSteps);
    EXPECT_EQ(error, "") << "replay with COTERIE_MODEL_SEED=" << seed
                         << " COTERIE_MODEL_STEPS=" << kSteps;
    EXPECT_GT(model.n_leases(), kSteps / 25) << "the walk went somewhere: seed=" << seed;
  }
}

INSTANTIATE_TEST_SUITE_P(Part, ExpertCacheLongModelTest, ::testing::Range(1, 11));

}  // namespace
}  // namespace coterie
