#include "core/formats/sentencepiece_encoder.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "core/formats/utf8.h"

namespace coterie {
namespace {

// How a merge made by scores fills the upper bits of its key: the rank of what it makes, then how
// short its sides are. A side that is longer than 255 characters counts as so long.
constexpr int kSideBits = 8;
constexpr uint32_t kLongestSide = (1 << kSideBits) - 1;

MergeKey KeyOf(uint32_t rank, uint32_t left_chars, uint32_t right_chars, TokenId merged) {
  const auto shortness = [](uint32_t n_chars) {
    return static_cast<MergeKey>(kLongestSide - std::min(n_chars, kLongestSide));
  };
  return ((static_cast<MergeKey>(rank) << kSideBits | shortness(left_chars)) << kSideBits |
          shortness(right_chars))
             << kMergedIdBits |
         static_cast<MergeKey>(merged);
}

}  // namespace

absl::StatusOr<SentencePieceRules> SentencePieceRules::Create(const TokenizerVocabulary& vocabulary,
                                                              const TokenTable& table) {
  SentencePieceRules rules(table);
  rules.byte_ids_.fill(-1);
  for (TokenId id = 0; id < table.size(); ++id) {
    if (vocabulary.type(id) != TokenType::kByte) continue;
    TokenId& byte_id = rules.byte_ids_[static_cast<uint8_t>(table.Bytes(id)[0])];
    if (byte_id >= 0) return vocabulary.BadToken(id, "a byte has two tokens");
    byte_id = id;
  }
  const bool spells_all = *std::min_element(rules.byte_ids_.begin(), rules.byte_ids_.end()) >= 0;
  rules.unknown_ = spells_all ? -1 : vocabulary.unknown.value_or(-1);
  if (vocabulary.scores.empty()) {
    COTERIE_ASSIGN_OR_RETURN(rules.merges_, MergeTable::Create(vocabulary, table));
  } else {
    COTERIE_RETURN_IF_ERROR(rules.RankByScore(vocabulary));
  }
  return rules;
}

absl::Status SentencePieceRules::RankByScore(const TokenizerVocabulary& vocabulary) {
  const std::vector<float>& scores = vocabulary.scores;
  if (scores.size() != vocabulary.tokens.size()) {
    return absl::DataLossError(
        absl::StrCat("scores and tokens differ in number: scores=", scores.size(),
                     ", tokens=", vocabulary.tokens.size(), ", file=", vocabulary.origin));
  }
  std::vector<TokenId> ids;
  for (TokenId id = 0; id < table_->size(); ++id) {
    if (vocabulary.type(id) != TokenType::kNormal) continue;
    if (!std::isfinite(scores[id])) return vocabulary.BadToken(id, "a score is not a number");
    ids.push_back(id);
  }
  const auto is_better = [&scores](TokenId a, TokenId b) { return scores[a] > scores[b]; };
  if (!std::is_sorted(ids.begin(), ids.end(), is_better)) {
    std::sort(ids.begin(), ids.end(), is_better);
  }
  // Rank 0 is for white space that the file lists as symbols: it is taken first.
  ranks_.resize(table_->size());
  uint32_t rank = 1;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i > 0 && scores[ids[i]] != scores[ids[i - 1]]) ++rank;
    ranks_[ids[i]] = rank;
  }
  return absl::OkStatus();
}

void SentencePieceRules::SplitUnknown(absl::string_view piece, uint32_t begin, uint32_t n_bytes,
                                      std::vector<Symbol>* symbols) const {
  const auto byte_id = [&](uint32_t i) { return byte_ids_[static_cast<uint8_t>(piece[i])]; };
  for (uint32_t i = begin; i < begin + n_bytes; ++i) {
    if (byte_id(i) >= 0) continue;
    // Bytes cannot spell it.
    const bool continues = !symbols->empty() && symbols->back().id == unknown_;
    if (unknown_ < 0 || continues) return;
    symbols->push_back({unknown_, begin, n_bytes, 0, kNoMerge});
    return;
  }
  for (uint32_t i = begin; i < begin + n_bytes; ++i) {
    symbols->push_back({byte_id(i), i, 1, 0, kNoMerge});
  }
}

