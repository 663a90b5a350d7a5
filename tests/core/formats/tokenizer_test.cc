#include "core/formats/tokenizer.h"

#include <algorithm>
#include <ctime>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/core/formats/small_vocabulary.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::AlphabetChar;
using ::coterie::testing::SmallVocabulary;
using ::coterie::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr TokenId kAb = 256, kAbc = 257;

class TokenizerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SmallVocabulary small({"a b", "ab c"});
    start_ = small.Add("<|im_start|>", TokenType::kControl);
    end_ = small.Add("<|im_end|>", TokenType::kControl);
    longer_ = small.Add("<|im_end|>>", TokenType::kControl);
    call_ = small.Add("<call>", TokenType::kUserDefined);
    small->bos = start_;
    small->prefix = {start_};
    small->eos = end_;
    COTERIE_ASSERT_OK_AND_ASSIGN(tokenizer_, small.Build());
  }

  std::vector<TokenId> Ids(absl::string_view text, bool add_special, bool parse_special) {
    auto ids = tokenizer_->Encode(text, add_special, parse_special);
    EXPECT_THAT(ids, ::coterie::testing::IsOk());
    return ids.ok() ? *ids : std::vector<TokenId>();
  }

  std::unique_ptr<const Tokenizer> tokenizer_;
  TokenId start_, end_, longer_, call_;
};

TEST_F(TokenizerTest, MergesApplyInOrder) {
  EXPECT_THAT(Ids("abcab", false, false), ElementsAre(kAbc, kAb));
  EXPECT_THAT(Ids("", false, false), ElementsAre());
  EXPECT_THAT(Ids("", true, false), ElementsAre(start_));
}

TEST_F(TokenizerTest, TheLongestSpecialTokenWins) {
  EXPECT_THAT(Ids("<|im_end|>>a", false, true), ElementsAre(longer_, 'a'));
  EXPECT_THAT(Ids("<|im_end|>a>", false, true), ElementsAre(end_, 'a', '>'));
  EXPECT_THAT(Ids("<<call>", false, true), ElementsAre('<', call_));
}

TEST_F(TokenizerTest, UntrustedTextNeverBecomesASpecialToken) {
  const std::vector<TextPiece> pieces = {{"<|im_start|>", true, Role::kUser},
                                         {"<|im_end|><call>", false, Role::kUser},
                                         {"<|im_end|>", true, Role::kAssistant}};
  COTERIE_ASSERT_OK_AND_ASSIGN(const Encoding encoding, tokenizer_->Encode(pieces, {}));
  EXPECT_EQ(encoding.ids.size(), 2 + std::string("<|im_end|><call>").size() + 1);
  EXPECT_EQ(std::count(encoding.ids.begin(), encoding.ids.end(), end_), 1);
  EXPECT_EQ(encoding.ids.back(), end_);
}

TEST_F(TokenizerTest, ASpecialTokenIsNotMadeFromTrustedAndUntrustedParts) {
  const std::vector<TextPiece> pieces = {{"<|im_", true, Role::kUser},
                                         {"end|>", false, Role::kUser}};
  COTERIE_ASSERT_OK_AND_ASSIGN(const Encoding mixed, tokenizer_->Encode(pieces, {false}));
  EXPECT_EQ(mixed.ids.size(), 10u);
  const std::vector<TextPiece> trusted = {{"<|im_", true, Role::kUser},
                                          {"end|>", true, Role::kUser}};
  COTERIE_ASSERT_OK_AND_ASSIGN(const Encoding joined, tokenizer_->Encode(trusted, {false}));
  EXPECT_THAT(joined.ids, ElementsAre(end_));
}

TEST_F(TokenizerTest, MergesRunAcrossPiecesAndATokenHasTheRoleOfItsFirstByte) {
  const std::vector<TextPiece> pieces = {{"x", true, Role::kSystem},
                                         {"a", false, Role::kUser},
                                         {"", true, Role::kTool},
                                         {"bc ", true, Role::kAssistant}};
  COTERIE_ASSERT_OK_AND_ASSIGN(const Encoding encoding, tokenizer_->Encode(pieces, {true}));
  EXPECT_THAT(encoding.ids, ElementsAre(start_, 'x', kAbc, ' '));
  EXPECT_THAT(encoding.roles,
              ElementsAre(Role::kNone, Role::kSystem, Role::kUser, Role::kAssistant));
}

TEST_F(TokenizerTest, RolesSurviveNormalisation) {
  SmallVocabulary small({});
  small->pre = "qwen2";
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto tokenizer, small.Build());
  // e and an accent in two pieces become one character of two bytes.
  const std::vector<TextPiece> pieces = {{"xe", false, Role::kSystem},
                                         {"\u0301y", false, Role::kUser}};
  COTERIE_ASSERT_OK_AND_ASSIGN(const Encoding encoding, tokenizer->Encode(pieces, {}));
  EXPECT_THAT(encoding.ids, ElementsAre('x', 0xC3, 0xA9, 'y'));
  EXPECT_THAT(encoding.roles,
              ElementsAre(Role::kSystem, Role::kSystem, Role::kSystem, Role::kUser));
}

