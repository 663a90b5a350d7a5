#include "core/formats/tokenizer_vocabulary.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "core/base/status_macros.h"
#include "core/formats/pretokenizer.h"

namespace coterie {
namespace {

// byte = alphabet[code point]; -1 outside of the alphabet. Code points up to U+0143.
std::array<int16_t, 0x144> MakeAlphabet() {
  std::array<int16_t, 0x144> alphabet;
  alphabet.fill(-1);
  int n_unprintable = 0;
  for (int byte = 0; byte < 256; ++byte) {
    const bool is_printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
    alphabet[is_printable ? byte : 0x100 + n_unprintable++] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

// The bytes behind text in GPT-2's alphabet: the 188 printable characters of Latin-1 stand for
// themselves, U+0100 to U+0143 for the other bytes in order.
bool AppendAlphabetBytes(absl::string_view text, std::string* bytes) {
  static const std::array<int16_t, 0x144> alphabet = MakeAlphabet();
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    uint32_t code_point = lead;
    if (lead >= 0x80) {
      if (lead < 0xC2 || lead > 0xC5 || i + 1 == text.size()) return false;
      const auto trail = static_cast<unsigned char>(text[i + 1]);
      if (trail < 0x80 || trail > 0xBF) return false;
      code_point = (lead & 0x1Fu) << 6 | (trail & 0x3Fu);
    }
    if (code_point >= alphabet.size() || alphabet[code_point] < 0) return false;
    bytes->push_back(static_cast<char>(alphabet[code_point]));
    i += lead < 0x80 ? 1 : 2;
  }
  return true;
}

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
  std::optional<TokenId> eot, eom;
  const struct {
    const char* name;
    std::optional<TokenId>* id;
  } rows[] = {
      {"bos", &vocabulary->bos},         {"eos", &vocabulary->eos}, {"eot", &eot}, {"eom", &eom},
      {"unknown", &vocabulary->unknown},
  };
  for (const auto& row : rows) {
    COTERIE_RETURN_IF_ERROR(ReadId(file, row.name, vocabulary->tokens.size(), row.id));
  }
  for (const auto& id : {eot, eom}) {
    if (id.has_value()) vocabulary->ends.push_back(*id);
  }
  return absl::OkStatus();
}

// Reads tokenizer.ggml.add_NAME_token and, if so, adds the token to `where`.
absl::Status ReadAddition(const GgufFile& file, absl::string_view name, bool by_default,
                          std::optional<TokenId> id, std::vector<TokenId>* where) {
  COTERIE_ASSIGN_OR_RETURN(
      const bool adds,
      file.GetBool(absl::StrCat("tokenizer.ggml.add_", name, "_token"), by_default));
  if (!adds) return absl::OkStatus();
  if (!id.has_value()) {
    return absl::DataLossError(
        absl::StrCat("a token is to be added to every text but not named: ", "tokenizer.ggml.",
                     name, "_token_id is absent, file=", file.path()));
  }
  where->push_back(*id);
  return absl::OkStatus();
}

absl::Status ReadByteLevel(const GgufFile& file, TokenizerVocabulary* vocabulary) {
  COTERIE_ASSIGN_OR_RETURN(vocabulary->merges, file.GetStringArray("tokenizer.ggml.merges"));
  COTERIE_ASSIGN_OR_RETURN(const absl::string_view pre, file.GetString("tokenizer.ggml.pre", ""));
  vocabulary->pre = std::string(pre);
  // Files of this family were written before there was a key for it.
  const bool adds_bos = PretokenizerNamed(pre) == PretokenizerKind::kLlama3;
  COTERIE_RETURN_IF_ERROR(
      ReadAddition(file, "bos", adds_bos, vocabulary->bos, &vocabulary->prefix));
  return ReadAddition(file, "eos", false, vocabulary->eos, &vocabulary->suffix);
}

absl::Status ReadSentencePiece(const GgufFile& file, TokenizerVocabulary* vocabulary) {
  vocabulary->family = TokenizerFamily::kSentencePiece;
  COTERIE_ASSIGN_OR_RETURN(vocabulary->scores, file.GetFloatArray("tokenizer.ggml.scores"));
  // None would mean a list of merges to whoever reads the vocabulary.
  if (vocabulary->scores.size() != vocabulary->tokens.size()) {
    return absl::DataLossError(absl::StrCat(
        "scores and tokens differ in number: tokenizer.ggml.scores=", vocabulary->scores.size(),
        ", tokenizer.ggml.tokens=", vocabulary->tokens.size(), ", file=", file.path()));
  }
  if (vocabulary->types.empty()) {
    return absl::NotFoundError(
        absl::StrCat("a key is absent: tokenizer.ggml.token_type, which says what is a byte, file=",
                     file.path()));
  }
  constexpr absl::string_view kRemoves = "tokenizer.ggml.remove_extra_whitespaces";
  COTERIE_ASSIGN_OR_RETURN(const bool removes, file.GetBool(kRemoves, false));
  if (removes) {
    return absl::UnimplementedError(absl::StrCat(
        "text is to be changed in an unknown way: ", kRemoves, "=true, file=", file.path()));
  }
  // The defaults are those of files that were written before there were keys for it.
  COTERIE_ASSIGN_OR_RETURN(vocabulary->adds_space,
                           file.GetBool("tokenizer.ggml.add_space_prefix", true));
  COTERIE_RETURN_IF_ERROR(ReadAddition(file, "bos", true, vocabulary->bos, &vocabulary->prefix));
  return ReadAddition(file, "eos", false, vocabulary->eos, &vocabulary->suffix);
}

// llama.cpp's converter marks the pieces that begin a word, BERT's own files those that do not.
void MarkContinuations(TokenizerVocabulary* vocabulary, std::vector<std::string>* storage) {
  storage->reserve(vocabulary->tokens.size());  // Views into short strings move with them.
  for (size_t id = 0; id < vocabulary->tokens.size(); ++id) {
    absl::string_view& token = vocabulary->tokens[id];
    if (vocabulary->type(static_cast<TokenId>(id)) != TokenType::kNormal) continue;
    if (absl::StartsWith(token, kSpaceMark)) {
      token.remove_prefix(kSpaceMark.size());
    } else {
      storage->push_back(absl::StrCat("##", token));
      token = storage->back();
    }
  }
}

// BERT's special tokens, by name where no key names them.
void FindBertTokens(std::optional<TokenId> cls, std::optional<TokenId> separator,
                    TokenizerVocabulary* vocabulary) {
  const auto id_of = [&](std::optional<TokenId> named, absl::string_view text) {
    const auto& tokens = vocabulary->tokens;
    const auto found = std::find(tokens.begin(), tokens.end(), text);
    if (named.has_value() || found == tokens.end()) return named;
    return std::make_optional(static_cast<TokenId>(found - tokens.begin()));
  };
  vocabulary->unknown = id_of(vocabulary->unknown, "[UNK]");
  if (const auto id = id_of(cls, "[CLS]")) vocabulary->prefix = {*id};
  if (const auto id = id_of(separator, "[SEP]")) vocabulary->suffix = {*id};
}

absl::Status ReadWordPiece(const GgufFile& file, TokenizerVocabulary* vocabulary,
                           std::vector<std::string>* storage) {
  vocabulary->family = TokenizerFamily::kWordPiece;
  std::optional<TokenId> cls, separator;
  const size_t n_tokens = vocabulary->tokens.size();
  COTERIE_RETURN_IF_ERROR(ReadId(file, "cls", n_tokens, &cls));
  COTERIE_RETURN_IF_ERROR(
      ReadId(file, "seperator", n_tokens, &separator));  // So spelt in the files.
  FindBertTokens(cls.has_value() ? cls : vocabulary->bos, separator, vocabulary);
  MarkContinuations(vocabulary, storage);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerVocabulary> TokenizerVocabulary::FromGguf(
    const GgufFile& file, std::vector<std::string>* storage) {
  TokenizerVocabulary vocabulary;
  vocabulary.origin = file.path();
  COTERIE_ASSIGN_OR_RETURN(const absl::string_view model, file.GetString("tokenizer.ggml.model"));
  if (model != "gpt2" && model != "llama" && model != "bert") {
    return absl::UnimplementedError(
        absl::StrCat("unknown family of tokenizers: tokenizer.ggml.model=\"",
                     absl::CHexEscape(model), "\", file=", file.path()));
  }
  COTERIE_ASSIGN_OR_RETURN(vocabulary.tokens, file.GetStringArray("tokenizer.ggml.tokens"));
  COTERIE_RETURN_IF_ERROR(ReadTypes(file, &vocabulary));
  COTERIE_RETURN_IF_ERROR(ReadIds(file, &vocabulary));
  if (model == "gpt2") {
    COTERIE_RETURN_IF_ERROR(ReadByteLevel(file, &vocabulary));
  } else if (model == "llama") {
    COTERIE_RETURN_IF_ERROR(ReadSentencePiece(file, &vocabulary));
  } else {
    COTERIE_RETURN_IF_ERROR(ReadWordPiece(file, &vocabulary, storage));
  }
  return vocabulary;
}

int ByteNamed(absl::string_view token) {
  if (token.size() != 6 || !absl::StartsWith(token, "<0x") || token[5] != '>') return -1;
  int byte = 0;
  for (const char c : token.substr(3, 2)) {
    if (!absl::ascii_isxdigit(static_cast<unsigned char>(c))) return -1;
    byte = byte * 16 + (absl::ascii_isdigit(static_cast<unsigned char>(c))
                            ? c - '0'
                            : absl::ascii_tolower(static_cast<unsigned char>(c)) - 'a' + 10);
  }
  return byte;
}

bool TokenizerVocabulary::IsBlank(TokenId id) const {
  if (family != TokenizerFamily::kSentencePiece || type(id) != TokenType::kUserDefined) {
    return false;
  }
  absl::string_view rest = tokens[id];
  while (!rest.empty()) {
    if (absl::ConsumePrefix(&rest, kSpaceMark)) continue;
    if (!absl::ascii_isspace(static_cast<unsigned char>(rest[0]))) return false;
    rest.remove_prefix(1);
  }
  return !tokens[id].empty();
}

bool TokenizerVocabulary::AppendBytes(absl::string_view token, std::string* bytes) const {
  switch (family) {
    case TokenizerFamily::kByteLevelBpe:
      return AppendAlphabetBytes(token, bytes);
    case TokenizerFamily::kSentencePiece:
      for (size_t at = 0; (at = token.find(kSpaceMark)) != absl::string_view::npos;) {
        absl::StrAppend(bytes, token.substr(0, at), " ");
        token.remove_prefix(at + kSpaceMark.size());
      }
      absl::StrAppend(bytes, token);
      return true;
    case TokenizerFamily::kWordPiece:
      absl::StrAppend(bytes, token);
      return true;
  }
  return false;
}

absl::Status TokenizerVocabulary::BadToken(TokenId id, absl::string_view what) const {
  return absl::DataLossError(absl::StrCat(what, ": ", names.tokens, "[", id, "]=\"",
                                          absl::CHexEscape(tokens[id].substr(0, 80)),
                                          "\", file=", origin));
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
  FindBertTokens(std::nullopt, std::nullopt, &vocabulary);
  return vocabulary;
}

}  // namespace coterie
