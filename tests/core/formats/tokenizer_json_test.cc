// Hugging Face's tokenizer.json: what is read, what is refused and by which name.

#include "core/formats/tokenizer_json.h"

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "core/formats/tokenizer_json_reader.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::StatusIs;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kByteLevel[] = R"({
  "added_tokens": [
    {"id": 3, "content": "<s>", "special": true, "normalized": false},
    {"id": 4, "content": "<call>", "special": false, "normalized": false, "rstrip": true}],
  "normalizer": null,
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
  "post_processor": {"type": "Sequence", "processors": [
    {"type": "ByteLevel", "trim_offsets": false},
    {"type": "TemplateProcessing",
     "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A"}}],
     "special_tokens": {"<s>": {"id": "<s>", "ids": [3], "tokens": ["<s>"]}}}]},
  "decoder": {"type": "ByteLevel"},
  "model": {"type": "BPE", "dropout": null, "unk_token": null, "ignore_merges": false,
            "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})";

constexpr char kSentencePiece[] = R"({
  "added_tokens": [{"id": 0, "content": "<unk>", "special": true},
                   {"id": 4, "content": "▁▁", "special": false, "normalized": false}],
  "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
  "pre_tokenizer": {"type": "Split", "pattern": {"String": " "},
                    "behavior": "MergedWithPrevious", "invert": false},
  "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
            "vocab": {"<unk>": 0, "▁": 1, "a": 2, "▁a": 3, "▁▁": 4, "<0x0A>": 5},
            "merges": [["▁", "▁"], ["▁", "a"]]}})";

absl::StatusOr<std::unique_ptr<const Tokenizer>> Read(const std::string& text) {
  return TokenizerFromHuggingFace({.name = "folder", .tokenizer = text});
}

// The status of a file that was changed.
absl::Status Changed(const char* text, const std::function<void(json*)>& change) {
  json value = json::parse(text);
  change(&value);
  return Read(value.dump()).status();
}

auto Lies(const std::string& what) {
  return StatusIs(absl::StatusCode::kDataLoss,
                  AllOf(HasSubstr(what), HasSubstr("folder/tokenizer.json")));
}
auto IsUnknown(const std::string& what) {
  return StatusIs(absl::StatusCode::kUnimplemented,
                  AllOf(HasSubstr(what), HasSubstr("folder/tokenizer.json")));
}

TEST(TokenizerJsonTest, AByteLevelFileIsReadWithItsFlagsAndItsTemplate) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto tokenizer, Read(kByteLevel));
  EXPECT_THAT(*tokenizer->Encode("aba<call>  b<s>", true, true), ElementsAre(3, 2, 0, 4, 1, 3));
  EXPECT_TRUE(tokenizer->IsControl(3));
  EXPECT_FALSE(tokenizer->IsControl(4));
  EXPECT_EQ(tokenizer->n_vocab(), 5);
}

TEST(TokenizerJsonTest, MergesMayBePairs) {
  json value = json::parse(kByteLevel);
  value["model"]["merges"] = json::parse(R"([["a", "b"]])");
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto tokenizer, Read(value.dump()));
  EXPECT_THAT(*tokenizer->Encode("ab", false, true), ElementsAre(2));
}

TEST(TokenizerJsonTest, ACharacterFileWithByteFallbackIsRead) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto tokenizer, Read(kSentencePiece));
  EXPECT_THAT(*tokenizer->Encode("a a  a\nxyz", true, true), ElementsAre(2, 3, 4, 2, 5, 0));
  EXPECT_EQ(tokenizer->Decode(std::vector<TokenId>{2, 3, 4, 5}), "a a  \n");
}