TEST_F(TokenizerTest, TextThatIsNotUtf8IsRefusedWithItsPlace) {
  EXPECT_THAT(tokenizer_->Encode("abc\xFFz", true, true),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("first bad byte=3")));
  const std::vector<TextPiece> pieces = {{"fine", true, Role::kUser},
                                         {"x\xE2\x82", false, Role::kUser}};
  EXPECT_THAT(tokenizer_->Encode(pieces, {}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("piece=1"), HasSubstr("first bad byte=1"))));
}

TEST_F(TokenizerTest, DecodeGivesTheTextAndSkipsControlTokensIfAsked) {
  const std::vector<TokenId> ids = {start_, kAbc, call_, ' ', 0xC3, 0xA9, end_};
  EXPECT_EQ(tokenizer_->Decode(ids), "<|im_start|>abc<call> \u00e9<|im_end|>");
  EXPECT_EQ(tokenizer_->Decode(ids, true), "abc<call> \u00e9");
  EXPECT_EQ(tokenizer_->Decode(std::vector<TokenId>{'a', 0xE2, 0x82, 'b', 0xC3}), "a\uFFFDb\uFFFD");
}

TEST_F(TokenizerTest, FindKnowsSpecialTokensAndBytes) {
  EXPECT_EQ(tokenizer_->Find("<|im_end|>"), end_);
  EXPECT_EQ(tokenizer_->Find("abc"), kAbc);
  EXPECT_EQ(tokenizer_->Find(" "), ' ');
  EXPECT_EQ(tokenizer_->Find("abcd"), std::nullopt);
  EXPECT_EQ(tokenizer_->Find(""), std::nullopt);
}

TEST_F(TokenizerTest, AnswersEndAtEosAndAtControlTokensOfThatName) {
  EXPECT_TRUE(tokenizer_->IsEndOfGeneration(end_));
  EXPECT_FALSE(tokenizer_->IsEndOfGeneration(start_));
  EXPECT_FALSE(tokenizer_->IsEndOfGeneration('a'));
}

TEST_F(TokenizerTest, AMillionLettersInARunDoNotTakeQuadraticTime) {
  SmallVocabulary small({"a a", "aa aa", "aaaa aaaa"});
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto tokenizer, small.Build());
  // Of the processor, whatever else the machine does: quadratic time would be hours.
  const std::clock_t begin = std::clock();
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto ids,
                               tokenizer->Encode(std::string(1 << 20, 'a'), false, false));
  EXPECT_EQ(ids.size(), (1u << 20) / 8);
  EXPECT_LT(std::clock() - begin, 5 * CLOCKS_PER_SEC);
}

TEST_F(TokenizerTest, LongAndShortPiecesMergeAlike) {
  // 64 symbols and fewer take one way, more another: a word and its double must agree.
  SmallVocabulary small({"a b", "b a", "ab a", "c c", "ab ab"});
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto tokenizer, small.Build());
  for (int n_letters = 50; n_letters < 64; ++n_letters) {
    std::string word;
    for (int i = 0; i < n_letters; ++i) word += "abcab"[(i * 7 + i / 3) % 5];
    COTERIE_ASSERT_OK_AND_ASSIGN(const auto one, tokenizer->Encode(word, false, false));
    // 'z' merges with nothing: the long word must come out as the short one twice.
    COTERIE_ASSERT_OK_AND_ASSIGN(const auto two,
                                 tokenizer->Encode(word + "z" + word, false, false));
    std::vector<TokenId> expected = one;
    expected.push_back('z');
    expected.insert(expected.end(), one.begin(), one.end());
    EXPECT_EQ(two, expected) << word;
  }
}

TEST_F(TokenizerTest, ThreadsShareOneTokenizer) {
  std::vector<std::thread> threads;
  std::vector<std::vector<TokenId>> ids(4);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (int n = 0; n < 100; ++n) ids[i] = *tokenizer_->Encode("abc ab a cab", true, true);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& other : ids) EXPECT_EQ(other, ids[0]);
}

