// Ids against those of Hugging Face tokenizers: make_tokenizer_golden.py beside writes the cases.

#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "core/base/status_macros.h"
#include "core/formats/gguf_file.h"
#include "core/formats/tokenizer.h"
#include "core/formats/tokenizer_json.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using nlohmann::json;

absl::StatusOr<std::unique_ptr<const Tokenizer>> FromListedTokens(const json& head) {
  const auto tokens = head["tokens"].get<std::vector<std::string>>();
  const auto merges = head.value("merges", std::vector<std::string>());
  TokenizerVocabulary vocabulary;
  vocabulary.origin = "golden";
  vocabulary.tokens.assign(tokens.begin(), tokens.end());
  vocabulary.merges.assign(merges.begin(), merges.end());
  for (const int type : head["types"]) vocabulary.types.push_back(static_cast<TokenType>(type));
  vocabulary.pre = head.value("pre", "");
  if (head.contains("scores")) {
    vocabulary.family = TokenizerFamily::kSentencePiece;
    vocabulary.scores = head["scores"].get<std::vector<float>>();
    vocabulary.adds_space = head["adds_space"].get<bool>();
  }
  return Tokenizer::FromVocabulary(vocabulary);
}

absl::StatusOr<std::unique_ptr<const Tokenizer>> FromModelFile(const json& head) {
  auto file = GgufFile::Open(head["gguf"].get<std::string>());
  if (!file.ok()) return file.status();
  std::vector<std::string> storage;
  auto vocabulary = TokenizerVocabulary::FromGguf(**file, &storage);
  if (!vocabulary.ok()) return vocabulary.status();
  if (head.contains("pre")) vocabulary->pre = head["pre"].get<std::string>();
  vocabulary->prefix.clear();
  return Tokenizer::FromVocabulary(*vocabulary);
}

// The tokenizers that the first line of a file describes: one in Hugging Face's form, and the same
// in the form of model files if they can hold it.
absl::StatusOr<std::vector<std::unique_ptr<const Tokenizer>>> TokenizersOf(const json& head) {
  std::vector<std::unique_ptr<const Tokenizer>> tokenizers;
  const std::string text = head["tokenizer"].dump();
  COTERIE_ASSIGN_OR_RETURN(tokenizers.emplace_back(),
                           TokenizerFromHuggingFace({.name = "golden", .tokenizer = text}));
  if (head.contains("wordpiece")) {
    const auto lines = head["wordpiece"].get<std::vector<std::string>>();
    COTERIE_ASSIGN_OR_RETURN(tokenizers.emplace_back(),
                             Tokenizer::FromVocabulary(WordPieceVocabulary(lines)));
  } else if (head.contains("gguf")) {
    COTERIE_ASSIGN_OR_RETURN(tokenizers.emplace_back(), FromModelFile(head));
  } else if (head.contains("tokens")) {
    COTERIE_ASSIGN_OR_RETURN(tokenizers.emplace_back(), FromListedTokens(head));
  }
  return tokenizers;
}

void ExpectAllCasesEqual(const std::string& path) {
  std::ifstream in(path);
  ASSERT_TRUE(in.good()) << path;
  std::string line;
  std::getline(in, line);
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto tokenizers, TokenizersOf(json::parse(line)));
  int n_cases = 0, n_wrong = 0;
  while (std::getline(in, line)) {
    const json row = json::parse(line);
    const auto text = row[0].get<std::string>();
    const auto wanted = row[1].get<std::vector<TokenId>>();
    ++n_cases;
    for (const auto& tokenizer : tokenizers) {
      COTERIE_ASSERT_OK_AND_ASSIGN(const std::vector<TokenId> ids,
                                   tokenizer->Encode(text, true, true));
      if (ids == wanted || ++n_wrong > 10) continue;
      ADD_FAILURE() << "\"" << absl::Utf8SafeCEscape(text) << "\"\n  ours "
                    << ::testing::PrintToString(ids) << "\n  reference " << row[1].dump();
    }
  }
  EXPECT_EQ(n_wrong, 0) << "of " << n_cases << " in " << path;
  EXPECT_GT(n_cases, 0);
  ::testing::Test::RecordProperty("n_cases", n_cases);
}

// The committed cases, and a file that a person names: see make_tokenizer_golden.py.
std::vector<std::string> CaseFiles() {
  std::vector<std::string> paths;
  for (const char* family :
       {"gpt2", "smollm", "llama3", "qwen2", "sentencepiece", "sentencepiece_prefix", "wordpiece",
        "flags_qwen2", "flags_llama3", "flags_sentencepiece"}) {
    paths.push_back(absl::StrCat(COTERIE_TEST_DATA, "/tokenizers/", family, ".jsonl"));
  }
  const char* extra = std::getenv("COTERIE_TOKENIZER_CASES");
  if (extra != nullptr) paths.push_back(extra);
  return paths;
}

std::string NameOf(const ::testing::TestParamInfo<std::string>& info) {
  const size_t begin = info.param.rfind('/') + 1;
  std::string name = info.param.substr(begin, info.param.rfind('.') - begin);
  for (char& c : name) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return name;
}

class TokenizerGoldenTest : public ::testing::TestWithParam<std::string> {};

TEST_P(TokenizerGoldenTest, IdsEqualTheReference) { ExpectAllCasesEqual(GetParam()); }

INSTANTIATE_TEST_SUITE_P(Cases, TokenizerGoldenTest, ::testing::ValuesIn(CaseFiles()), NameOf);

}  // namespace
}  // namespace coterie
