#include "runtime/taught_router.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"

#include "tests/router/small_rows.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::IsOk;
using ::coterie::testing::StatusIs;
using ::testing::HasSubstr;

constexpr char kPrompt[] = "write a python function that sorts a list";

class TaughtRouterTest : public ::testing::Test {
 protected:
  TaughtRouterTest() : budget_(100 << 20) {
    auto fitted = Router::Fit(testing::SmallRows());
    EXPECT_THAT(fitted, IsOk());
    router_ = std::make_unique<TaughtRouter>(*std::move(fitted), budget_);
  }

  std::string DomainOf(absl::string_view prompt) const {
    return router_->Current()->Classify(prompt)->ranked.front().domain;
  }
  int64_t charged() const {
    return budget_.Snapshot().bytes_by_purpose[static_cast<size_t>(Purpose::kRouter)];
  }

  MemoryBudget budget_;
  std::unique_ptr<TaughtRouter> router_;
};

TEST_F(TaughtRouterTest, WhatIsTaughtIsKnownAndWhatIsTakenBackIsNot) {
  EXPECT_EQ(DomainOf(kPrompt), "code");
  ASSERT_THAT(router_->Teach({{"a", 1, kPrompt, "math"}}), IsOk());
  EXPECT_EQ(DomainOf(kPrompt), "math");
  EXPECT_GT(charged(), 0);
  ASSERT_THAT(router_->Teach({}), IsOk());
  EXPECT_EQ(DomainOf(kPrompt), "code");
  EXPECT_EQ(router_->Current()->n_corrections(), 0);
  EXPECT_EQ(charged(), 0);
}

TEST_F(TaughtRouterTest, OneByOneIsTheSameAsAllAtOnce) {
  const std::vector<TaughtPrompt> all = {{"a", 1, kPrompt, "math"},
                                         {"b", 2, "tell me about the history of Lima", "code"},
                                         {"c", 3, "compute the area of a cube", "general"}};
  for (size_t n = 1; n <= all.size(); ++n) {
    ASSERT_THAT(router_->Teach({all.begin(), all.begin() + static_cast<ptrdiff_t>(n)}), IsOk());
  }
  TaughtRouter fresh(*Router::Fit(testing::SmallRows()), budget_);
  ASSERT_THAT(fresh.Teach(all), IsOk());
  for (const auto& row : testing::SmallRows()) {
    EXPECT_NEAR(router_->Current()->Classify(row.text)->ProbabilityOf(row.label),
                fresh.Current()->Classify(row.text)->ProbabilityOf(row.label), 1e-6);
  }
}

TEST_F(TaughtRouterTest, ADecisionUnderWayKeepsItsVersion) {
  const std::shared_ptr<const Router> before = router_->Current();
  ASSERT_THAT(router_->Teach({{"a", 1, kPrompt, "math"}}), IsOk());
  EXPECT_EQ(before->Classify(kPrompt)->ranked.front().domain, "code");
}

TEST_F(TaughtRouterTest, UnknownDomainsAndUnreadablePromptsAreLeftOut) {
  ASSERT_THAT(router_->Teach({{"a", 1, kPrompt, "cooking"}, {"b", 2, " ", "math"}}), IsOk());
  EXPECT_EQ(router_->Current()->n_corrections(), 0);
}

TEST_F(TaughtRouterTest, WithoutRoomTheRouterStaysAsItIs) {
  budget_.SetLimit(1000);
  EXPECT_THAT(router_->Teach({{"a", 1, kPrompt, "math"}}),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("")));
  EXPECT_EQ(DomainOf(kPrompt), "code");
  budget_.SetLimit(100 << 20);
  ASSERT_THAT(router_->Teach({{"a", 1, kPrompt, "math"}}), IsOk());
  EXPECT_EQ(DomainOf(kPrompt), "math");
}

TEST_F(TaughtRouterTest, OnlyTheNewestCount) {
  std::vector<TaughtPrompt> many;
  for (const char* language : {"python", "rust", "java", "ruby", "go", "kotlin"}) {
    for (const char* shape : {"circle", "square", "cube", "triangle", "cone", "sphere"}) {
      for (const char* town : {"Lima", "Oslo", "Cairo", "Quito", "Bern", "Riga"}) {
        const std::string text = absl::StrCat(language, " ", shape, " ", town);
        many.push_back({text, static_cast<int64_t>(many.size()) + 1, text, "math"});
      }
    }
  }
  ASSERT_THAT(router_->Teach(many), IsOk());
  EXPECT_EQ(router_->Current()->n_corrections(), static_cast<int64_t>(TaughtRouter::kMaxPrompts));
}

}  // namespace
}  // namespace coterie
