#pragma once

// A byte-level vocabulary made by hand.

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "core/formats/tokenizer.h"

namespace coterie::testing {

// A character of GPT-2's alphabet for a byte, as it stands in model files.
inline std::string AlphabetChar(int byte) {
  const bool is_printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
  int c = byte;
  if (!is_printable) c = byte < 0x21 ? 0x100 + byte : byte == 0xAD ? 0x143 : 0x121 + byte - 0x7F;
  std::string text;
  if (c < 0x80) return std::string(1, static_cast<char>(c));
  return {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 0x3F))};
}

// 256 byte tokens, then one token for each merge, then special tokens.
class SmallVocabulary {
 public:
  explicit SmallVocabulary(const std::vector<std::string>& merges) : merges_(merges) {
    for (int byte = 0; byte < 256; ++byte) tokens_.push_back(AlphabetChar(byte));
    for (const std::string& merge : merges) {
      const size_t space = merge.find(' ');
      tokens_.push_back(merge.substr(0, space) + merge.substr(space + 1));
    }
    vocabulary_.types.resize(tokens_.size(), TokenType::kNormal);
    vocabulary_.origin = "small.gguf";
    vocabulary_.pre = "gpt-2";
  }

  TokenId Add(const std::string& text, TokenType type) {
    tokens_.push_back(text);
    vocabulary_.types.push_back(type);
    return static_cast<TokenId>(tokens_.size()) - 1;
  }
  TokenizerVocabulary* operator->() { return &vocabulary_; }

  absl::StatusOr<std::unique_ptr<const Tokenizer>> Build() {
    vocabulary_.tokens.assign(tokens_.begin(), tokens_.end());
    vocabulary_.merges.assign(merges_.begin(), merges_.end());
    return Tokenizer::FromVocabulary(vocabulary_);
  }

 private:
  std::vector<std::string> tokens_, merges_;
  TokenizerVocabulary vocabulary_;
};

}  // namespace coterie::testing
