#include "experts/linear_delta.h"

#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/experts/tiny_adapter.h"
#include "tests/experts/tiny_model.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::testing::HasSubstr;

class LinearDeltaSetTest : public ::testing::Test {
 protected:
  void ExpectRefused(const std::vector<LinearDelta>& deltas, const std::string& because) {
    EXPECT_THAT(LinearDeltaSet::Create(spec_, "v", deltas),
                testing::StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(because)));
  }

  const ArchSpec spec_ = testing::MakeTinyModel("llama").spec;
  std::vector<LinearDelta> deltas_ = testing::TinyDeltas(spec_);
};

TEST_F(LinearDeltaSetTest, ServesEveryDeltaAndNothingElse) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const DeltaSnapshot set,
                               LinearDeltaSet::Create(spec_, "home@3", deltas_));
  EXPECT_EQ(set->version(), "home@3");
  EXPECT_EQ(set->bytes(), LinearDeltaSet::Bytes(spec_, deltas_));
  EXPECT_TRUE(set->Fits(spec_));
  int64_t n_served = 0;
  for (int64_t layer = 0; layer < spec_.n_layers; ++layer) {
    for (int i = 0; i < kLayerLinearCount; ++i) {
      n_served += set->Find(layer, static_cast<LayerLinear>(i)) != nullptr ? 1 : 0;
    }
  }
  EXPECT_EQ(n_served, static_cast<int64_t>(deltas_.size()));
  const ServedDelta* first = set->Find(deltas_[0].layer, deltas_[0].linear);
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(first->a.n_rows, deltas_[0].rank);
  EXPECT_EQ(first->b.n_cols, ShapeOf(spec_, deltas_[0].linear).out);
}

TEST_F(LinearDeltaSetTest, RefusesWhatTheBaseDoesNotHave) {
  ExpectRefused({}, "changes nothing");
  std::vector<LinearDelta> wrong = deltas_;
  wrong[1].layer = spec_.n_layers;
  ExpectRefused(wrong, "a layer that its base does not have: layer=7");
  wrong = deltas_;
  wrong[0].b.pop_back();
  ExpectRefused(wrong, "do not have the base's extents");
  wrong = deltas_;
  wrong.push_back(wrong[0]);
  ExpectRefused(wrong, "changes a linear layer twice");
}

TEST_F(LinearDeltaSetTest, RefusesValuesThatCannotBeServed) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                          -std::numeric_limits<float>::infinity(), 65520.0f}) {
    std::vector<LinearDelta> wrong = deltas_;
    wrong[2].a[3] = bad;
    ExpectRefused(wrong, "not finite or too large");
    wrong = deltas_;
    wrong[2].scale = bad;
    ExpectRefused(wrong, "not finite or too large");
  }
}

}  // namespace
}  // namespace coterie
