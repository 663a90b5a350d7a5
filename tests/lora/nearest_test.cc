#include "lora/nearest.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"

#include "lora/nearest_texts.h"
#include "lora/sqlite_database.h"
#include "tests/lora/interaction_fixture.h"

namespace coterie {
namespace {

using ::coterie::testing::IsOk;
using ::coterie::testing::MakeInteraction;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// The definition, over ASCII in lower case, with nothing kept from one text to the next.
std::map<int64_t, double> ReferenceSimilarities(const std::map<int64_t, std::string>& texts,
                                                const std::string& query) {
  const auto grams = [](const std::string& text) {
    std::map<std::string, double> counts;
    const std::string padded = absl::StrCat(" ", text, " ");
    for (size_t n = 3; n <= 5; ++n) {
      for (size_t i = 0; i + n <= padded.size(); ++i) counts[padded.substr(i, n)] += 1;
    }
    return counts;
  };
  std::map<std::string, double> frequency;
  for (const auto& [key, text] : texts) {
    for (const auto& [gram, count] : grams(text)) frequency[gram] += 1;
  }
  const double n = static_cast<double>(texts.size());
  const auto weighted = [&](const std::string& text) {
    std::map<std::string, double> weights = grams(text);
    for (auto& [gram, weight] : weights) {
      const auto found = frequency.find(gram);
      weight *= std::log((1 + n) / (1 + (found == frequency.end() ? 0 : found->second))) + 1;
    }
    return weights;
  };
  const auto product = [](const auto& a, const auto& b) {
    double sum = 0;
    for (const auto& [gram, weight] : a) {
      const auto found = b.find(gram);
      if (found != b.end()) sum += weight * found->second;
    }
    return sum;
  };
  std::map<int64_t, double> similarities;
  const auto asked = weighted(query);
  for (const auto& [key, text] : texts) {
    const auto of_text = weighted(text);
    const double dot = product(asked, of_text);
    if (dot > 0) {
      similarities[key] = dot / std::sqrt(product(asked, asked) * product(of_text, of_text));
    }
  }
  return similarities;
}

std::string RandomText(std::mt19937& chance) {
  const char* words[] = {"light", "kitchen", "turn", "on", "off", "the", "door", "lamp", "open"};
  std::string text;
  for (int i = 0; i < 2 + static_cast<int>(chance() % 5); ++i) {
    absl::StrAppend(&text, text.empty() ? "" : " ", words[chance() % std::size(words)]);
  }
  return text;
}

TEST(NearestTextsTest, WhateverWasAddedAndTakenAwayTheResultIsTheDefinitions) {
  std::mt19937 chance(1);
  NearestTexts index;
  std::map<int64_t, std::string> texts;
  for (int64_t step = 0; step < 400; ++step) {
    if (texts.empty() || chance() % 3 > 0) {
      texts[step] = RandomText(chance);
      index.Add(step, texts[step]);
    } else {
      auto victim = texts.begin();
      std::advance(victim, chance() % texts.size());
      index.Remove(victim->first);
      texts.erase(victim);
    }
    if (step % 20 != 19) continue;
    const std::string query = RandomText(chance);
    const std::map<int64_t, double> expected = ReferenceSimilarities(texts, query);
    const auto matches = index.Nearest(query, texts.size());
    ASSERT_EQ(matches.size(), expected.size());
    for (const auto& match : matches) {
      EXPECT_NEAR(match.similarity, expected.at(match.key), 1e-9) << query;
    }
    EXPECT_TRUE(std::is_sorted(matches.begin(), matches.end(), [](const auto& a, const auto& b) {
      return a.similarity > b.similarity + 1e-9;
    }));
  }
  EXPECT_EQ(index.size(), texts.size());
}

TEST(NearestTextsTest, CaseAndSpaceDoNotCountAndOfEqualTextsTheLaterComesFirst) {
  NearestTexts index;
  index.Add(1, "Turn on the light");
  index.Add(2, "  turn ON\nthe light ");
  index.Add(3, "something else");
  const auto matches = index.Nearest("TURN on the light", 10);
  ASSERT_THAT(matches, SizeIs(2));
  EXPECT_EQ(matches[0].key, 2);
  EXPECT_EQ(matches[1].key, 1);
  EXPECT_NEAR(matches[0].similarity, 1, 1e-9);
}

TEST(NearestTextsTest, AnyTextIsFine) {
  NearestTexts index;
  EXPECT_THAT(index.Nearest("anything", 3), IsEmpty());
  const std::string book(100'000, 'x');
  for (const auto& [key, text] : std::map<int64_t, std::string>{
           {1, ""}, {2, "a"}, {3, "\xff\xfe\xff\xfe"}, {4, "\u00fcber\u00fcberall"}, {5, book}}) {
    index.Add(key, text);
  }
  EXPECT_EQ(index.Nearest("\u00fcberall", 1)[0].key, 4);
  EXPECT_EQ(index.Nearest(book, 1)[0].key, 5);
  EXPECT_THAT(index.Nearest("", 5), SizeIs(::testing::Le(5)));
  for (int64_t key = 1; key <= 6; ++key) index.Remove(key);
  EXPECT_EQ(index.size(), 0u);
}

TEST(NearestTextsTest, TheEstimateCoversWhatATextAdds) {
  NearestTexts index;
  std::mt19937 chance(2);
  for (int64_t key = 1; key < 200; ++key) {
    std::string text = RandomText(chance);
    for (int i = 0; i < static_cast<int>(chance() % 300); ++i) text += static_cast<char>(chance());
    const int64_t before = index.memory_bytes();
    index.Add(key, text);
    // Tables double: what one text adds is bounded over all of them.
    EXPECT_LE(index.memory_bytes() - before, NearestTexts::EstimateBytes(text.size()) + key * 256);
  }
}

class NearestInteractionsTest : public ::coterie::testing::InteractionLogTest {
 protected:
  void Log(const std::string& id, const std::string& asked, const Feedback& feedback,
           const std::string& expert = "small", const std::string& system = "Be brief.") {
    Interaction one = MakeInteraction(id, asked, "reply " + id);
    one.expert = expert;
    one.messages[0].content = system;
    ASSERT_THAT(log_->Append(one), IsOk());
    ASSERT_THAT(log_->SetFeedback(id, feedback), IsOk());
  }

  std::vector<std::string> Find(const std::string& asked, size_t n = 10) {
    const auto found =
        nearest_.Find(experts_, {{"system", "Be brief.", ""}, {"user", asked, ""}}, n);
    EXPECT_THAT(found, IsOk());
    std::vector<std::string> ids;
    for (const Interaction& one : *found) ids.push_back(one.id);
    return ids;
  }

  std::vector<std::string> experts_ = {"small"};
  std::unique_ptr<InteractionLog> log_ = Open();
  MemoryBudget budget_{100 << 20};
  NearestInteractions nearest_{*log_, budget_};
};

TEST_F(NearestInteractionsTest, TheNearestOfThisExpertUnderThisSystemPromptAreFound) {
  Log("a", "turn on the kitchen light", {Verdict::kAccepted, "", ""});
  Log("b", "turn on the kitchen lamp", {Verdict::kEdited, "better", ""});
  Log("c", "turn off the kitchen light", {Verdict::kRejected, "", ""});
  Log("d", "turn on the kitchen light", {Verdict::kAccepted, "", ""}, "coder");
  Log("e", "turn on the kitchen light", {Verdict::kAccepted, "", ""}, "small", "Be verbose.");
  Log("f", "what is the capital of Peru", {Verdict::kAccepted, "", ""});
  EXPECT_THAT(Find("turn on the kitchen light please"), ElementsAre("a", "b"));
  EXPECT_THAT(Find("turn on the kitchen light please", 1), ElementsAre("a"));
}

TEST_F(NearestInteractionsTest, OfSeveralExpertsTheNearestOfAllComeFirst) {
  Log("a", "turn on the kitchen light", {Verdict::kAccepted, "", ""});
  Log("b", "turn on the kitchen light now", {Verdict::kAccepted, "", ""}, "home");
  Log("c", "turn on the cellar light", {Verdict::kAccepted, "", ""}, "home");
  Log("d", "turn on the kitchen light now", {Verdict::kAccepted, "", ""}, "coder");
  experts_ = {"home", "small"};
  EXPECT_THAT(Find("turn on the kitchen light now"), ElementsAre("b", "a", "c"));
  EXPECT_THAT(Find("turn on the kitchen light now", 2), ElementsAre("b", "a"));
}

TEST_F(NearestInteractionsTest, ChangesOfFeedbackAndWhatWasForgottenAreFollowed) {
  Log("a", "turn on the light", {Verdict::kAccepted, "", ""});
  Log("b", "turn on the lights", {Verdict::kRejected, "", ""});
  EXPECT_THAT(Find("turn on the light"), ElementsAre("a"));
  ASSERT_THAT(log_->SetFeedback("b", {Verdict::kEdited, "yes", ""}), IsOk());
  ASSERT_THAT(log_->SetFeedback("a", {Verdict::kRejected, "", ""}), IsOk());
  EXPECT_THAT(Find("turn on the light"), ElementsAre("b"));
  ASSERT_THAT(log_->Forget("b"), IsOk());
  EXPECT_THAT(Find("turn on the light"), IsEmpty());
}

TEST_F(NearestInteractionsTest, OfOneQuestionTheLatestFeedbackCountsAndWhatIsShownIsNotRepeated) {
  Log("a", "turn on the light", {Verdict::kAccepted, "", ""});
  Log("b", "turn on the light", {Verdict::kEdited, "better", ""});
  EXPECT_THAT(Find("turn on the light"), ElementsAre("b"));
  const std::vector<Message> talk = {{"system", "Be brief.", ""},
                                     {"user", "turn on the light", ""},
                                     {"assistant", "reply a", ""},
                                     {"user", "turn on the light now", ""}};
  EXPECT_THAT(*nearest_.Find(experts_, talk, 5), IsEmpty());
}

TEST_F(NearestInteractionsTest, ADamagedInteractionKeepsNobodyFromFindingTheOthers) {
  Log("a", "turn on the light", {Verdict::kAccepted, "", ""});
  Log("b", "turn on the lights", {Verdict::kAccepted, "", ""});
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto database,
                               SqliteDatabase::Open(options_.path, "the log", absl::Seconds(5)));
  ASSERT_THAT(database->Run("UPDATE content SET body = 'x' WHERE seq = 1"), IsOk());
  EXPECT_THAT(Find("turn on the light"), ElementsAre("b"));
}

TEST_F(NearestInteractionsTest, ItIsChargedAndWithoutRoomItFindsLess) {
  Log("a", "turn on the light", {Verdict::kAccepted, "", ""});
  EXPECT_THAT(Find("turn on the light"), ElementsAre("a"));
  EXPECT_GT(budget_.Snapshot().used_bytes, 0);
  MemoryBudget tiny(1000);
  NearestInteractions poor(*log_, tiny);
  EXPECT_THAT(*poor.Find(experts_, {{"system", "Be brief.", ""}, {"user", "turn", ""}}, 5),
              IsEmpty());
  EXPECT_EQ(tiny.Snapshot().used_bytes, 0);
}

TEST(WithExamplesTest, ExamplesAreTurnsAfterTheSystemPromptTheNearestLast) {
  Interaction near = MakeInteraction("a", "near?", "yes");
  Interaction far = MakeInteraction("b", "far?", "no");
  far.feedback = {Verdict::kEdited, "quite", ""};
  const std::vector<Message> talk = {{"system", "Be brief.", ""}, {"user", "now?", ""}};
  std::vector<std::string> texts;
  for (const Message& message : WithExamples(talk, std::vector<Interaction>{near, far})) {
    texts.push_back(absl::StrCat(message.role, ": ", message.content));
  }
  EXPECT_THAT(texts, ElementsAre("system: Be brief.", "user: far?", "assistant: quite",
                                 "user: near?", "assistant: yes", "user: now?"));
  EXPECT_THAT(WithExamples(talk, {}), SizeIs(2));
}

}  // namespace
}  // namespace coterie
