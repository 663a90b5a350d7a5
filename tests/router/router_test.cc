#include "router/router.h"

#include <filesystem>
#include <numeric>
#include <string>

#include "absl/strings/str_cat.h"

#include "tests/router/small_rows.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::StatusIs;
using ::testing::HasSubstr;

class RouterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    COTERIE_ASSERT_OK_AND_ASSIGN(router_, Router::Fit(testing::SmallRows()));
  }

  DomainScores Classify(absl::string_view prompt) {
    const absl::StatusOr<DomainScores> scores = router_->Classify(prompt);
    EXPECT_THAT(scores, testing::IsOk());
    return scores.ok() ? *scores : DomainScores();
  }

  std::unique_ptr<const Router> router_;
};

TEST_F(RouterTest, DomainsComeInTheirUsualOrder) {
  EXPECT_THAT(router_->domains(), ::testing::ElementsAre("code", "math", "general"));
  EXPECT_EQ(router_->tier(), "lexical");
}

TEST_F(RouterTest, ProbabilitiesAreRankedAndSumToOne) {
  for (const char* prompt : {"write a function", "x", "?", "volume of a cube in Oslo"}) {
    const DomainScores scores = Classify(prompt);
    double sum = 0.0;
    for (size_t i = 0; i < scores.ranked.size(); ++i) {
      sum += scores.ranked[i].probability;
      if (i > 0) {
        EXPECT_LE(scores.ranked[i].probability, scores.ranked[i - 1].probability);
      }
    }
    EXPECT_NEAR(sum, 1.0, 1e-9);
  }
}

TEST_F(RouterTest, TheExplanationNamesWordsAndNumbers) {
  const DomainScores scores = Classify("write a perl function that sorts");
  EXPECT_EQ(scores.ranked[0].domain, "code");
  EXPECT_EQ(scores.ProbabilityOf("code"), scores.ranked[0].probability);
  EXPECT_EQ(scores.ProbabilityOf("poetry"), 0.0);
  EXPECT_THAT(scores.why.summary, HasSubstr("code"));
  EXPECT_GT(scores.why.margin, 0.0);
  ASSERT_FALSE(scores.why.features.empty());
  EXPECT_GT(scores.why.features[0].weight, 0.0);
  EXPECT_EQ(scores.why.correction_share, 0.0);
}

TEST_F(RouterTest, APromptInWhichNothingCanBeReadAbstainsToGeneral) {
  for (const char* prompt : {"", " \n\t ", "\xff\xfe"}) {
    const DomainScores scores = Classify(prompt);
    EXPECT_TRUE(scores.abstained);
    EXPECT_EQ(scores.domain(), "general");
    EXPECT_EQ(scores.ranked[0].domain, "general");
    EXPECT_NEAR(scores.ranked[0].probability, 1.0 / 3.0, 1e-12);
    EXPECT_EQ(scores.ranked.size(), 3u);
  }
}

TEST_F(RouterTest, InvalidUtf8IsClassifiedByWhatCanBeRead) {
  const DomainScores clean = Classify("write a rust function");
  const DomainScores dirty = Classify("write\xff a rust func\xc0tion");
  EXPECT_EQ(dirty.ranked[0].domain, "code");
  EXPECT_EQ(dirty.ranked[0].probability, clean.ranked[0].probability);
}

TEST_F(RouterTest, AVeryLongPromptIsClassifiedByItsEnds) {
  std::string prompt = "write a python function that sorts this list:";
  for (int i = 0; i < 100'000; ++i) prompt += " winter in Lima";
  prompt += " write a python function that sorts a list with an error in my program crash";
  EXPECT_EQ(Classify(prompt).ranked[0].domain, "code");
}

TEST_F(RouterTest, ACorrectionActsAtOnceAndLeavesTheOldRouterAsItWas) {
  const std::string prompt = "history of the python function";
  const std::string before = Classify(prompt).ranked[0].domain;
  const std::string wanted = before == "math" ? "general" : "math";
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto corrected, router_->Correct(prompt, wanted));
  COTERIE_ASSERT_OK_AND_ASSIGN(const DomainScores after, corrected->Classify(prompt));
  EXPECT_EQ(after.ranked[0].domain, wanted);
  EXPECT_THAT(after.why.summary, HasSubstr("your corrections decided"));
  EXPECT_EQ(after.router_version, "lexical+1 corrections");
  EXPECT_EQ(Classify(prompt).ranked[0].domain, before);
  EXPECT_EQ(router_->n_corrections(), 0);
  COTERIE_ASSERT_OK_AND_ASSIGN(const DomainScores other,
                               corrected->Classify("tell me about the history of Oslo"));
  EXPECT_EQ(other.ranked[0].domain, "general");
}

TEST_F(RouterTest, ACorrectionMustNameADomainAndAReadablePrompt) {
  EXPECT_THAT(router_->Correct("hi", "poetry"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("known=code math general")));
  EXPECT_THAT(router_->Correct(" ", "code"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("label=code")));
}

