#pragma once

// WordPiece of uncased BERT models (Devlin et al. 2019): words are lower-cased, stripped of accents
// and cut greedily into the longest tokens.

#include <cstdint>
#include <vector>

#include "core/formats/text_encoder.h"
#include "core/formats/unicode.h"

namespace coterie {

// Const and thread-safe; `table` must outlive it. Words of more than 100 characters, and words that
// the vocabulary cannot spell, become the unknown token.
class WordPieceEncoder : public TextEncoder {
 public:
  WordPieceEncoder(const TokenTable& table, TokenId unknown) : table_(table), unknown_(unknown) {}

  void EncodeNormalized(absl::string_view text, const TokenSink& sink) const override;
  int64_t memory_bytes() const override { return 0; }

 private:
  struct Word;
  void EncodeWord(Word* word, const TokenSink& sink) const;

  const TokenTable& table_;
  const TokenId unknown_;
};

}  // namespace coterie
