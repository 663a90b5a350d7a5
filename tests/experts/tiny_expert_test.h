#pragma once

#include <memory>
#include <vector>

#include "gtest/gtest.h"

#include "core/threads/worker_pool.h"
#include "experts/expert.h"
#include "experts/session.h"
#include "tests/experts/tiny_adapter.h"
#include "tests/experts/tiny_model.h"
#include "tests/fuzz/scratch_folder.h"
#include "tests/status_matchers.h"

namespace coterie::testing {

inline std::vector<float> LogitsOf(const Session& session) {
  return {session.logits().begin(), session.logits().end()};
}

// The tiny model of an architecture, as an expert that was opened from its file, and an adapter on
// it.
class TinyExpertTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    COTERIE_ASSERT_OK_AND_ASSIGN(expert_, Expert::Open(WriteGguf(model_, folder_.path(), "tiny")));
    COTERIE_ASSERT_OK_AND_ASSIGN(
        adapter_, LinearDeltaSet::Create(model_.spec, "tiny@1", TinyDeltas(model_.spec)));
  }

  const ScratchFolder folder_;
  const TinyModel model_ = MakeTinyModel(GetParam());
  std::shared_ptr<const Expert> expert_;
  DeltaSnapshot adapter_;
};

}  // namespace coterie::testing
