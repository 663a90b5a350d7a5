#pragma once

// The tokenizers in tests/data/tokenizers, and in files like those that make_tokenizer_golden.py
// writes.

#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

#include "core/base/status_macros.h"
#include "core/formats/gguf_file.h"
#include "core/formats/tokenizer.h"
#include "core/formats/tokenizer_json.h"

namespace coterie::testing {

// Files of tests/data/tokenizers, without ".jsonl".
inline constexpr const char* kGoldenTokenizers[] = {
    "gpt2",          "smollm",
    "llama3",        "qwen2",
    "sentencepiece", "sentencepiece_prefix",
    "wordpiece",     "flags_qwen2",
    "flags_llama3",  "flags_sentencepiece",
};

inline absl::StatusOr<std::unique_ptr<const Tokenizer>> FromListedTokens(
    const nlohmann::json& head) {
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

inline absl::StatusOr<std::unique_ptr<const Tokenizer>> FromModelFile(const nlohmann::json& head) {
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
inline absl::StatusOr<std::vector<std::unique_ptr<const Tokenizer>>> TokenizersOf(
    const nlohmann::json& head) {
  std::vector<std::unique_ptr<const Tokenizer>> tokenizers;
  std::string text;
  if (head.contains("tokenizer_file")) {
    std::ifstream in(head["tokenizer_file"].get<std::string>());
    text.assign(std::istreambuf_iterator<char>(in), {});
  } else {
    text = head["tokenizer"].dump();
  }
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

}  // namespace coterie::testing
