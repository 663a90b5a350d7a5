#include "core/formats/tokenizer_vocabulary.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "core/formats/pretokenizer.h"

namespace coterie {
namespace {

constexpr absl::string_view kWordStart = "\xE2\x96\x81";  // U+2581, llama.cpp's mark of a word.

absl::Status ReadTypes(const GgufFile& file, TokenizerVocabulary* vocabulary) {
  constexpr absl::string_view kKey = "tokenizer.ggml.token_type";
  if (!file.Has(kKey)) return absl::OkStatus();
  COTERIE_ASSIGN_OR_RETURN(const std::vector<int64_t> types, file.GetIntArray(kKey));
  if (types.size() != vocabulary->tokens.size()) {
    return absl::DataLossError(absl::StrCat(
        "token types and tokens differ in number: ", kKey, "=", types.size(),
        ", tokenizer.ggml.tokens=", vocabulary->tokens.size(), ", file=", file.path()));
  }
  vocabulary->types.reserve(types.size());
  for (size_t id = 0; id < types.size(); ++id) {
    if (types[id] < 0 || types[id] > static_cast<int64_t>(TokenType::kByte)) {
      return absl::DataLossError(absl::StrCat("unknown type of token: ", kKey, "[", id,
                                              "]=", types[id], ", file=", file.path()));
    }
    // 0, "undefined", is what files say that do not care.
    vocabulary->types.push_back(types[id] == 0 ? TokenType::kNormal
                                               : static_cast<TokenType>(types[id]));
  }
  return absl::OkStatus();
}

absl::Status ReadId(const GgufFile& file, absl::string_view name, size_t n_tokens,
                    std::optional<TokenId>* id) {
  const std::string key = absl::StrCat("tokenizer.ggml.", name, "_token_id");
  if (!file.Has(key)) return absl::OkStatus();
  COTERIE_ASSIGN_OR_RETURN(const int64_t value, file.GetInt(key));
  if (value < 0 || value >= static_cast<int64_t>(n_tokens)) {
    return absl::DataLossError(absl::StrCat("a special token is outside of the vocabulary: ", key,
                                            "=", value, ", tokens=", n_tokens,
                                            ", file=", file.path()));
  }
  *id = static_cast<TokenId>(value);
  return absl::OkStatus();
}

absl::Status ReadIds(const GgufFile& file, TokenizerVocabulary* vocabulary) {
  const struct {
    const char* name;
    std::optional<TokenId>* id;
  } rows[] = {
      {"bos", &vocabulary->bos},
      {"eos", &vocabulary->eos},
      {"eot", &vocabulary->eot},
      {"eom", &vocabulary->eom},
      {"unknown", &vocabulary->unknown},
      {"cls", &vocabulary->cls},
      {"seperator", &vocabulary->separator},  // So spelt in the files.
  };
  for (const auto& row : rows) {
    COTERIE_RETURN_IF_ERROR(ReadId(file, row.name, vocabulary->tokens.size(), row.id));
  }
  return absl::OkStatus();
}

absl::Status ReadByteLevel(const GgufFile& file, TokenizerVocabulary* vocabulary) {
  COTERIE_ASSIGN_OR_RETURN(vocabulary->merges, file.GetStringArray("tokenizer.ggml.merges"));
  COTERIE_ASSIGN_OR_RETURN(const absl::string_view pre, file.GetString("tokenizer.ggml.pre", ""));
  vocabulary->pre = std::string(pre);
  // Files of this family were written before there was a key for it.
  const bool adds_bos = PretokenizerNamed(pre) == PretokenizerKind::kLlama3;
  COTERIE_ASSIGN_OR_RETURN(vocabulary->add_bos,
                           file.GetBool("tokenizer.ggml.add_bos_token", adds_bos));
  COTERIE_ASSIGN_OR_RETURN(vocabulary->add_eos,
                           file.GetBool("tokenizer.ggml.add_eos_token", false));
  return absl::OkStatus();
}

// llama.cpp's converter marks the pieces that begin a word, BERT's own files those that do not.
void MarkContinuations(TokenizerVocabulary* vocabulary, std::vector<std::string>* storage) {
  storage->reserve(vocabulary->tokens.size());  // Views into short strings move with them.
  for (size_t id = 0; id < vocabulary->tokens.size(); ++id) {
    absl::string_view& token = vocabulary->tokens[id];
    if (vocabulary->type(static_cast<TokenId>(id)) != TokenType::kNormal) continue;
    if (absl::StartsWith(token, kWordStart)) {
      token.remove_prefix(kWordStart.size());
    } else {
      storage->push_back(absl::StrCat("##", token));
      token = storage->back();
    }
  }
}

}  // namespace

absl::StatusOr<TokenizerVocabulary> TokenizerVocabulary::FromGguf(
    const GgufFile& file, std::vector<std::string>* storage) {
  TokenizerVocabulary vocabulary;
  vocabulary.origin = file.path();
  COTERIE_ASSIGN_OR_RETURN(const absl::string_view model, file.GetString("tokenizer.ggml.model"));
  if (model != "gpt2" && model != "bert") {
    return absl::UnimplementedError(
        absl::StrCat("unknown family of tokenizers: tokenizer.ggml.model=\"",
                     absl::CHexEscape(model), "\", file=", file.path()));
  }
  COTERIE_ASSIGN_OR_RETURN(vocabulary.tokens, file.GetStringArray("tokenizer.ggml.tokens"));
  COTERIE_RETURN_IF_ERROR(ReadTypes(file, &vocabulary));
  COTERIE_RETURN_IF_ERROR(ReadIds(file, &vocabulary));
  if (model == "gpt2") {
    COTERIE_RETURN_IF_ERROR(ReadByteLevel(file, &vocabulary));
  } else {
    vocabulary.family = TokenizerFamily::kWordPiece;
    MarkContinuations(&vocabulary, storage);
  }
  return vocabulary;
}

TokenizerVocabulary WordPieceVocabulary(const std::vector<std::string>& lines) {
  TokenizerVocabulary vocabulary;
  vocabulary.origin = "vocab.txt";
  vocabulary.family = TokenizerFamily::kWordPiece;
  vocabulary.tokens.assign(lines.begin(), lines.end());
  vocabulary.types.reserve(lines.size());
  for (const std::string& line : lines) {
    const bool is_control = line == "[PAD]" || line == "[UNK]" || line == "[CLS]" ||
                            line == "[SEP]" || line == "[MASK]";
    vocabulary.types.push_back(is_control ? TokenType::kControl : TokenType::kNormal);
  }
  return vocabulary;
}

}  // namespace coterie
