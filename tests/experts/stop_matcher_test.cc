#include "experts/stop_matcher.h"

#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::IsOk;
using ::coterie::testing::StatusIs;
using ::testing::HasSubstr;

StopMatcher Make(const std::vector<std::string>& stops) {
  absl::StatusOr<StopMatcher> matcher = StopMatcher::Create(stops);
  EXPECT_THAT(matcher, IsOk());
  return *std::move(matcher);
}

// All output for these pieces, with what found the end in brackets.
std::string Feed(StopMatcher& matcher, const std::vector<std::string>& pieces) {
  std::string output;
  for (const std::string& piece : pieces) output += matcher.Append(piece);
  const std::string stop = matcher.stopped() ? "[" + *matcher.stop() + "]" : "";
  return output + matcher.Flush() + stop;
}

std::string Feed(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopMatcher matcher = Make(stops);
  return Feed(matcher, pieces);
}

TEST(StopMatcherTest, WithoutStopStringsTextPassesAtOnce) {
  StopMatcher matcher = Make({});
  EXPECT_EQ(matcher.Append("Hello"), "Hello");
  EXPECT_EQ(matcher.Append(""), "");
  EXPECT_EQ(matcher.Flush(), "");
  EXPECT_FALSE(matcher.stopped());
}

TEST(StopMatcherTest, AStopStringAcrossPiecesEndsTheAnswerBeforeIt) {
  StopMatcher matcher = Make({"\nUser:"});
  EXPECT_EQ(matcher.Append("Fine.\nUs"), "Fine.");
  EXPECT_EQ(matcher.Append("er"), "");
  EXPECT_EQ(matcher.Append(": and"), "");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(*matcher.stop(), "\nUser:");
  EXPECT_EQ(matcher.Append("more"), "");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcherTest, AFalseBeginningComesOutOnceItIsOne) {
  StopMatcher matcher = Make({"\nUser:"});
  EXPECT_EQ(matcher.Append("a\nUs"), "a");
  EXPECT_EQ(matcher.Append("ing"), "\nUsing");
}

TEST(StopMatcherTest, AFalseBeginningMayHoldATrueOne) {
  EXPECT_EQ(Feed({"aab"}, {"a", "a", "a", "b", "c"}), "a[aab]");
  EXPECT_EQ(Feed({"ababc"}, {"abab", "ababc"}), "abab[ababc]");
}

TEST(StopMatcherTest, FlushReturnsWhatWasHeldAndBeginsAnew) {
  StopMatcher matcher = Make({"END"});
  EXPECT_EQ(matcher.Append("the EN"), "the ");
  EXPECT_EQ(matcher.Flush(), "EN");
  EXPECT_EQ(matcher.Append("D"), "D");
  EXPECT_EQ(Feed(matcher, {"END"}), "[END]");
  EXPECT_FALSE(matcher.stopped());
}

TEST(StopMatcherTest, TheOneThatEndsFirstWinsAndThenTheLonger) {
  EXPECT_EQ(Feed({"abcd", "bc"}, {"xabcd"}), "xa[bc]");
  EXPECT_EQ(Feed({"c", "bc", "abc"}, {"xabc"}), "x[abc]");
  EXPECT_EQ(Feed({"one", "two"}, {"two one"}), "[two]");
}

TEST(StopMatcherTest, CharactersAreNeverCut) {
  StopMatcher matcher = Make({});
  EXPECT_EQ(matcher.Append("\xE2\x82"), "");
  EXPECT_EQ(matcher.Append("\xAC!\xF0\x9F\x98"), "€!");
  EXPECT_EQ(matcher.Append("\x80"), "😀");
  // "ä" and "ö" share their first byte.
  StopMatcher umlaut = Make({"ä"});
  EXPECT_EQ(umlaut.Append("\xC3"), "");
  EXPECT_EQ(umlaut.Append("\xB6"), "ö");
  EXPECT_EQ(Feed(umlaut, {"b\xC3", "\xA4z"}), "b[ä]");
}

// Expected values are those of Python: bytes.decode("utf-8", errors="replace").
TEST(StopMatcherTest, BytesOfNoCharacterAreReplacedAsPythonDoes) {
  EXPECT_EQ(Feed({}, {"a\x80z"}), "a\uFFFDz");
  EXPECT_EQ(Feed({}, {"\xC0\xAF"}), "\uFFFD\uFFFD");                      // overlong
  EXPECT_EQ(Feed({}, {"\xED\xA0\x80"}), "\uFFFD\uFFFD\uFFFD");            // surrogate
  EXPECT_EQ(Feed({}, {"\xF4\x90\x80\x80"}), "\uFFFD\uFFFD\uFFFD\uFFFD");  // above U+10FFFF
  EXPECT_EQ(Feed({}, {"\xE2\x82", "a"}),
            "\uFFFD"
            "a");                                   // one for a maximal subpart
  EXPECT_EQ(Feed({}, {"\xF0\x9F\x98"}), "\uFFFD");  // cut off by the end
}

TEST(StopMatcherTest, StopStringsThatCannotWorkAreRefused) {
  const auto created = [](std::vector<std::string> stops) { return StopMatcher::Create(stops); };
  EXPECT_THAT(created({""}), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("empty")));
  EXPECT_THAT(created({"\xC3"}), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("UTF-8")));
  EXPECT_THAT(created({std::string(1025, 'x')}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("bytes=1025")));
  EXPECT_THAT(created(std::vector<std::string>(65, "x")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("n=65")));
}

// What the header promises, by brute force: the stop that ends first, of those the longest.
std::string Reference(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    const std::string* best = nullptr;
    for (const std::string& stop : stops) {
      if (stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0 &&
          (best == nullptr || stop.size() > best->size())) {
        best = &stop;
      }
    }
    if (best != nullptr) return text.substr(0, end - best->size()) + "[" + *best + "]";
  }
  return text;
}

TEST(StopMatcherTest, TheOutputDoesNotDependOnWhereTheInputIsCut) {
  std::mt19937 random(11);
  const std::vector<std::string> alphabet = {"a", "b", "ä", "ö", "€"};
  const auto word = [&](size_t n) {
    std::string text;
    for (size_t i = 0; i < n; ++i) text += alphabet[random() % alphabet.size()];
    return text;
  };
  int n_stopped = 0;
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> stops;
    for (size_t i = 0; i < 1 + random() % 3; ++i) stops.push_back(word(1 + random() % 4));
    const std::string text = word(random() % 20);
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      pieces.push_back(text.substr(at, 1 + random() % 5));
      at += pieces.back().size();
    }
    const std::string expected = Reference(stops, text);
    n_stopped += expected.back() == ']';
    ASSERT_EQ(Feed(stops, pieces), expected) << "text " << text << ", first stop " << stops[0];
  }
  EXPECT_GT(n_stopped, 500);
}

}  // namespace
}  // namespace coterie
