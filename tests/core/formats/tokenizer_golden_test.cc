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

#include "core/formats/tokenizer.h"
#include "tests/core/formats/golden_tokenizers.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using nlohmann::json;

void ExpectAllCasesEqual(const std::string& path) {
  std::ifstream in(path);
  ASSERT_TRUE(in.good()) << path;
  std::string line;
  std::getline(in, line);
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto tokenizers, testing::TokenizersOf(json::parse(line)));
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
  for (const char* set : testing::kGoldenTokenizers) {
    paths.push_back(absl::StrCat(COTERIE_TEST_DATA, "/tokenizers/", set, ".jsonl"));
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