void SentencePieceRules::Split(absl::string_view piece, std::vector<Symbol>* symbols) const {
  for (uint32_t i = 0; i < piece.size();) {
    const uint32_t n_bytes = DecodeUtf8(piece.data() + i).n_bytes;
    const TokenId id = table_->Lookup(piece.substr(i, n_bytes));
    if (id >= 0) {
      symbols->push_back({id, i, n_bytes, 1, kNoMerge});
    } else {
      SplitUnknown(piece, i, n_bytes, symbols);
    }
    i += n_bytes;
  }
}

MergeKey SentencePieceRules::Find(absl::string_view piece, const Symbol& left,
                                  const Symbol& right) const {
  if (merges_.has_value()) return merges_->Find(left.id, right.id);
  if (left.n_chars == 0 || right.n_chars == 0) return kNoMerge;
  const TokenId merged = table_->Lookup(piece.substr(left.begin, left.n_bytes + right.n_bytes));
  return merged < 0 ? kNoMerge : KeyOf(ranks_[merged], left.n_chars, right.n_chars, merged);
}

int64_t SentencePieceRules::memory_bytes() const {
  return static_cast<int64_t>(ranks_.capacity() * sizeof(uint32_t)) +
         (merges_.has_value() ? merges_->memory_bytes() : 0);
}

absl::StatusOr<std::unique_ptr<const SentencePieceEncoder>> SentencePieceEncoder::Create(
    const TokenizerVocabulary& vocabulary, const TokenTable& table) {
  COTERIE_ASSIGN_OR_RETURN(SentencePieceRules rules, SentencePieceRules::Create(vocabulary, table));
  std::unique_ptr<SentencePieceEncoder> encoder(
      new SentencePieceEncoder(table, std::move(rules), vocabulary.adds_space));
  for (TokenId id = 0; id < table.size(); ++id) {
    if (vocabulary.IsPlain(id)) encoder->pairs_.Add(table.Bytes(id));
  }
  return encoder;
}

std::optional<Normalized> SentencePieceEncoder::Normalize(absl::string_view text) const {
  size_t mark = text.find(kSpaceMark);
  if (text.empty() || (mark == absl::string_view::npos && !adds_space_)) return std::nullopt;
  Normalized spaced;
  const auto append = [&spaced](absl::string_view part, size_t from, bool is_verbatim) {
    spaced.borders.push_back(
        {static_cast<uint32_t>(spaced.text.size()), static_cast<uint32_t>(from), is_verbatim});
    absl::StrAppend(&spaced.text, part);
  };
  if (adds_space_) append(" ", 0, false);
  size_t from = 0;
  for (; mark != absl::string_view::npos; mark = text.find(kSpaceMark, from)) {
    if (mark > from) append(text.substr(from, mark - from), from, true);
    append(" ", mark, false);
    from = mark + kSpaceMark.size();
  }
  if (from < text.size()) append(text.substr(from), from, true);
  return spaced;
}

void SentencePieceEncoder::EncodeNormalized(absl::string_view text, const TokenSink& sink) const {
  if (text.empty()) return;
  PieceMerger<SentencePieceRules>::Scratch scratch;
  const size_t first = sink.ids->size();
  const auto append = [&](size_t begin, size_t end) {
    const size_t n_before = sink.ids->size();
    merger_.Append(text.substr(begin, end - begin), static_cast<uint32_t>(begin), &scratch, sink);
    if (n_before > first && rules_.JoinsUnknown(*sink.ids, n_before)) sink.Erase(n_before);
  };
  size_t begin = 0;
  Utf8Char left = DecodeUtf8(text.data());
  for (size_t i = left.n_bytes; i < text.size();) {
    const Utf8Char right = DecodeUtf8(text.data() + i);
    if (!pairs_.MayHold(left.code_point, right.code_point)) {
      append(begin, i);
      begin = i;
    }
    left = right;
    i += right.n_bytes;
  }
  append(begin, text.size());
}

int64_t SentencePieceEncoder::memory_bytes() const {
  return static_cast<int64_t>(sizeof(*this)) + rules_.memory_bytes() + merger_.memory_bytes() +
         pairs_.memory_bytes();
}

}  // namespace coterie
