#pragma once

// Byte-level byte-pair encoding (Sennrich et al. 2016; over bytes as in GPT-2, Radford et al.
// 2019).

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "core/formats/merge_table.h"
#include "core/formats/piece_merger.h"
#include "core/formats/pretokenizer.h"
#include "core/formats/text_encoder.h"
#include "core/formats/tokenizer_vocabulary.h"

namespace coterie {

// Pieces begin as the tokens of their bytes; bytes without a token are left out.
class ByteLevelRules {
 public:
  struct Symbol {
    TokenId id;
    uint32_t begin;
    MergeKey with_next;
  };

  ByteLevelRules(const TokenTable& table, MergeTable merges);

  void Split(absl::string_view piece, std::vector<Symbol>* symbols) const;
  MergeKey Find(absl::string_view, const Symbol& left, const Symbol& right) const {
    return merges_.Find(left.id, right.id);
  }
  void Join(Symbol*, const Symbol&) const {}

  int64_t memory_bytes() const { return merges_.memory_bytes(); }

 private:
  MergeTable merges_;
  std::array<TokenId, 256> byte_ids_;  // -1: the vocabulary lacks the byte.
};

// Const and thread-safe; `table` must outlive it.
class BpeEncoder : public TextEncoder {
 public:
  // kDataLoss for merges that name no tokens or make a control token, kUnimplemented for an unknown
  // cutting rule.
  static absl::StatusOr<std::unique_ptr<const BpeEncoder>> Create(
      const TokenizerVocabulary& vocabulary, const TokenTable& table);

  std::optional<Normalized> Normalize(absl::string_view text) const override;
  void EncodeNormalized(absl::string_view text, const TokenSink& sink) const override;
  int64_t memory_bytes() const override;

 private:
  BpeEncoder(const TokenTable& table, ByteLevelRules rules, PretokenizerKind kind, bool normalizes)
      : rules_(std::move(rules)), merger_(table, rules_), kind_(kind), normalizes_(normalizes) {}

  const ByteLevelRules rules_;
  PieceMerger<ByteLevelRules> merger_;
  const PretokenizerKind kind_;
  const bool normalizes_;  // To NFC.
};

}  // namespace coterie
