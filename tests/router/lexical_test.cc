#include <cmath>
#include <map>
#include <set>
#include <string>

#include "router/lexical_features.h"
#include "router/lexical_fit.h"
#include "router/lexical_model.h"
#include "tests/router/small_rows.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

std::multiset<std::string> Texts(absl::string_view cut, FeatureBlock block) {
  std::multiset<std::string> texts;
  ForEachFeature(cut, [&](const TextFeature& feature) {
    if (feature.block == block) texts.insert(std::string(feature.text));
  });
  return texts;
}

TEST(LexicalFeaturesTest, WordsAndRunsOfThemAreInLowerCaseWithoutPunctuation) {
  EXPECT_EQ(Texts("Sort, a_list! Sort", FeatureBlock::kWords),
            (std::multiset<std::string>{"sort", "sort a_list", "a_list", "a_list sort", "sort",
                                        "sort a_list sort"}));
}

TEST(LexicalFeaturesTest, LettersGoOnOverTheEndOfAWordAndCountForTheOneTheyBeginIn) {
  // " a b " has four runs of two characters, three of three, two of four and one of five.
  EXPECT_EQ(Texts("a b", FeatureBlock::kLetters),
            (std::multiset<std::string>{"a", "a", "a", "a", "a", "a", "a", "b", "b", "b"}));
}

TEST(LexicalFeaturesTest, LettersKnowWhereAWordBeginsAndEnds) {
  // " ab " has three runs of two, two of three and one of four characters.
  EXPECT_EQ(Texts("ab", FeatureBlock::kLetters).size(), 6u);
  std::set<uint32_t> first, second;
  ForEachFeature("cat", [&](const TextFeature& f) { first.insert(f.hash); });
  ForEachFeature("concat", [&](const TextFeature& f) { second.insert(f.hash); });
  int shared = 0;
  for (const uint32_t hash : first) shared += second.count(hash);
  // " c", "ca", "at", "t ", "cat", "at " and "cat ", but not " ca", " cat", " cat " or the word.
  EXPECT_EQ(shared, 7);
}

TEST(LexicalFeaturesTest, CharactersOfSeveralBytesAreOneLetter) {
  EXPECT_EQ(Texts("éé", FeatureBlock::kLetters).size(), 6u);
}

class LexicalModelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::map<std::string, int> labels = {{"code", 0}, {"math", 1}, {"general", 2}};
    for (const LabelledPrompt& row : testing::SmallRows()) {
      rows_.push_back({row.text, labels.at(row.label)});
    }
    model_ = FitLexical(rows_, 3);
  }

  int FirstOf(absl::string_view text) {
    const auto reading = model_->Read(text, false);
    return static_cast<int>(std::max_element(reading->logits.begin(), reading->logits.end()) -
                            reading->logits.begin());
  }

  std::vector<LexicalRow> rows_;
  std::unique_ptr<const LexicalModel> model_;
};

TEST_F(LexicalModelTest, EveryRowItWasFittedOnIsRight) {
  for (const LexicalRow& row : rows_) EXPECT_EQ(FirstOf(row.cut), row.label) << row.cut;
}

TEST_F(LexicalModelTest, NewPromptsOfKnownWordsAreRight) {
  EXPECT_EQ(FirstOf("a haskell function that sorts"), 0);
  EXPECT_EQ(FirstOf("volume and area of the pyramid"), 1);
  EXPECT_EQ(FirstOf("history of Prague in winter"), 2);
}

TEST_F(LexicalModelTest, FittingTwiceGivesTheSameModel) {
  const auto again = FitLexical(rows_, 3);
  EXPECT_EQ(model_->Read("sort the cube in Oslo", false)->logits,
            again->Read("sort the cube in Oslo", false)->logits);
}

TEST_F(LexicalModelTest, VectorsHaveLengthOneAndRisingIndices) {
  const PromptVector vector = model_->Read("write a python function", true)->vector;
  double square = 0.0;
  for (const float value : vector.values) square += value * value;
  EXPECT_NEAR(square, 1.0, 1e-5);
  EXPECT_TRUE(std::is_sorted(vector.indices.begin(), vector.indices.end()));
  EXPECT_NEAR(vector.Dot(vector), 1.0, 1e-5);
}

TEST_F(LexicalModelTest, UnseenWordsTakeNoWeightFromKnownOnes) {
  const auto known = model_->Read("python function", false)->logits;
  const auto mixed = model_->Read("python function qqqq wwww", false)->logits;
  for (size_t d = 0; d < known.size(); ++d) EXPECT_NEAR(known[d], mixed[d], 0.05);
}

TEST_F(LexicalModelTest, DecidingFeaturesNameTheWordsThatSpokeForTheFirstDomain) {
  const std::vector<DecidingFeature> features = model_->Decide("a python function", 0, 1);
  ASSERT_FALSE(features.empty());
  EXPECT_EQ(features[0].text, "function");
  EXPECT_GT(features[0].weight, 0.0);
  for (size_t i = 1; i < features.size(); ++i) {
    EXPECT_LE(std::abs(features[i].weight), std::abs(features[i - 1].weight));
  }
}

TEST(LexicalVocabularyTest, AFeatureIsFoundByItsHashOnly) {
  const LexicalVocabulary vocabulary({0, 7, 4'000'000'000u}, {1.0f, 1.0f, 1.0f});
  EXPECT_EQ(vocabulary.Find(0), 0);
  EXPECT_EQ(vocabulary.Find(7), 1);
  EXPECT_EQ(vocabulary.Find(4'000'000'000u), 2);
  EXPECT_EQ(vocabulary.Find(8), -1);
}

}  // namespace
}  // namespace coterie
