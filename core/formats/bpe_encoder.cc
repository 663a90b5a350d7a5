#include "core/formats/bpe_encoder.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"

namespace coterie {

ByteLevelRules::ByteLevelRules(const TokenTable& table, MergeTable merges)
    : merges_(std::move(merges)) {
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    byte_ids_[byte] = table.Lookup(absl::string_view(&c, 1));
  }
}

void ByteLevelRules::Split(absl::string_view piece, std::vector<Symbol>* symbols) const {
  for (size_t i = 0; i < piece.size(); ++i) {
    const TokenId id = byte_ids_[static_cast<unsigned char>(piece[i])];
    if (id >= 0) symbols->push_back({id, static_cast<uint32_t>(i), kNoMerge});
  }
}

absl::StatusOr<std::unique_ptr<const BpeEncoder>> BpeEncoder::Create(
    const TokenizerVocabulary& vocabulary, const TokenTable& table) {
  const std::optional<PretokenizerKind> kind = PretokenizerNamed(vocabulary.pre);
  if (!kind.has_value()) {
    return absl::UnimplementedError(
        absl::StrCat("unknown way to cut text before merging: ", vocabulary.names.pre, "=\"",
                     absl::CHexEscape(vocabulary.pre), "\", file=", vocabulary.origin));
  }
  COTERIE_ASSIGN_OR_RETURN(MergeTable merges, MergeTable::Create(vocabulary, table));
  const bool normalizes = vocabulary.normalizes.value_or(*kind == PretokenizerKind::kQwen2);
  std::unique_ptr<BpeEncoder> encoder(
      new BpeEncoder(table, ByteLevelRules(table, std::move(merges)), *kind, normalizes));
  if (vocabulary.takes_tokens_whole.value_or(*kind == PretokenizerKind::kLlama3)) {
    for (TokenId id = 0; id < table.size(); ++id) {
      if (vocabulary.type(id) == TokenType::kNormal) encoder->merger_.SetWhole(id);
    }
  }
  return encoder;
}

std::optional<Normalized> BpeEncoder::Normalize(absl::string_view text) const {
  if (!normalizes_ || IsSurelyNfc(text)) return std::nullopt;
  return NormalizeNfc(text);
}

void BpeEncoder::EncodeNormalized(absl::string_view text, const TokenSink& sink) const {
  PieceMerger<ByteLevelRules>::Scratch scratch;
  Pretokenizer pretokenizer(kind_, text);
  for (absl::string_view piece = pretokenizer.Next(); !piece.empty(); piece = pretokenizer.Next()) {
    merger_.Append(piece, static_cast<uint32_t>(piece.data() - text.data()), &scratch, sink);
  }
}

int64_t BpeEncoder::memory_bytes() const {
  return static_cast<int64_t>(sizeof(*this)) + rules_.memory_bytes() + merger_.memory_bytes();
}

}  // namespace coterie
