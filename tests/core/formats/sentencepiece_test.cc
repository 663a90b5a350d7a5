// Vocabularies of characters with scores, and files of that kind that contradict themselves.

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "core/formats/tokenizer.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr TokenId kBos = 1, kTag = 2, kNewlines = 3, kSpaces = 4, kByte0 = 5;
constexpr TokenId kPieces = kByte0 + 256;

// Control tokens, symbols, all bytes, and then pieces, of which the first has the best score.
struct Characters {
  explicit Characters(const std::vector<std::string>& pieces) {
    const auto add = [this](const std::string& text, TokenType type, float score) {
      texts.push_back(text);
      types.push_back(type);
      scores.push_back(score);
    };
    add("<unk>", TokenType::kControl, 0);
    add("<bos>", TokenType::kControl, 0);
    add("<b>", TokenType::kUserDefined, 0);
    add("\n\n", TokenType::kUserDefined, 0);
    add("  ", TokenType::kUserDefined, 0);
    for (int byte = 0; byte < 256; ++byte) {
      constexpr char kDigits[] = "0123456789ABCDEF";
      add(std::string("<0x") + kDigits[byte / 16] + kDigits[byte % 16] + ">", TokenType::kByte, 0);
    }
    for (size_t i = 0; i < pieces.size(); ++i) {
      add(pieces[i], TokenType::kNormal, -static_cast<float>(i));
    }
  }

  absl::StatusOr<std::unique_ptr<const Tokenizer>> Build() const {
    TokenizerVocabulary vocabulary;
    vocabulary.origin = "small.gguf";
    vocabulary.family = TokenizerFamily::kSentencePiece;
    vocabulary.tokens.assign(texts.begin(), texts.end());
    vocabulary.types = types;
    vocabulary.scores = scores;
    vocabulary.bos = kBos;
    vocabulary.unknown = 0;
    vocabulary.adds_space = adds_space;
    return Tokenizer::FromVocabulary(vocabulary);
  }

  std::vector<std::string> texts;
  std::vector<TokenType> types;
  std::vector<float> scores;
  bool adds_space = false;
};

std::vector<TokenId> Ids(const Tokenizer& tokenizer, absl::string_view text, bool trusted = true) {
  const auto ids = tokenizer.Encode(text, false, trusted);
  EXPECT_THAT(ids, ::coterie::testing::IsOk());
  return ids.ok() ? *ids : std::vector<TokenId>();
}

TEST(SentencePieceTest, TheBestScoreMergesFirstWhereverItStands) {
  Characters characters({"bc", "ab", "abc", "a", "b", "c"});
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto tokenizer, characters.Build());
  // a+bc would be abc, but bc with d is cut off by no token: a, bc -> abc.
  EXPECT_THAT(Ids(*tokenizer, "abc"), ElementsAre(kPieces + 2));
  EXPECT_THAT(Ids(*tokenizer, "abab"), ElementsAre(kPieces + 1, kPieces + 1));
  EXPECT_THAT(Ids(*tokenizer, "cab"), ElementsAre(kPieces + 5, kPieces + 1));
}

TEST(SentencePieceTest, TwoTokensMergeOnlyIntoAToken) {
  // abcd is a token, but no two others make it.
  Characters characters({"abcd", "ab", "a", "b", "c", "d"});
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto tokenizer, characters.Build());
  EXPECT_THAT(Ids(*tokenizer, "abcd"), ElementsAre(kPieces + 1, kPieces + 4, kPieces + 5));
}

TEST(SentencePieceTest, OfEqualMergesTheOneWithTheLongestLeftSideGoesFirst) {
  // "aaa" can be a+aa or aa+a: of a, aa, a the reference joins aa+a, though a+aa stands first.
  Characters characters({"aa", "aaa", "a", "b", "ba"});
  characters.scores[kPieces + 4] = 1;  // b takes the first a.
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto tokenizer, characters.Build());
  EXPECT_THAT(Ids(*tokenizer, "aaaaa"), ElementsAre(kPieces, kPieces + 1));
  EXPECT_THAT(Ids(*tokenizer, "baaa"), ElementsAre(kPieces + 4, kPieces));
}

TEST(SentencePieceTest, SpacesAndTheirMarkAreOneAndDecodeAsSpaces) {
  Characters characters({"\u2581a", "a", "\u2581"});
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto tokenizer, characters.Build());
  EXPECT_THAT(Ids(*tokenizer, "a a"), ElementsAre(kPieces + 1, kPieces));
  EXPECT_THAT(Ids(*tokenizer, "a\u2581a"), ElementsAre(kPieces + 1, kPieces));
  EXPECT_EQ(tokenizer->Decode(Ids(*tokenizer, "a a")), "a a");
}

TEST(SentencePieceTest, CharactersWithoutATokenAreSpeltInBytes) {
  Characters characters({"a"});
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto tokenizer, characters.Build());
  EXPECT_THAT(Ids(*tokenizer, "a\u00e9"), ElementsAre(kPieces, kByte0 + 0xC3, kByte0 + 0xA9));
  EXPECT_EQ(tokenizer->Decode(Ids(*tokenizer, "a\u00e9a")), "a\u00e9a");
}

