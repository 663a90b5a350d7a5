// Answers of every family of tokenizers, shown token by token: whole characters only, and together
// what decoding all at once gives.

#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "core/formats/utf8.h"
#include "experts/stop_matcher.h"
#include "tests/core/formats/golden_tokenizers.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

// Shows the tokens one by one and compares with showing them all at once.
void ExpectStreamsAsWhole(const Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
  COTERIE_ASSERT_OK_AND_ASSIGN(StopMatcher stream, StopMatcher::Create({}));
  std::string shown, bytes;
  for (size_t i = 0; i <= ids.size(); ++i) {
    bytes.clear();
    if (i < ids.size()) tokenizer.AppendBytes(ids[i], /*is_first=*/i == 0, &bytes);
    const std::string part = i < ids.size() ? stream.Append(bytes) : stream.Flush();
    ASSERT_EQ(FindInvalidUtf8(part), part.size())
        << "half a character at token " << i << ": " << absl::CHexEscape(part);
    shown += part;
  }
  EXPECT_EQ(shown, tokenizer.Decode(ids)) << ::testing::PrintToString(ids);
}

class StreamingDecodeTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    in_.open(absl::StrCat(COTERIE_TEST_DATA, "/tokenizers/", GetParam(), ".jsonl"));
    ASSERT_TRUE(in_.good());
    std::string line;
    std::getline(in_, line);
    COTERIE_ASSERT_OK_AND_ASSIGN(tokenizers_, testing::TokenizersOf(nlohmann::json::parse(line)));
  }

  std::ifstream in_;
  std::vector<std::unique_ptr<const Tokenizer>> tokenizers_;
};

TEST_P(StreamingDecodeTest, TextThatWasEncodedNeverComesInHalfCharacters) {
  for (std::string line; std::getline(in_, line);) {
    const auto ids = nlohmann::json::parse(line)[1].get<std::vector<TokenId>>();
    for (const auto& tokenizer : tokenizers_) ExpectStreamsAsWhole(*tokenizer, ids);
  }
}

// What a model may say: any token after any other, bytes that are no character among them.
TEST_P(StreamingDecodeTest, NorDoTokensAtRandom) {
  std::mt19937 random(7);
  for (const auto& tokenizer : tokenizers_) {
    // Tokens of bytes that are no text, if there are any, half of the time.
    std::vector<TokenId> broken;
    for (TokenId id = 0; id < tokenizer->n_vocab(); ++id) {
      const absl::string_view bytes = tokenizer->TokenBytes(id);
      if (FindInvalidUtf8(bytes) != bytes.size()) broken.push_back(id);
    }
    for (int n = 0; n < 400; ++n) {
      std::vector<TokenId> ids(random() % 12);
      for (TokenId& id : ids) {
        id = !broken.empty() && random() % 2 == 0
                 ? broken[random() % broken.size()]
                 : static_cast<TokenId>(random() % tokenizer->n_vocab());
      }
      ExpectStreamsAsWhole(*tokenizer, ids);
    }
  }
}

TEST_P(StreamingDecodeTest, CharactersSpeltInBytesComeOutWithTheirLast) {
  const std::string text = "a\u00e9\u20ac\U0001F469";
  for (const auto& tokenizer : tokenizers_) {
    std::vector<TokenId> bytes;
    for (const char c : text) {
      for (TokenId id = tokenizer->n_vocab() - 1; id >= 0; --id) {
        if (tokenizer->TokenBytes(id) == absl::string_view(&c, 1)) {
          bytes.push_back(id);
          break;
        }
      }
    }
    if (bytes.size() != text.size()) continue;  // WordPiece has no bytes.
    ExpectStreamsAsWhole(*tokenizer, bytes);
    EXPECT_EQ(tokenizer->Decode(bytes), text);
  }
}

INSTANTIATE_TEST_SUITE_P(Families, StreamingDecodeTest,
                         ::testing::ValuesIn(testing::kGoldenTokenizers),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace coterie
