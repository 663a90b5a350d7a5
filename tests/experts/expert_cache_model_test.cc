// The laws of the cache on random walks (see cache_model.h). A failure names its seed; the walk is
// taken again with COTERIE_MODEL_SEED=N COTERIE_MODEL_STEPS=N.

#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

#include "tests/experts/cache_model.h"

namespace coterie {
namespace {

using ::coterie::testing::CacheModel;

int64_t FromEnvironment(const char* name, int64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoll(text);
}

void TakeWalk(uint64_t seed, int64_t n_steps) {
  CacheModel model(seed);
  const std::string error = model.Walk(n_steps);
  EXPECT_EQ(error, "") << "replay with COTERIE_MODEL_SEED=" << seed
                       << " COTERIE_MODEL_STEPS=" << n_steps;
  EXPECT_GT(model.n_leases(), n_steps / 25) << "the walk went somewhere: seed=" << seed;
}

TEST(ExpertCacheModelTest, EveryWalkKeepsTheLawsOfTheCache) {
  const int64_t n_steps = FromEnvironment("COTERIE_MODEL_STEPS", 500);
  const int64_t seed = FromEnvironment("COTERIE_MODEL_SEED", -1);
  if (seed >= 0) return TakeWalk(static_cast<uint64_t>(seed), n_steps);
  for (uint64_t each = 1; each <= 18 && !HasFailure(); ++each) TakeWalk(each, n_steps);
}

}  // namespace
}  // namespace coterie
