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

// U+2581, which stands for a space in SentencePiece's vocabularies.
inline constexpr absl::string_view kSpaceMark = "\xE2\x96\x81";

// Values of tokenizer.ggml.token_type.
enum class TokenType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,      // Literal; structure, not text.
  kUserDefined = 4,  // Literal text that is one token wherever special tokens are parsed.
  kUnused = 5,
  kByte = 6,
};

enum class TokenizerFamily : uint8_t { kByteLevelBpe, kSentencePiece, kWordPiece };

struct TokenizerVocabulary {
  std::string origin;  // The file, for error messages.
  TokenizerFamily family = TokenizerFamily::kByteLevelBpe;

  // What the file calls things, for error messages.
  struct Names {
    const char* tokens = "tokenizer.ggml.tokens";
    const char* merges = "tokenizer.ggml.merges";
    const char* pre = "tokenizer.ggml.pre";
  } names;

  // By id. Byte-level BPE: normal tokens are in GPT-2's alphabet of printable characters (a space
  // is U+0120). SentencePiece: U+2581 is a space, bytes are "<0x0A>". WordPiece: pieces inside a
  // word begin with "##".
  std::vector<absl::string_view> tokens;
  std::vector<TokenType> types;  // As many, or empty: all normal.

  std::vector<absl::string_view> merges;  // "left right", the earliest first.
  std::vector<float> scores;              // SentencePiece: instead of merges.

  // Byte-level BPE.
  std::string pre;                         // The cutting rule: see pretokenizer.h.
  std::optional<bool> normalizes;          // To NFC; if absent, as is usual for `pre`.
  std::optional<bool> takes_tokens_whole;  // Without asking the merges; likewise.

  bool adds_space = false;  // SentencePiece: before every stretch between special tokens.

  // How special tokens are looked for; absent: as they are written.
  struct Literal {
    TokenId id;
    bool is_normalized = false;  // After the text was normalised, and the token likewise.
    bool is_word = false, strips_left = false, strips_right = false;  // See SpecialTokens::Token.
  };
  std::vector<Literal> literals;  // By id.

  std::optional<TokenId> bos, eos;
  std::vector<TokenId> ends;            // Besides eos: what ends a turn or a message.
  std::optional<TokenId> unknown;       // SentencePiece, WordPiece.
  std::vector<TokenId> prefix, suffix;  // What add_special adds.

  TokenType type(TokenId id) const { return types.empty() ? TokenType::kNormal : types[id]; }
  // A user-defined token of white space. SentencePiece's only: it has no structure to protect, and
  // models of that family never saw such text spelt otherwise.
  bool IsBlank(TokenId id) const;
  // Whether any text, trusted or not, may become the token by merging.
  bool IsPlain(TokenId id) const { return type(id) == TokenType::kNormal || IsBlank(id); }

  // Appends the bytes that a plain or byte token, or one side of a merge, stands for; false if the
  // text is not of the family's alphabet.
  bool AppendBytes(absl::string_view token, std::string* bytes) const;

  // kDataLoss: `what`, the token, the file.
  absl::Status BadToken(TokenId id, absl::string_view what) const;

  // Reads the tokenizer.ggml.* keys, and checks what does not depend on the family: numbers of
  // elements, types, ids. The views live as long as the file; those that had to be changed live in
  // `storage`.
  static absl::StatusOr<TokenizerVocabulary> FromGguf(const GgufFile& file,
                                                      std::vector<std::string>* storage);
};

// The byte that SentencePiece spells <0x0A>; -1 for other text.
int ByteNamed(absl::string_view token);

// An uncased BERT vocabulary from the lines of its vocab.txt, which must hold [UNK], [CLS] and
// [SEP]. The views live as long as `lines`; pass the result to Tokenizer::FromVocabulary.
TokenizerVocabulary WordPieceVocabulary(const std::vector<std::string>& lines);

}  // namespace coterie