TEST_F(RouterTest, ADomainIsAddedFromTenExamplesAndTheOthersKeepTheirs) {
  std::vector<std::string> examples;
  for (const char* plant : {"roses", "tomatoes", "ferns", "tulips", "basil"}) {
    examples.push_back(absl::StrCat("how often should I water my ", plant));
    examples.push_back(absl::StrCat("which soil do ", plant, " need in the garden"));
  }
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto wider, router_->AddDomain("gardening", examples));
  EXPECT_THAT(wider->domains(), ::testing::ElementsAre("code", "math", "general", "gardening"));
  COTERIE_ASSERT_OK_AND_ASSIGN(const DomainScores scores,
                               wider->Classify("how often should I water my orchids"));
  EXPECT_EQ(scores.ranked[0].domain, "gardening");
  COTERIE_ASSERT_OK_AND_ASSIGN(const Evaluation others, wider->Evaluate(testing::SmallRows()));
  EXPECT_GT(others.accuracy, 0.95);

  COTERIE_ASSERT_OK_AND_ASSIGN(const auto corrected,
                               wider->Correct("is my cactus dead", "gardening"));
  COTERIE_ASSERT_OK_AND_ASSIGN(const DomainScores after, corrected->Explain("is my cactus dead"));
  EXPECT_EQ(after.ranked[0].domain, "gardening");
  EXPECT_FALSE(after.why.features.empty());
}

TEST_F(RouterTest, ADomainNeedsANameOfItsOwnAndReadableExamples) {
  const auto refused = StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("domain="));
  EXPECT_THAT(router_->AddDomain("", {"a b"}), refused);
  EXPECT_THAT(router_->AddDomain("math", {"a b"}), refused);
  EXPECT_THAT(router_->AddDomain("new", {}), refused);
  EXPECT_THAT(router_->AddDomain("new", {" "}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("nothing can be read")));
}

TEST_F(RouterTest, ExplainShowsTheNearestExamplesAndTheWordsThatDecided) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto router, router_->WithExamples(testing::SmallRows()));
  COTERIE_ASSERT_OK_AND_ASSIGN(const DomainScores scores,
                               router->Explain("write a perl function that sorts a list"));
  ASSERT_EQ(scores.why.nearest.size(), 3u);
  EXPECT_EQ(scores.why.nearest[0].domain, "code");
  EXPECT_THAT(scores.why.nearest[0].text, HasSubstr("function that sorts a list"));
  EXPECT_GE(scores.why.nearest[0].cosine, scores.why.nearest[1].cosine);
  EXPECT_FALSE(scores.why.features.empty());
  COTERIE_ASSERT_OK_AND_ASSIGN(const DomainScores empty, router->Explain(" "));
  EXPECT_TRUE(empty.abstained);
}

TEST_F(RouterTest, ExamplesComeBeforeCorrections) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto corrected, router_->Correct("hi there", "code"));
  EXPECT_THAT(corrected->WithExamples(testing::SmallRows()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("corrections=1")));
}

TEST_F(RouterTest, EvaluationOnItsOwnRowsIsPerfectAndKnowsUnknownLabels) {
  std::vector<LabelledPrompt> rows = testing::SmallRows();
  COTERIE_ASSERT_OK_AND_ASSIGN(const Evaluation known, router_->Evaluate(rows));
  EXPECT_GT(known.accuracy, 0.95);
  EXPECT_EQ(known.n, static_cast<int64_t>(rows.size()));
  rows = {{"write a function", "poetry", ""}};
  COTERIE_ASSERT_OK_AND_ASSIGN(const Evaluation unknown, router_->Evaluate(rows));
  EXPECT_EQ(unknown.accuracy, 0.0);
  EXPECT_THAT(router_->Evaluate({}), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("")));
}

TEST(RouterFitTest, RowsMustHaveTwoLabelsAndSomethingToRead) {
  const auto refused = [](absl::string_view what) {
    return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(std::string(what)));
  };
  EXPECT_THAT(Router::Fit({}), refused("labels=0"));
  EXPECT_THAT(Router::Fit({{{"a", "x", ""}, {"b", "x", ""}}}), refused("labels=1"));
  EXPECT_THAT(Router::Fit({{{"a", "x", ""}, {"b", "", ""}}}), refused("none of them empty"));
  EXPECT_THAT(Router::Fit({{{" ", "x", ""}, {"", "y", ""}}}), refused("no prompt can be read"));
}

TEST(RouterFitTest, TwoRowsAreEnough) {
  const std::vector<LabelledPrompt> rows = {{"red apples", "fruit", ""}, {"fast cars", "cars", ""}};
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto router, Router::Fit(rows));
  COTERIE_ASSERT_OK_AND_ASSIGN(const DomainScores scores, router->Classify("green apples"));
  EXPECT_EQ(scores.ranked[0].domain, "fruit");
}

}  // namespace
}  // namespace coterie
