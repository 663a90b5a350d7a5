#pragma once

// Text to tokens and back, for the tokenizers that model files carry. Ids equal those of Hugging
// Face tokenizers (tests/core/formats/make_tokenizer_golden.py compares them).

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "core/formats/gguf_file.h"
#include "core/formats/special_tokens.h"
#include "core/formats/text_encoder.h"
#include "core/formats/text_piece.h"
#include "core/formats/token_table.h"
#include "core/formats/tokenizer_vocabulary.h"

namespace coterie {

struct EncodeOptions {
  bool add_special = true;  // The BOS, EOS, CLS or SEP tokens that the file asks for.
};

// Tokens with the role of whoever wrote the first byte of each; equal lengths. Tokens that
// add_special added have Role::kNone.
struct Encoding {
  std::vector<TokenId> ids;
  std::vector<Role> roles;
};

// Const after construction, thread-safe, does no I/O. Owns all it needs: it may outlive the file.
class Tokenizer {
 public:
  // Reads the tokenizer.ggml.* keys. kUnimplemented for a family or a cutting rule
  // (tokenizer.ggml.pre) that is not known, kDataLoss for keys that contradict each other; both
  // name file and key.
  static absl::StatusOr<std::unique_ptr<const Tokenizer>> FromGguf(const GgufFile& file);
  // The same from a vocabulary in memory, whose views need to live only during the call.
  static absl::StatusOr<std::unique_ptr<const Tokenizer>> FromVocabulary(
      const TokenizerVocabulary& vocabulary);
  // At least what memory_bytes() of the file's tokenizer will be, before it is built.
  static absl::StatusOr<int64_t> EstimateBytes(const GgufFile& file);
  static int64_t EstimateBytes(const TokenizerVocabulary& vocabulary);

  // Encodes pieces as one text: merges run across their borders, but special tokens are only
  // recognised where every byte is trusted. Whatever an untrusted piece holds becomes plain text
  // (which in SentencePiece's vocabularies includes tokens of white space alone).
  // Does not look whether the text begins with BOS before it adds one. kInvalidArgument for text
  // that is not UTF-8, with the piece and the byte, or that is 2 GiB or longer. Bytes for which a
  // byte-level vocabulary has no token are left out, as in the reference.
  absl::StatusOr<Encoding> Encode(absl::Span<const TextPiece> pieces,
                                  const EncodeOptions& options) const;
  // The same for one text; special tokens in it are recognised if parse_special.
  absl::StatusOr<std::vector<TokenId>> Encode(absl::string_view text, bool add_special,
                                              bool parse_special) const;

  // The text of the tokens, always UTF-8: what is not, becomes U+FFFD. Control tokens are printed
  // as their text unless skip_special. Requires ids in [0, n_vocab).
  std::string Decode(absl::Span<const TokenId> ids, bool skip_special = false) const;
  // Appends the bytes of one token as Decode joins them, perhaps part of a character: who shows an
  // answer while it is written holds those back (experts/stop_matcher.h).
  void AppendBytes(TokenId id, bool is_first, std::string* out) const;
  // The raw bytes of one token, without what joins it to others. Requires id in [0, n_vocab).
  absl::string_view TokenBytes(TokenId id) const { return table_->Bytes(id); }

  int32_t n_vocab() const { return table_->size(); }
  // The token that has this text: a special token, or a plain one by its bytes (" the", "##ing").
  std::optional<TokenId> Find(absl::string_view token_text) const;

  bool IsControl(TokenId id) const;
  // True for the tokens at which an answer ends: those that the file names as the end of a text, a
  // turn or a message, and control tokens known by name to be such.
  bool IsEndOfGeneration(TokenId id) const;
  std::optional<TokenId> bos() const { return bos_; }
  std::optional<TokenId> eos() const { return eos_; }

  // Bytes held by the tables.
  int64_t memory_bytes() const;

 private:
  Tokenizer() = default;
  absl::StatusOr<std::string> LiteralText(const TokenizerVocabulary& vocabulary,
                                          const TokenizerVocabulary::Literal& rules) const;
  absl::Status AddSpecials(const TokenizerVocabulary& vocabulary);
  absl::Status BuildMerging(const TokenizerVocabulary& vocabulary);
  absl::Status BuildWordPiece(const TokenizerVocabulary& vocabulary);
  void FindEndsOfGeneration(const TokenizerVocabulary& vocabulary);
  void EncodeJoined(absl::string_view text, absl::Span<const TrustRun> runs,
                    const TokenSink& sink) const;
  // Encodes what lies between the special tokens of the first kind.
  void EncodeStretch(absl::string_view stretch, absl::Span<const TrustRun> runs,
                     const TokenSink& sink) const;

  std::unique_ptr<const TokenTable> table_;
  std::unique_ptr<const TextEncoder> encoder_;
  SpecialTokens specials_;                // Found in the text as it is.
  SpecialTokens late_specials_;           // Found in what remains, once it is normalised.
  std::vector<TokenType> types_;          // [n_vocab]
  std::vector<TokenId> prefix_, suffix_;  // What add_special adds.
  std::vector<TokenId> ends_;             // Sorted.
  std::optional<TokenId> bos_, eos_;
  bool joins_words_ = false;    // WordPiece: tokens are words unless they begin with "##".
  bool removes_space_ = false;  // The one that a text begins with because it was added.
};

}  // namespace coterie
