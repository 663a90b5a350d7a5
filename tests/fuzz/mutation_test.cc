// A minute's worth of what the fuzzers do, in a second and the same every time: every target takes
// its seeds and mutations of them. The fuzzers themselves: `make fuzz`.

#include <algorithm>
#include <random>
#include <string>

#include "gtest/gtest.h"

#include "tests/fuzz/targets.h"

namespace coterie::testing {
namespace {

constexpr int kMutations = 400;

// Changes a few bytes, or cuts, doubles or splices.
std::string Mutate(std::string bytes, const std::string& other, std::mt19937& random) {
  const auto below = [&](size_t n) { return n == 0 ? 0 : random() % n; };
  switch (random() % 4) {
    case 0:
      return bytes.substr(0, below(bytes.size() + 1));
    case 1:
      return bytes.substr(0, below(bytes.size() + 1)) + other.substr(below(other.size() + 1));
    case 2:
      bytes.insert(below(bytes.size() + 1), bytes.substr(below(bytes.size() + 1), 40));
      return bytes;
    default:
      break;
  }
  // Headers are at the beginning, and hold what can be got wrong.
  const size_t reach = random() % 2 == 0 ? std::min<size_t>(bytes.size(), 2000) : bytes.size();
  for (size_t n = 1 + random() % 4; n > 0 && !bytes.empty(); --n) {
    constexpr char kEdges[] = {0, 1, -1, 127, -128, '{', '"', '\n'};
    bytes[below(reach)] =
        random() % 2 == 0 ? kEdges[random() % sizeof(kEdges)] : static_cast<char>(random());
  }
  return bytes;
}

class MutationTest : public ::testing::TestWithParam<FuzzTarget> {};

TEST_P(MutationTest, TargetSurvivesItsSeedsAndTheirMutations) {
  const FuzzTarget& target = GetParam();
  const std::vector<std::string> seeds = target.seeds();
  for (const std::string& seed : seeds) target.run(seed);
  std::mt19937 random(20240607);
  for (int i = 0; i < kMutations; ++i) {
    // Half of them of the valid file, which stands first.
    const std::string& seed = i % 2 == 0 ? seeds.front() : seeds[random() % seeds.size()];
    target.run(Mutate(seed, seeds[random() % seeds.size()], random));
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, MutationTest, ::testing::ValuesIn(FuzzTargets()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace coterie::testing
