#pragma once

// What a tokenizer is made of, as model files list it.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "core/formats/gguf_file.h"
#include "core/formats/token_table.h"

namespace coterie {

// Values of tokenizer.ggml.token_type.
enum class TokenType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,      // Literal; structure, not text.
  kUserDefined = 4,  // Literal text that is one token wherever special tokens are parsed.
  kUnused = 5,
  kByte = 6,
};

enum class TokenizerFamily : uint8_t { kByteLevelBpe, kWordPiece };

struct TokenizerVocabulary {
  std::string origin;  // The file, for error messages.
  TokenizerFamily family = TokenizerFamily::kByteLevelBpe;

  // By id. Byte-level BPE: normal tokens are in GPT-2's alphabet of printable characters (a space
  // is U+0120). WordPiece: pieces inside a word begin with "##".
  std::vector<absl::string_view> tokens;
  std::vector<TokenType> types;  // As many, or empty: all normal.

  // Byte-level BPE only.
  std::vector<absl::string_view> merges;  // "left right", the earliest first.
  std::string pre;                        // The cutting rule: see pretokenizer.h.

  std::optional<TokenId> bos, eos, eot, eom;
  std::optional<TokenId> unknown, cls, separator;  // WordPiece.
  bool add_bos = false;
  bool add_eos = false;

  TokenType type(TokenId id) const { return types.empty() ? TokenType::kNormal : types[id]; }

  // Reads the tokenizer.ggml.* keys, and checks what does not depend on the family: numbers of
  // elements, types, ids. The views live as long as the file; those that had to be changed live in
  // `storage`.
  static absl::StatusOr<TokenizerVocabulary> FromGguf(const GgufFile& file,
                                                      std::vector<std::string>* storage);
};

// An uncased BERT vocabulary from the lines of its vocab.txt, which must hold [UNK], [CLS] and
// [SEP]. The views live as long as `lines`; pass the result to Tokenizer::FromVocabulary.
TokenizerVocabulary WordPieceVocabulary(const std::vector<std::string>& lines);

}  // namespace coterie
