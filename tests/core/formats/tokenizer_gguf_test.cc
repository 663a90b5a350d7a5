// Tokenizers as GGUF files describe them, and files that contradict themselves.

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "core/formats/gguf_file.h"
#include "core/formats/gguf_writer.h"
#include "core/formats/tokenizer.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The keys of a small tokenizer, any of which a test may change or leave out.
struct Keys {
  std::string model = "gpt2";
  std::string pre = "gpt-2";
  std::vector<std::string> tokens = {"a", "b", "ab", "<s>", "</s>"};
  std::vector<int64_t> types = {1, 1, 1, 3, 3};
  std::vector<std::string> merges = {"a b"};
  std::vector<std::pair<std::string, int64_t>> ids = {{"bos", 3}, {"eos", 4}};
  bool has_merges = true;
  bool has_types = true;
  bool add_bos = true;
};

absl::StatusOr<std::unique_ptr<const Tokenizer>> Open(const Keys& keys) {
  GgufWriter writer;
  writer.SetString("tokenizer.ggml.model", keys.model);
  if (!keys.pre.empty()) writer.SetString("tokenizer.ggml.pre", keys.pre);
  writer.SetStringArray("tokenizer.ggml.tokens", keys.tokens);
  if (keys.has_types) writer.SetIntArray("tokenizer.ggml.token_type", keys.types);
  if (keys.has_merges) writer.SetStringArray("tokenizer.ggml.merges", keys.merges);
  for (const auto& [name, id] : keys.ids) {
    writer.SetInt(absl::StrCat("tokenizer.ggml.", name, "_token_id"), id);
  }
  writer.SetBool("tokenizer.ggml.add_bos_token", keys.add_bos);
  const auto bytes = writer.Serialize();
  if (!bytes.ok()) return bytes.status();
  const auto file = GgufFile::Parse(
      {reinterpret_cast<const uint8_t*>(bytes->data()), bytes->size()}, "test.gguf");
  if (!file.ok()) return file.status();
  return Tokenizer::FromGguf(**file);  // Outlives the file: nothing may point into it.
}

auto IsBad(absl::StatusCode code, const std::string& key) {
  return StatusIs(code, AllOf(HasSubstr(key), HasSubstr("test.gguf")));
}

TEST(TokenizerGgufTest, AByteLevelTokenizerOutlivesItsFile) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto tokenizer, Open({}));
  EXPECT_THAT(*tokenizer->Encode("abba</s>", true, true), ElementsAre(3, 2, 1, 0, 4));
  EXPECT_EQ(tokenizer->bos(), 3);
  EXPECT_TRUE(tokenizer->IsEndOfGeneration(4));
  EXPECT_EQ(tokenizer->n_vocab(), 5);
}

TEST(TokenizerGgufTest, BytesWithoutATokenAreLeftOutAsInTheReference) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto tokenizer, Open({}));
  EXPECT_THAT(*tokenizer->Encode("a!b", false, false), ElementsAre(0, 1));
}

TEST(TokenizerGgufTest, ABertVocabularyInConvertedFormWorks) {
  Keys keys;
  keys.model = "bert";
  keys.pre = "";
  keys.has_merges = false;
  keys.tokens = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u2581un", "do", "\u2581do"};
  keys.types = {3, 3, 3, 3, 1, 1, 1};
  keys.ids = {{"unknown", 1}, {"cls", 2}, {"seperator", 3}};
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto tokenizer, Open(keys));
  EXPECT_THAT(*tokenizer->Encode("Undo do x", true, false), ElementsAre(2, 4, 5, 6, 1, 3));
  EXPECT_EQ(tokenizer->TokenBytes(5), "##do");
}

TEST(TokenizerGgufTest, UnknownFamiliesAndRulesAreRefusedByName) {
  Keys keys;
  keys.model = "t5";
  EXPECT_THAT(Open(keys), IsBad(absl::StatusCode::kUnimplemented, "tokenizer.ggml.model=\"t5\""));
  keys = {};
  keys.pre = "deepseek-llm";
  EXPECT_THAT(Open(keys), IsBad(absl::StatusCode::kUnimplemented, "deepseek-llm"));
  keys.pre = "";
  EXPECT_THAT(Open(keys), IsBad(absl::StatusCode::kUnimplemented, "tokenizer.ggml.pre=\"\""));
}

TEST(TokenizerGgufTest, KeysThatContradictEachOtherAreRefused) {
  const auto status_of = [](const std::function<void(Keys*)>& change) {
    Keys keys;
    change(&keys);
    return Open(keys).status();
  };
  const auto lies = [](const std::string& key) { return IsBad(absl::StatusCode::kDataLoss, key); };
  EXPECT_THAT(status_of([](Keys* k) { k->types.pop_back(); }), lies("token_type"));
  EXPECT_THAT(status_of([](Keys* k) { k->types[0] = 7; }), lies("token_type[0]=7"));
  EXPECT_THAT(status_of([](Keys* k) { k->types[0] = -1; }), lies("token_type[0]=-1"));
  for (const int64_t id : {int64_t{-1}, int64_t{5}, std::numeric_limits<int64_t>::max()}) {
    EXPECT_THAT(status_of([id](Keys* k) { k->ids[1].second = id; }), lies("eos_token_id"));
  }
  EXPECT_THAT(status_of([](Keys* k) { k->ids.erase(k->ids.begin()); }), lies("bos_token_id"));
  EXPECT_THAT(status_of([](Keys* k) { k->tokens[4] = "<s>"; }), lies("tokens[4]"));
  EXPECT_THAT(status_of([](Keys* k) { k->tokens[1] = "a"; }), lies("tokens[1]"));
  EXPECT_THAT(status_of([](Keys* k) { k->merges = {"a x"}; }), lies("merges[0]"));
  EXPECT_THAT(status_of([](Keys* k) {
                k->tokens.clear();
                k->types.clear();
                k->ids.clear();
                k->add_bos = false;
              }),
              lies("tokens=0"));
}

TEST(TokenizerGgufTest, MissingKeysAreNamed) {
  Keys keys;
  keys.has_merges = false;
  EXPECT_THAT(Open(keys), IsBad(absl::StatusCode::kNotFound, "tokenizer.ggml.merges"));
}

}  // namespace
}  // namespace coterie
