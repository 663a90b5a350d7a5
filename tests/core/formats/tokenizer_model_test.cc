// The tokenizers inside real model files, on prompts whose ids the reference wrote down.

#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "core/formats/gguf_file.h"
#include "core/formats/tokenizer.h"
#include "tests/model_files.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

class TokenizerModelTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto file = GgufFile::Open(testing::ModelFile(GetParam()));
    COTERIE_ASSERT_OK(file);
    file_ = *std::move(file);
    COTERIE_ASSERT_OK_AND_ASSIGN(tokenizer_, Tokenizer::FromGguf(*file_));
  }

  std::unique_ptr<const GgufFile> file_;
  std::unique_ptr<const Tokenizer> tokenizer_;
};

TEST_P(TokenizerModelTest, GoldenPromptsHaveTheReferenceIds) {
  std::ifstream in(absl::StrCat(COTERIE_TEST_DATA, "/golden/", GetParam(), ".dev.json"));
  ASSERT_TRUE(in.good());
  const nlohmann::json golden = nlohmann::json::parse(in);
  ASSERT_FALSE(golden["rows"].empty());
  for (const nlohmann::json& row : golden["rows"]) {
    const auto prompt = row["prompt"].get<std::string>();
    COTERIE_ASSERT_OK_AND_ASSIGN(const auto ids, tokenizer_->Encode(prompt, true, true));
    EXPECT_EQ(ids, row["ids"].get<std::vector<TokenId>>()) << prompt;
    EXPECT_EQ(tokenizer_->Decode(ids, tokenizer_->Find("<bos>").has_value()), prompt);
    const auto greedy = row["greedy_ids"].get<std::vector<TokenId>>();
    EXPECT_EQ(tokenizer_->Decode(greedy), row["greedy_text"].get<std::string>());
  }
}

TEST_P(TokenizerModelTest, MemoryStaysBelowTheEstimateMadeFromTheFile) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const int64_t estimate, Tokenizer::EstimateBytes(*file_));
  EXPECT_LE(tokenizer_->memory_bytes(), estimate);
  EXPECT_LE(estimate, 4 * tokenizer_->memory_bytes());
}

TEST_P(TokenizerModelTest, EveryPlainTokenIsFoundByItsBytes) {
  const bool has_bytes = tokenizer_->Encode("\U0010FFFE", false, false)->size() == 4 &&
                         !tokenizer_->Find("\xFF").has_value();
  for (TokenId id = 0; id < tokenizer_->n_vocab(); ++id) {
    const absl::string_view bytes = tokenizer_->TokenBytes(id);
    const auto found = tokenizer_->Find(bytes);
    // A vocabulary of characters has bytes besides, for characters that it lacks.
    if (has_bytes && bytes.size() == 1 && found != id) continue;
    if (!found.has_value()) {
      EXPECT_EQ(bytes.substr(0, 4), "[PAD") << "only unused rows may be missing: " << id;
      continue;
    }
    EXPECT_EQ(*found, id) << bytes;
  }
}

TEST_P(TokenizerModelTest, AnswersEndAtTheTurnAndAtTheText) {
  const bool is_gemma = tokenizer_->Find("<end_of_turn>").has_value();
  for (const char* text :
       {is_gemma ? "<end_of_turn>" : "<|im_end|>", is_gemma ? "<eos>" : "<|endoftext|>"}) {
    const auto id = tokenizer_->Find(text);
    ASSERT_TRUE(id.has_value()) << text;
    EXPECT_TRUE(tokenizer_->IsEndOfGeneration(*id)) << text;
  }
  const auto start = tokenizer_->Find(is_gemma ? "<start_of_turn>" : "<|im_start|>");
  ASSERT_TRUE(start.has_value());
  EXPECT_FALSE(tokenizer_->IsEndOfGeneration(*start));
}

INSTANTIATE_TEST_SUITE_P(Models, TokenizerModelTest,
                         ::testing::Values("smollm2-135m", "qwen2.5-coder-0.5b", "gemma-3-270m"),
                         [](const auto& info) { return std::string(info.param).substr(0, 4); });

}  // namespace
}  // namespace coterie