TEST(SentencePieceTest, WithoutAllBytesStrangeCharactersAreOneUnknownToken) {
  Characters characters({"a"});
  characters.types[kByte0 + 0xC3] = TokenType::kUnused;
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto tokenizer, characters.Build());
  EXPECT_THAT(Ids(*tokenizer, "a\u00e9\u00e9\u00ea!"), ElementsAre(kPieces, 0, kByte0 + '!'));
}

TEST(SentencePieceTest, WhiteSpaceSymbolsAreTextAndOthersAreNot) {
  Characters characters({"\u2581a", "a", "b", "<", ">", "<b", "\u2581"});
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto tokenizer, characters.Build());
  for (const bool trusted : {false, true}) {
    EXPECT_THAT(Ids(*tokenizer, "\n\na", trusted), ElementsAre(kNewlines, kPieces + 1));
    EXPECT_THAT(Ids(*tokenizer, "  a", trusted), ElementsAre(kSpaces, kPieces + 1));
    EXPECT_THAT(Ids(*tokenizer, "\u2581\u2581a", trusted), ElementsAre(kSpaces, kPieces + 1));
  }
  EXPECT_THAT(Ids(*tokenizer, "<b>", true), ElementsAre(kTag));
  // "<b" and ">" would make it, if merges could.
  EXPECT_THAT(Ids(*tokenizer, "<b>", false), ElementsAre(kPieces + 5, kPieces + 4));
}

TEST(SentencePieceTest, WhiteSpaceSymbolsReachAcrossPieces) {
  Characters characters({"a"});
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto tokenizer, characters.Build());
  const std::vector<TextPiece> pieces = {{"<b>\n", true, Role::kUser}, {"\na", false, Role::kTool}};
  COTERIE_ASSERT_OK_AND_ASSIGN(const Encoding encoding, tokenizer->Encode(pieces, {false}));
  EXPECT_THAT(encoding.ids, ElementsAre(kTag, kNewlines, kPieces));
  EXPECT_THAT(encoding.roles, ElementsAre(Role::kUser, Role::kUser, Role::kTool));
}

TEST(SentencePieceTest, ASpaceIsPutBeforeEveryStretchWhereTheFileSaysSo) {
  Characters characters({"\u2581a", "a", "\u2581"});
  characters.adds_space = true;
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto tokenizer, characters.Build());
  EXPECT_THAT(Ids(*tokenizer, "aa<b>a"), ElementsAre(kPieces, kPieces + 1, kTag, kPieces));
  EXPECT_THAT(Ids(*tokenizer, ""), ElementsAre());
  EXPECT_EQ(tokenizer->Decode(Ids(*tokenizer, "aa")), "aa");
  // Roles are those of the text, not of the space.
  const std::vector<TextPiece> pieces = {
      {"a", true, Role::kUser}, {"\u2581a", false, Role::kTool}, {"a", false, Role::kSystem}};
  COTERIE_ASSERT_OK_AND_ASSIGN(const Encoding encoding, tokenizer->Encode(pieces, {false}));
  EXPECT_THAT(encoding.ids, ElementsAre(kPieces, kPieces, kPieces + 1));
  EXPECT_THAT(encoding.roles, ElementsAre(Role::kUser, Role::kTool, Role::kSystem));
}

TEST(SentencePieceTest, VocabulariesThatContradictThemselvesAreRefused) {
  const auto status_of = [](const std::function<void(Characters*)>& change) {
    Characters characters({"ab", "a", "b"});
    change(&characters);
    return characters.Build().status();
  };
  const auto is_bad = [](const char* what) {
    return StatusIs(absl::StatusCode::kDataLoss, AllOf(HasSubstr(what), HasSubstr("small.gguf")));
  };
  EXPECT_THAT(status_of([](Characters*) {}), ::coterie::testing::IsOk());
  EXPECT_THAT(status_of([](Characters* c) { c->scores.pop_back(); }), is_bad("scores"));
  for (const float score : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    EXPECT_THAT(status_of([score](Characters* c) { c->scores.back() = score; }),
                is_bad("a score is not a number"));
  }
  EXPECT_THAT(status_of([](Characters* c) { c->texts.back() = "a"; }), is_bad("stands twice"));
  EXPECT_THAT(status_of([](Characters* c) { c->texts.back() = "a\xE2\x82"; }), is_bad("not UTF-8"));
  for (const char* text : {"<0x-1>", "<0xZZ>", "<0x1>", "", "<0x001>", "x"}) {
    EXPECT_THAT(status_of([text](Characters* c) { c->texts[kByte0] = text; }),
                is_bad("a byte is not spelt"))
        << text;
  }
  EXPECT_THAT(status_of([](Characters* c) { c->texts[kByte0] = "<0x0a>"; }),
              is_bad("a byte has two tokens"));
}

}  // namespace
}  // namespace coterie
