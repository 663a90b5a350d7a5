#include "router/prompt_text.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace coterie {
namespace {

std::string Numbers(int n) {
  std::string text;
  for (int i = 0; i < n; ++i) absl::StrAppend(&text, i > 0 ? "\n " : "", i);
  return text;
}

TEST(PromptTextTest, ShortPromptsOnlyLoseTheirSpacing) {
  EXPECT_EQ(CutPrompt("  a\t\nb  c\r\n"), "a b c");
}

TEST(PromptTextTest, EightyFiveWordsAreKeptInFull) {
  const std::vector<std::string> words = absl::StrSplit(CutPrompt(Numbers(85)), ' ');
  ASSERT_EQ(words.size(), 85u);
  EXPECT_EQ(words[60], "60");
}

TEST(PromptTextTest, OfMoreWordsTheFirst60AndTheLast25AreKept) {
  const std::vector<std::string> words = absl::StrSplit(CutPrompt(Numbers(500)), ' ');
  ASSERT_EQ(words.size(), 85u);
  EXPECT_EQ(words[59], "59");
  EXPECT_EQ(words[60], "475");
  EXPECT_EQ(words[84], "499");
}

TEST(PromptTextTest, AnEndlessWordKeepsItsEndsOnly) {
  const std::string cut = CutPrompt(std::string(1'000'000, 'a') + "z");
  EXPECT_EQ(cut.size(), 2048u + 1 + 1024);
  EXPECT_EQ(cut.back(), 'z');
}

TEST(PromptTextTest, ACutInsideACharacterDropsIt) {
  std::string text = "x";
  for (int i = 0; i < 3000; ++i) text += "é";
  const std::string cut = CutPrompt(text);
  EXPECT_EQ(cut, ValidUtf8(cut));
  EXPECT_LT(cut.size(), 2048u + 1 + 1024);
  EXPECT_GT(cut.size(), 3000u);
}

TEST(PromptTextTest, BytesThatAreNotUtf8AreDropped) {
  EXPECT_EQ(CutPrompt("caf\xc3\xa9 \xff\xfe ok\xe2\x82"), "caf\xc3\xa9  ok");
  EXPECT_EQ(ValidUtf8("\xed\xa0\x80|\xc0\xaf|\xf4\x90\x80\x80|"), "|||");
}

TEST(PromptTextTest, NothingReadableIsEmpty) {
  EXPECT_EQ(CutPrompt(""), "");
  EXPECT_EQ(CutPrompt(" \n\t "), "");
}

}  // namespace
}  // namespace coterie
