#pragma once

// BPE over characters as SentencePiece trains it (Kudo and Richardson 2018), with characters that
// the vocabulary lacks spelt in bytes: the tokenizers of Gemma and Llama 2.
//
// The reference merges over the whole text. Here the text is cut wherever no token holds the two
// characters side by side, which changes no id, and each part is merged on its own.

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"

#include "core/formats/merge_table.h"
#include "core/formats/pair_filter.h"
#include "core/formats/piece_merger.h"
#include "core/formats/text_encoder.h"
#include "core/formats/tokenizer_vocabulary.h"

namespace coterie {

// What merges, and when. Without a list of merges two neighbours may merge if together they are a
// token, the one of the best score first and among equals the one whose left side is longest: the
// order in which Hugging Face lists the merges of such a vocabulary.
class SentencePieceRules {
 public:
  struct Symbol {
    TokenId id;
    uint32_t begin;
    uint32_t n_bytes;
    uint32_t n_chars;  // 0: spelt in bytes, merges with nothing.
    MergeKey with_next;
  };

  // kDataLoss for scores that are no numbers or not one a token, for merges that name no tokens.
  static absl::StatusOr<SentencePieceRules> Create(const TokenizerVocabulary& vocabulary,
                                                   const TokenTable& table);

  void Split(absl::string_view piece, std::vector<Symbol>* symbols) const;
  MergeKey Find(absl::string_view piece, const Symbol& left, const Symbol& right) const;
  void Join(Symbol* left, const Symbol& right) const {
    left->n_bytes += right.n_bytes;
    left->n_chars += right.n_chars;
  }

  // Whether ids[i] is for unknown characters, as is the one before it: they are one token.
  bool JoinsUnknown(const std::vector<TokenId>& ids, size_t i) const {
    return unknown_ >= 0 && i < ids.size() && ids[i] == unknown_ && ids[i - 1] == unknown_;
  }

  int64_t memory_bytes() const;

 private:
  explicit SentencePieceRules(const TokenTable& table) : table_(&table) {}
  absl::Status RankByScore(const TokenizerVocabulary& vocabulary);
  void SplitUnknown(absl::string_view piece, uint32_t begin, uint32_t n_bytes,
                    std::vector<Symbol>* symbols) const;

  const TokenTable* table_;
  std::vector<uint32_t> ranks_;  // [n_vocab] Without a list of merges. Equal scores, equal ranks.
  std::optional<MergeTable> merges_;   // The list.
  std::array<TokenId, 256> byte_ids_;  // -1: the vocabulary lacks the byte.
  TokenId unknown_ = -1;               // For characters that bytes cannot spell; -1: they vanish.
};

// Const and thread-safe; `table` must outlive it. Its bytes have a space where the file has U+2581.
class SentencePieceEncoder : public TextEncoder {
 public:
  static absl::StatusOr<std::unique_ptr<const SentencePieceEncoder>> Create(
      const TokenizerVocabulary& vocabulary, const TokenTable& table);

  // The mark of a space becomes a space, as it is in the table.
  std::optional<Normalized> Normalize(absl::string_view text) const override;
  void EncodeNormalized(absl::string_view text, const TokenSink& sink) const override;
  int64_t memory_bytes() const override;

 private:
  SentencePieceEncoder(const TokenTable& table, SentencePieceRules rules, bool adds_space)
      : rules_(std::move(rules)), merger_(table, rules_), adds_space_(adds_space) {}

  const SentencePieceRules rules_;
  const PieceMerger<SentencePieceRules> merger_;
  PairFilter pairs_;
  const bool adds_space_;  // Before each stretch.
};

}  // namespace coterie