TEST(TokenizerJsonTest, TheFilesBesideSayWhatEndsAnAnswer) {
  HuggingFaceTokenizerFiles files = {.name = "folder", .tokenizer = kByteLevel};
  files.tokenizer_config = R"({"bos_token": {"content": "<s>"}, "eos_token": "<call>"})";
  files.generation_config = R"({"eos_token_id": [3, 4]})";
  files.config = R"({"eos_token_id": 2})";
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto tokenizer, TokenizerFromHuggingFace(files));
  EXPECT_EQ(tokenizer->bos(), 3);
  EXPECT_EQ(tokenizer->eos(), 4);
  for (const TokenId id : {2, 3, 4}) EXPECT_TRUE(tokenizer->IsEndOfGeneration(id));
  EXPECT_FALSE(tokenizer->IsEndOfGeneration(0));
  files.config = R"({"eos_token_id": 5})";
  EXPECT_THAT(TokenizerFromHuggingFace(files),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("config.json")));
}

TEST(TokenizerJsonTest, AFolderIsReadAndMeasured) {
  const auto folder = std::filesystem::path(::testing::TempDir()) / "tokenizer_json_test";
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "tokenizer.json") << kByteLevel;
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto tokenizer, TokenizerFromHuggingFace(folder.string()));
  EXPECT_EQ(tokenizer->n_vocab(), 5);
  COTERIE_ASSERT_OK_AND_ASSIGN(const int64_t estimate,
                               EstimateHuggingFaceTokenizerBytes(folder.string()));
  EXPECT_GE(estimate, tokenizer->memory_bytes());
  std::filesystem::remove_all(folder);
  EXPECT_THAT(TokenizerFromHuggingFace(folder.string()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("tokenizer.json")));
}

TEST(TokenizerJsonTest, StepsThatAreNotKnownAreRefusedByName) {
  const auto set = [](const char* where, const char* what) {
    return Changed(kByteLevel,
                   [&](json* value) { (*value)[json::json_pointer(where)] = json::parse(what); });
  };
  EXPECT_THAT(set("/model/type", R"("Unigram")"), IsUnknown("Unigram"));
  EXPECT_THAT(set("/model/dropout", "0.1"), IsUnknown("0.1"));
  EXPECT_THAT(set("/model/end_of_word_suffix", R"("</w>")"), IsUnknown("</w>"));
  EXPECT_THAT(set("/normalizer", R"({"type": "NFKC"})"), IsUnknown("NFKC"));
  EXPECT_THAT(set("/pre_tokenizer", R"({"type": "Whitespace"})"), IsUnknown("Whitespace"));
  EXPECT_THAT(set("/pre_tokenizer/add_prefix_space", "true"), IsUnknown("add_prefix_space"));
  EXPECT_THAT(set("/pre_tokenizer", R"({"type": "Sequence", "pretokenizers": [
                     {"type": "Split", "pattern": {"Regex": "\\w+"}, "behavior": "Isolated"},
                     {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})"),
              IsUnknown(R"(\\\\w+)"));
  EXPECT_THAT(set("/post_processor", R"({"type": "Odd"})"), IsUnknown("Odd"));
  EXPECT_THAT(Changed(kSentencePiece, [](json* v) { (*v)["normalizer"] = nullptr; }),
              IsUnknown("normalizer"));
}

