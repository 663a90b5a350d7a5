#pragma once

// Byte-level byte-pair encoding (Sennrich et al. 2016; over bytes as in GPT-2, Radford et al.
// 2019).

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

#include "core/formats/merge_table.h"
#include "core/formats/pretokenizer.h"
#include "core/formats/text_encoder.h"
#include "core/formats/tokenizer_vocabulary.h"

namespace coterie {

// The bytes of a token or of one side of a merge written in GPT-2's alphabet: the 188 printable
// characters of Latin-1 stand for themselves, U+0100 to U+0143 for the other bytes in order.
// Appends to *bytes; false if the text has a character outside of the alphabet.
bool AppendAlphabetBytes(absl::string_view text, std::string* bytes);

// Const and thread-safe; `table` must outlive it.
class BpeEncoder : public TextEncoder {
 public:
  // kDataLoss for merges that name no tokens or make a control token, kUnimplemented for an unknown
  // cutting rule.
  static absl::StatusOr<std::unique_ptr<const BpeEncoder>> Create(
      const TokenizerVocabulary& vocabulary, const TokenTable& table);

  void Encode(absl::string_view text, const TokenSink& sink) const override;
  int64_t memory_bytes() const override;

 private:
  struct Scratch;
  // Whether the merges, given a token's bytes, lead to that token alone. Found out when first
  // needed; races are harmless because every thread finds the same.
  enum Wholeness : uint8_t { kUntried, kWhole, kDivided };

  BpeEncoder(const TokenTable& table, PretokenizerKind kind, int64_t n_merges);
  absl::Status AddMerges(const TokenizerVocabulary& vocabulary);
  void EncodeNormalized(absl::string_view text, const TokenSink& sink) const;
  bool IsWhole(TokenId id, absl::string_view piece, Scratch* scratch) const;
  // Replaces the scratch's symbols by the tokens of the piece.
  void MergePiece(absl::string_view piece, Scratch* scratch) const;
  void MergeShort(Scratch* scratch) const;
  void MergeLong(Scratch* scratch) const;

  const TokenTable& table_;
  const PretokenizerKind kind_;
  const bool normalizes_;  // To NFC, as the reference does for this family.
  MergeTable merges_;
  std::array<TokenId, 256> byte_ids_;                  // -1: the vocabulary lacks the byte.
  std::unique_ptr<std::atomic<uint8_t>[]> wholeness_;  // [n_vocab]
};

}  // namespace coterie