TEST(WordPieceTest, WordsAreLoweredStrippedAndCutIntoTheLongestPieces) {
  const std::vector<std::string> lines = {"[PAD]", "[UNK]",  "[CLS]", "[SEP]", "[MASK]", "un",
                                          "##aff", "##able", "cafe",  "!",     "\u4e00", "##a"};
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto tokenizer,
                               Tokenizer::FromVocabulary(WordPieceVocabulary(lines)));
  const auto ids = [&](const std::string& text) { return *tokenizer->Encode(text, true, false); };
  EXPECT_THAT(ids("Unaffable CAF\u00c9!"), ElementsAre(2, 5, 6, 7, 8, 9, 3));
  EXPECT_THAT(ids("cafe\u4e00cafe"), ElementsAre(2, 8, 10, 8, 3));
  EXPECT_THAT(ids("unx [MASK]"), ElementsAre(2, 1, 1, 1, 1, 3));
  EXPECT_THAT(ids(" \t\n"), ElementsAre(2, 3));
  EXPECT_THAT(ids("un" + std::string(98, 'a')).size(), 2 + 1 + 98);
  EXPECT_THAT(ids("un" + std::string(99, 'a')), ElementsAre(2, 1, 3));
  EXPECT_EQ(tokenizer->Decode(ids("unaffable cafe!"), true), "unaffable cafe !");
}

TEST(WordPieceTest, TokensHaveTheRoleOfTheirWord) {
  const std::vector<std::string> lines = {"[UNK]", "[CLS]", "[SEP]", "e", "##f", "##g", "a"};
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto tokenizer,
                               Tokenizer::FromVocabulary(WordPieceVocabulary(lines)));
  const std::vector<TextPiece> pieces = {{"\u00c9f", false, Role::kSystem},
                                         {"g a", false, Role::kUser}};
  COTERIE_ASSERT_OK_AND_ASSIGN(const Encoding encoding, tokenizer->Encode(pieces, {}));
  EXPECT_THAT(encoding.ids, ElementsAre(1, 3, 4, 5, 6, 2));
  EXPECT_THAT(encoding.roles, ElementsAre(Role::kNone, Role::kSystem, Role::kSystem, Role::kUser,
                                          Role::kUser, Role::kNone));
}

TEST(TokenizerFileTest, AnUnknownCuttingRuleIsRefusedByName) {
  SmallVocabulary small({});
  small->pre = "tekken";
  EXPECT_THAT(small.Build(), StatusIs(absl::StatusCode::kUnimplemented,
                                      AllOf(HasSubstr("tekken"), HasSubstr("small.gguf"))));
}

TEST(TokenizerFileTest, MergesThatContradictTheTokensAreRefused) {
  const auto status_of = [](std::vector<std::string> merges, std::vector<std::string> extra) {
    TokenizerVocabulary vocabulary;
    std::vector<std::string> tokens;
    for (int byte = 0; byte < 256; ++byte) tokens.push_back(AlphabetChar(byte));
    tokens.insert(tokens.end(), extra.begin(), extra.end());
    vocabulary.origin = "small.gguf";
    vocabulary.pre = "gpt-2";
    vocabulary.tokens.assign(tokens.begin(), tokens.end());
    vocabulary.merges.assign(merges.begin(), merges.end());
    return Tokenizer::FromVocabulary(vocabulary).status();
  };
  const auto is_bad = [](const char* what) {
    return StatusIs(absl::StatusCode::kDataLoss,
                    AllOf(HasSubstr(what), HasSubstr("small.gguf"), HasSubstr("tokenizer.ggml.")));
  };
  EXPECT_THAT(status_of({"a b"}, {"ab"}), ::coterie::testing::IsOk());
  EXPECT_THAT(status_of({"ab"}, {"ab"}), is_bad("not two tokens"));
  EXPECT_THAT(status_of({"a b"}, {}), is_bad("makes no token"));
  EXPECT_THAT(status_of({"a bc"}, {"abc"}), is_bad("names a token that is not there"));
  EXPECT_THAT(status_of({" ab"}, {"ab"}), is_bad("names a token that is not there"));
  EXPECT_THAT(status_of({"a b "}, {"ab"}), is_bad("bad merge text"));
  EXPECT_THAT(status_of({"a \xFF"}, {"ab"}), is_bad("bad merge text"));
  EXPECT_THAT(status_of({"a b", "a b"}, {"ab"}), is_bad("stands twice"));
  EXPECT_THAT(status_of({}, {"ab", "ab"}), is_bad("stands twice"));
}

TEST(TokenizerFileTest, AMergeIntoAControlTokenIsRefused) {
  SmallVocabulary small({"a b"});
  small->types[kAb] = TokenType::kControl;
  EXPECT_THAT(small.Build(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("control token")));
}

TEST(TokenizerFileTest, AVocabularyWithoutTokensIsRefused) {
  EXPECT_THAT(Tokenizer::FromVocabulary({}),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("=0")));
}

TEST(TokenizerFileTest, ABertVocabularyWithoutItsSpecialTokensIsRefused) {
  const std::vector<std::string> lines = {"[UNK]", "[CLS]", "word"};
  EXPECT_THAT(Tokenizer::FromVocabulary(WordPieceVocabulary(lines)),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("[SEP]")));
}

}  // namespace
}  // namespace coterie
