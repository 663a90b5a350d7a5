// How a Tokenizer comes to be; tokenizer.cc is how it is used.

#include <algorithm>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

#include "core/base/status_macros.h"
#include "core/formats/bpe_encoder.h"
#include "core/formats/sentencepiece_encoder.h"
#include "core/formats/tokenizer.h"
#include "core/formats/utf8.h"
#include "core/formats/wordpiece_encoder.h"

namespace coterie {
namespace {

// More than any vocabulary has, and few enough for all sums to fit.
constexpr size_t kMaxTokens = size_t{1} << 20;
constexpr size_t kMaxTokenBytes = size_t{1} << 30;
// Each byte of a special token is a node that a search may walk through at every byte of a text.
constexpr size_t kMaxSpecialTokenBytes = 512;
constexpr size_t kMaxSpecialBytes = size_t{1} << 20;

// Names that end an answer in the chat formats of known models.
constexpr const char* kEndNames[] = {
    "<|im_end|>", "<|endoftext|>", "<|eot_id|>",      "<|eom_id|>", "<|end_of_text|>",
    "<|end|>",    "<end_of_turn>", "<|end_of_turn|>", "<|eot|>",    "<EOT>",
    "<|return|>", "</s>",          "<eos>",
};

absl::Status CheckSizes(const TokenizerVocabulary& vocabulary) {
  size_t n_bytes = 0;
  for (const absl::string_view token : vocabulary.tokens) n_bytes += token.size();
  if (!vocabulary.tokens.empty() && vocabulary.tokens.size() <= kMaxTokens &&
      vocabulary.merges.size() <= kMaxTokens && n_bytes <= kMaxTokenBytes) {
    return absl::OkStatus();
  }
  return absl::DataLossError(absl::StrCat("no vocabulary has this size: ", vocabulary.names.tokens,
                                          "=", vocabulary.tokens.size(), ", ",
                                          vocabulary.names.merges, "=", vocabulary.merges.size(),
                                          ", bytes=", n_bytes, ", file=", vocabulary.origin));
}

// Copies all tokens. A normal token of a byte-level vocabulary that is not in the alphabet is kept
// as it is: nothing can produce it, but it can be printed.
absl::StatusOr<std::unique_ptr<TokenTable>> CopyTokens(const TokenizerVocabulary& vocabulary) {
  const bool is_chars = vocabulary.family == TokenizerFamily::kSentencePiece;
  size_t n_bytes = 0;
  for (const absl::string_view token : vocabulary.tokens) n_bytes += token.size();
  auto table = std::make_unique<TokenTable>(vocabulary.tokens.size(), n_bytes);
  std::string bytes;
  for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    const absl::string_view token = vocabulary.tokens[i];
    bytes.clear();
    if (is_chars && vocabulary.type(id) == TokenType::kByte) {
      const int byte = ByteNamed(token);
      if (byte < 0) return vocabulary.BadToken(id, "a byte is not spelt <0x00> to <0xFF>");
      bytes.push_back(static_cast<char>(byte));
    } else if (!vocabulary.IsPlain(id) || !vocabulary.AppendBytes(token, &bytes)) {
      bytes.assign(token.data(), token.size());
    } else if (is_chars && FindInvalidUtf8(bytes) != bytes.size()) {
      return vocabulary.BadToken(id, "a token is not UTF-8");
    }
    table->Append(bytes);
  }
  return table;
}

// Makes the tokens that text may become findable: plain ones, then a byte-level file's user-defined
// ones where no plain one has the same bytes (merges may lead to them).
absl::Status IndexTokens(const TokenizerVocabulary& vocabulary, TokenTable* table) {
  const auto index = [&](TokenId id) {
    return table->Bytes(id).empty() ? TokenTable::Insertion::kDone : table->Index(id);
  };
  for (TokenId id = 0; id < table->size(); ++id) {
    if (!vocabulary.IsPlain(id)) continue;
    const TokenTable::Insertion insertion = index(id);
    if (insertion == TokenTable::Insertion::kTooManyCollisions) {
      return vocabulary.BadToken(id, "tokens collide in the table");
    }
    if (insertion == TokenTable::Insertion::kDuplicate) {
      return vocabulary.BadToken(id, "a token stands twice");
    }
  }
  if (vocabulary.family == TokenizerFamily::kSentencePiece) return absl::OkStatus();
  for (TokenId id = 0; id < table->size(); ++id) {
    if (vocabulary.type(id) != TokenType::kUserDefined) continue;
    if (index(id) == TokenTable::Insertion::kTooManyCollisions) {
      return vocabulary.BadToken(id, "tokens collide in the table");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<const Tokenizer>> Tokenizer::FromVocabulary(
    const TokenizerVocabulary& vocabulary) {
  COTERIE_RETURN_IF_ERROR(CheckSizes(vocabulary));
  if (!vocabulary.types.empty() && vocabulary.types.size() != vocabulary.tokens.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("token types and tokens differ in number: types=", vocabulary.types.size(),
                     ", tokens=", vocabulary.tokens.size(), ", file=", vocabulary.origin));
  }
  COTERIE_ASSIGN_OR_RETURN(std::unique_ptr<TokenTable> table, CopyTokens(vocabulary));
  COTERIE_RETURN_IF_ERROR(IndexTokens(vocabulary, table.get()));
  std::unique_ptr<Tokenizer> tokenizer(new Tokenizer);
  tokenizer->table_ = std::move(table);
  for (TokenId id = 0; id < tokenizer->n_vocab(); ++id) {
    tokenizer->types_.push_back(vocabulary.type(id));
  }
  tokenizer->bos_ = vocabulary.bos;
  tokenizer->eos_ = vocabulary.eos;
  tokenizer->prefix_ = vocabulary.prefix;
  tokenizer->suffix_ = vocabulary.suffix;
  COTERIE_RETURN_IF_ERROR(vocabulary.family == TokenizerFamily::kWordPiece
                              ? tokenizer->BuildWordPiece(vocabulary)
                              : tokenizer->BuildMerging(vocabulary));
  COTERIE_RETURN_IF_ERROR(tokenizer->AddSpecials(vocabulary));
  tokenizer->FindEndsOfGeneration(vocabulary);
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<const Tokenizer>> Tokenizer::FromGguf(const GgufFile& file) {
  std::vector<std::string> storage;
  COTERIE_ASSIGN_OR_RETURN(const TokenizerVocabulary vocabulary,
                           TokenizerVocabulary::FromGguf(file, &storage));
  return FromVocabulary(vocabulary);
}

absl::StatusOr<int64_t> Tokenizer::EstimateBytes(const GgufFile& file) {
  std::vector<std::string> storage;
  COTERIE_ASSIGN_OR_RETURN(const TokenizerVocabulary vocabulary,
                           TokenizerVocabulary::FromGguf(file, &storage));
  return EstimateBytes(vocabulary);
}

int64_t Tokenizer::EstimateBytes(const TokenizerVocabulary& vocabulary) {
  // Tables are filled to a third at least, with slots of 8 bytes a token and 16 a merge.
  const bool is_chars = vocabulary.family == TokenizerFamily::kSentencePiece;
  int64_t bytes = 8192 + (is_chars ? PairFilter().memory_bytes() : 0) +
                  3 * 16 * static_cast<int64_t>(vocabulary.merges.size());
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const auto n_bytes = static_cast<int64_t>(vocabulary.tokens[id].size());
    const bool is_text = vocabulary.type(static_cast<TokenId>(id)) == TokenType::kNormal;
    // A trie takes up to 32 bytes a letter while its vector doubles.
    bytes += 52 + (is_text ? n_bytes : 33 * n_bytes);
  }
  return bytes;
}

// The text by which the reference finds a special token.
absl::StatusOr<std::string> Tokenizer::LiteralText(
    const TokenizerVocabulary& vocabulary, const TokenizerVocabulary::Literal& rules) const {
  std::string text(vocabulary.tokens[rules.id]);
  // llama.cpp's converter writes spaces here. The reference knows the tokens by the mark and
  // leaves spaces to the merges.
  const bool is_converted = !vocabulary.scores.empty();
  if (is_converted && vocabulary.IsBlank(rules.id)) absl::StrReplaceAll({{" ", kSpaceMark}}, &text);
  if (!rules.is_normalized) return text;
  if (vocabulary.adds_space || vocabulary.family == TokenizerFamily::kWordPiece) {
    return absl::UnimplementedError(
        vocabulary.BadToken(rules.id, "a token is to be found in normalised text").message());
  }
  const std::optional<Normalized> normalized = encoder_->Normalize(text);
  return normalized.has_value() ? normalized->text : text;
}

absl::Status Tokenizer::AddSpecials(const TokenizerVocabulary& vocabulary) {
  auto literal = vocabulary.literals.begin();
  size_t n_bytes = 0;
  for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    while (literal != vocabulary.literals.end() && literal->id < id) ++literal;
    const TokenType type = vocabulary.type(id);
    const bool is_special = type == TokenType::kControl || type == TokenType::kUserDefined ||
                            type == TokenType::kUnknown;
    if (!is_special || vocabulary.tokens[i].empty()) continue;
    const bool has_rules = literal != vocabulary.literals.end() && literal->id == id;
    const auto rules = has_rules ? *literal : TokenizerVocabulary::Literal{.id = id};
    COTERIE_ASSIGN_OR_RETURN(const std::string text, LiteralText(vocabulary, rules));
    n_bytes += text.size();
    if (text.size() > kMaxSpecialTokenBytes || n_bytes > kMaxSpecialBytes) {
      return vocabulary.BadToken(id, "special tokens are too long");
    }
    SpecialTokens& tokens = rules.is_normalized ? late_specials_ : specials_;
    const bool has_marks =
        rules.is_normalized && vocabulary.family == TokenizerFamily::kSentencePiece;
    if (!tokens.Add(text, {.id = id,
                           .is_blank = vocabulary.IsBlank(id),
                           .is_word = rules.is_word,
                           .strips_left = rules.strips_left,
                           .strips_right = rules.strips_right,
                           .spares_spaces = has_marks})) {
      return vocabulary.BadToken(id, "a special token stands twice");
    }
  }
  return absl::OkStatus();
}

absl::Status Tokenizer::BuildMerging(const TokenizerVocabulary& vocabulary) {
  if (vocabulary.family == TokenizerFamily::kByteLevelBpe) {
    COTERIE_ASSIGN_OR_RETURN(encoder_, BpeEncoder::Create(vocabulary, *table_));
  } else {
    COTERIE_ASSIGN_OR_RETURN(encoder_, SentencePieceEncoder::Create(vocabulary, *table_));
    removes_space_ = vocabulary.adds_space;
  }
  return absl::OkStatus();
}

absl::Status Tokenizer::BuildWordPiece(const TokenizerVocabulary& vocabulary) {
  if (!vocabulary.unknown.has_value() || prefix_.empty() || suffix_.empty()) {
    return absl::DataLossError(
        absl::StrCat("a BERT vocabulary needs [UNK], [CLS] and [SEP]: file=", vocabulary.origin));
  }
  encoder_ = std::make_unique<WordPieceEncoder>(*table_, *vocabulary.unknown);
  joins_words_ = true;
  return absl::OkStatus();
}

void Tokenizer::FindEndsOfGeneration(const TokenizerVocabulary& vocabulary) {
  ends_ = vocabulary.ends;
  if (eos_.has_value()) ends_.push_back(*eos_);
  for (const char* name : kEndNames) {
    const TokenId id = Find(name).value_or(-1);
    if (id >= 0 && IsControl(id)) ends_.push_back(id);
  }
  std::sort(ends_.begin(), ends_.end());
  ends_.erase(std::unique(ends_.begin(), ends_.end()), ends_.end());
}

}  // namespace coterie