TEST(TokenizerJsonTest, FilesThatContradictThemselvesAreRefused) {
  const auto set = [](const char* where, const char* what) {
    return Changed(kByteLevel,
                   [&](json* value) { (*value)[json::json_pointer(where)] = json::parse(what); });
  };
  EXPECT_THAT(set("/model/vocab/ab", "7"), Lies("id=7"));
  EXPECT_THAT(set("/model/vocab/ab", "1"), Lies("id=1"));
  EXPECT_THAT(set("/model/vocab/ab", "4"), Lies("has the id of another"));
  EXPECT_THAT(set("/model/vocab/ab", "99999999"), Lies("too large"));
  EXPECT_THAT(set("/model/vocab/ab", "-1"), Lies("no number"));
  EXPECT_THAT(set("/model/vocab/ab", "2.0"), Lies("no number"));
  EXPECT_THAT(set("/model/vocab/ab", "\"2\""), Lies("no number"));
  EXPECT_THAT(set("/model/vocab/ab", "[2]"), Lies("no number"));
  EXPECT_THAT(set("/model/vocab", "[]"), Lies("model.vocab"));
  EXPECT_THAT(set("/model/vocab", "{}"), Lies("=3"));
  EXPECT_THAT(set("/model/merges", R"(["ab"])"), Lies("not two tokens"));
  EXPECT_THAT(set("/model/merges", R"([["a"]])"), Lies("not two tokens"));
  EXPECT_THAT(set("/model/merges", R"([["a", "b", "a"]])"), Lies("not two tokens"));
  EXPECT_THAT(set("/model/merges", R"([["a b", ""]])"), Lies("without spaces"));
  EXPECT_THAT(set("/model/merges", "[1]"), Lies("not two tokens"));
  EXPECT_THAT(set("/model/merges", R"(["a c"])"), Lies("model.merges[0]"));
  EXPECT_THAT(set("/model/merges", R"(["a b", "a b"])"), Lies("stands twice"));
  EXPECT_THAT(set("/added_tokens", "{}"), Lies("added_tokens"));
  EXPECT_THAT(set("/added_tokens/0/id", "4"), Lies("has the id of another"));
  EXPECT_THAT(set("/added_tokens/0/id", "1000"), Lies("id=1000"));
  EXPECT_THAT(set("/added_tokens/0/id", "-3"), Lies("no id"));
  EXPECT_THAT(set("/added_tokens/1/content", R"("<s>")"), Lies("stands twice"));
  EXPECT_THAT(set("/added_tokens/0", "null"), Lies("no content"));
  EXPECT_THAT(set("/normalizer", "[]"), Lies("no type"));
  std::string steps = R"({"type": "ByteLevel"})";
  for (int i = 0; i < 64; ++i) steps += R"(, {"type": "ByteLevel"})";
  EXPECT_THAT(set("/post_processor/processors", ("[" + steps + "]").c_str()),
              Lies("post_processor has too many steps"));
  EXPECT_THAT(set("/post_processor/processors/1/special_tokens", "{}"), Lies("'<s>'"));
  EXPECT_THAT(set("/post_processor/processors/1/special_tokens/<s>/ids", "[5]"), Lies("not there"));
  EXPECT_THAT(Changed(kSentencePiece, [](json* v) { (*v)["model"]["unk_token"] = "<x>"; }),
              Lies("unk_token"));
}

TEST(TokenizerJsonTest, TextThatIsNoSuchJsonIsRefused) {
  EXPECT_THAT(Read(""), Lies("not valid JSON"));
  EXPECT_THAT(Read("[]"), Lies("not a JSON object"));
  EXPECT_THAT(Read(R"({"a": 1)"), Lies("not valid JSON"));
  EXPECT_THAT(Read("{\"a\": \"\xFF\"}"), Lies("not valid JSON"));
  EXPECT_THAT(Read(R"({"a": "\ud800"})"), Lies("not valid JSON"));
  EXPECT_THAT(Read(std::string("{}\0{", 4)), Lies("zero byte"));
  EXPECT_THAT(Read("{} {}"), Lies("not valid JSON"));
  EXPECT_THAT(Read(R"({"a": 1, "a": 2})"), Lies("stands twice"));
  EXPECT_THAT(Read(R"({"model": {"vocab": {}, "vocab": {}}})"), Lies("stands twice"));
  EXPECT_THAT(Read(absl::StrReplaceAll(kByteLevel, {{"\"ab\": 2", "\"a\": 2"}})),
              Lies("stands twice"));
  EXPECT_THAT(Read(absl::StrCat(std::string(100000, '['), std::string(100000, ']'))),
              Lies("not a JSON object"));
  EXPECT_THAT(Read(absl::StrCat("{\"a\":", std::string(100000, '['))), Lies("nested too deep"));
  EXPECT_THAT(Read("{}"), IsUnknown("model"));
}

TEST(TokenizerJsonTest, WhatIsReadIsBounded) {
  std::string values = "{\"a\": [0";
  for (int i = 0; i < 1 << 18; ++i) values += ",0";
  EXPECT_THAT(Read(values + "]}"), Lies("too many values"));
  std::string merges = R"({"model": {"merges": [)";
  for (int i = 0; i < 1 << 21; ++i) merges += "\"\",";
  EXPECT_THAT(Read(merges + "\"\"]}}"), Lies("too many merges"));
}

}  // namespace
}  // namespace coterie
