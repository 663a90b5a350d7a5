#include "core/formats/unicode.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "core/formats/pretokenizer.h"
#include "core/formats/utf8.h"

namespace coterie {
namespace {

using ::testing::ElementsAre;

TEST(Utf8Test, EveryCodePointIsReadAsItWasWritten) {
  for (uint32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    AppendUtf8(c, &text);
    ASSERT_EQ(FindInvalidUtf8(text), text.size()) << c;
    ASSERT_EQ(DecodeUtf8(text.data()).code_point, c);
    ASSERT_EQ(DecodeUtf8(text.data()).n_bytes, text.size());
  }
}

TEST(Utf8Test, IllFormedSequencesAreFoundWhereTheyBegin) {
  for (const char* bad : {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC3", "\xE0\x80\x80",
                          "\xE2\x82", "\xED\xA0\x80", "\xF0\x80\x80\x80", "\xF4\x90\x80\x80",
                          "\xF5\x80\x80\x80", "\xFF", "\xC3(", "\xE2\x82(", "\xF0\x9F\x92("}) {
    for (const char* before : {"", "abc", "0123456789abcdef", "\xC3\xA9"}) {
      const std::string text = std::string(before) + bad;
      EXPECT_EQ(FindInvalidUtf8(text), std::string(before).size()) << bad;
      EXPECT_EQ(FindInvalidUtf8(text + "0123456789"), std::string(before).size()) << bad;
    }
  }
}

TEST(UnicodeTest, ClassesFollowTheirProperties) {
  EXPECT_EQ(UnicodeClass('a') & (kUnicodeLetter | kUnicodeNumber), kUnicodeLetter);
  EXPECT_EQ(UnicodeClass(0xBD) & (kUnicodeLetter | kUnicodeNumber), kUnicodeNumber);  // One half.
  EXPECT_NE(UnicodeClass(0x85) & kUnicodeSpace, 0);
  EXPECT_EQ(UnicodeClass(0x1C) & kUnicodeSpace, 0);
  EXPECT_EQ(UnicodeClass(0x10FFFF) & (kUnicodeLetter | kUnicodeSpace), 0);
}

std::string Nfc(const std::string& text) {
  return IsSurelyNfc(text) ? text : NormalizeNfc(text).text;
}

TEST(UnicodeTest, NfcComposesAndReorders) {
  EXPECT_EQ(Nfc("e\u0301"), "\u00e9");
  EXPECT_EQ(Nfc("q\u0323\u0307"), "q\u0323\u0307");
  EXPECT_EQ(Nfc("q\u0307\u0323"), "q\u0323\u0307");
  EXPECT_EQ(Nfc("a\u0328\u0301"), "\u0105\u0301");
  EXPECT_EQ(Nfc("\u212b"), "\u00c5");                // Angstrom sign.
  EXPECT_EQ(Nfc("\u1100\u1161\u11a8x"), "\uac01x");  // Hangul.
  EXPECT_EQ(Nfc("\u0958"), "\u0915\u093c");          // Excluded from composition.
  EXPECT_EQ(Nfc("plain \u00e9 \u4e00"), "plain \u00e9 \u4e00");
}

TEST(UnicodeTest, NfcTellsWhereEachStretchCameFrom) {
  const Normalized normalized = NormalizeNfc("abe\u0301cd");
  EXPECT_EQ(normalized.text, "ab\u00e9cd");
  ASSERT_EQ(normalized.borders.size(), 3u);
  EXPECT_EQ(normalized.borders[1].to, 2u);
  EXPECT_EQ(normalized.borders[1].from, 2u);
  EXPECT_EQ(normalized.borders[2].to, 4u);
  EXPECT_EQ(normalized.borders[2].from, 5u);
}

std::vector<std::string> Pieces(PretokenizerKind kind, const std::string& text) {
  std::vector<std::string> pieces;
  Pretokenizer pretokenizer(kind, text);
  for (auto piece = pretokenizer.Next(); !piece.empty(); piece = pretokenizer.Next()) {
    pieces.emplace_back(piece);
  }
  return pieces;
}

TEST(PretokenizerTest, Gpt2KeepsOneSpaceWithTheWordAndLeavesTheRest) {
  EXPECT_THAT(Pieces(PretokenizerKind::kGpt2, "I've  2 cats!!\n\n x "),
              ElementsAre("I", "'ve", " ", " 2", " cats", "!!", "\n\n", " x", " "));
}

TEST(PretokenizerTest, SmollmSetsEveryDigitApart) {
  EXPECT_THAT(Pieces(PretokenizerKind::kSmollm, "a 12  3"),
              ElementsAre("a", " ", "1", "2", "  ", "3"));
}

TEST(PretokenizerTest, Llama3TakesThreeDigitsAndNewlinesAfterSigns) {
  EXPECT_THAT(Pieces(PretokenizerKind::kLlama3, "12345 WE'LL go();\n\n\tx \n y"),
              ElementsAre("123", "45", " WE", "'LL", " go", "();\n\n", "\tx", " \n", " y"));
}

TEST(PretokenizerTest, Qwen2TakesOneDigit) {
  EXPECT_THAT(Pieces(PretokenizerKind::kQwen2, "x=12 'S\u017f"),
              ElementsAre("x", "=", "1", "2", " '", "S\u017f"));
  EXPECT_THAT(Pieces(PretokenizerKind::kQwen2, "a'\u017f"), ElementsAre("a", "'\u017f"));
}

}  // namespace
}  // namespace coterie
