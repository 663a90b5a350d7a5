// Answers that begin from kept keys and values are those of a whole computation, bit for bit.

#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "experts/expert.h"
#include "experts/prefix_cache.h"
#include "experts/session.h"
#include "tests/experts/tiny_adapter.h"
#include "tests/experts/tiny_expert_test.h"
#include "tests/experts/tiny_model.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using testing::LogitsOf;
using testing::TinyIds;

class ResumedSessionTest : public testing::TinyExpertTest {
 protected:
  Session NewSession(const DeltaSnapshot& adapter, Activations activations, int64_t capacity) {
    return Session(*expert_, pool_, SessionShape::ForTokens(capacity, adapter.get()), activations,
                   adapter);
  }

  WorkerPool pool_{2};
  MemoryBudget budget_{int64_t{1} << 30};
  PrefixCache cache_{budget_, 1};
};

TEST_P(ResumedSessionTest, GivesTheBitsOfOneThatComputedAll) {
  const std::vector<int32_t> ids = TinyIds(300);
  for (const Activations activations : {Activations::kInt8, Activations::kF32}) {
    for (const DeltaSnapshot& adapter : {DeltaSnapshot(), adapter_}) {
      const std::string scope = adapter == nullptr ? "plain" : "adapted";
      cache_.Clear();
      // A prompt, then an answer token by token, as a conversation leaves them.
      Session first = NewSession(adapter, activations, 200);
      COTERIE_ASSERT_OK(first.Prefill({ids.data(), 100}, {}));
      for (size_t i = 100; i < 200; ++i) COTERIE_ASSERT_OK(first.Decode(ids[i]));
      cache_.Keep(scope, {ids.data(), 200}, first.kv(), cache_.era());

      Session whole = NewSession(adapter, activations, 300);
      COTERIE_ASSERT_OK(whole.Prefill({ids.data(), 290}, {}));
      Session resumed = NewSession(adapter, activations, 333);
      cache_.Continue(scope, ids, resumed.kv());
      ASSERT_EQ(resumed.n_tokens(), 192);
      COTERIE_ASSERT_OK(resumed.Prefill({ids.data() + 192, 98}, {}));
      EXPECT_EQ(LogitsOf(resumed), LogitsOf(whole));
      for (size_t i = 290; i < 300; ++i) {
        COTERIE_ASSERT_OK(whole.Decode(ids[i]));
        COTERIE_ASSERT_OK(resumed.Decode(ids[i]));
        ASSERT_EQ(LogitsOf(resumed), LogitsOf(whole)) << "after token " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, ResumedSessionTest, ::testing::Values("llama", "qwen2", "gemma3"));

}  // namespace
}  // namespace coterie
