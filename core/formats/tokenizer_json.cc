#include "core/formats/tokenizer_json.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "core/base/quote.h"
#include "core/base/read_file.h"
#include "core/base/status_macros.h"
#include "core/formats/tokenizer_json_reader.h"

namespace coterie {
namespace {

using nlohmann::json;

constexpr int64_t kMaxTokenizerBytes = int64_t{128} << 20;
constexpr int64_t kMaxConfigBytes = int64_t{4} << 20;
constexpr size_t kMaxSteps = 64;  // Of a normalizer and so on; real files have up to five.

// The patterns by which text is cut, and the names that GGUF files have for them.
constexpr absl::string_view kContractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
constexpr absl::string_view kLetters = R"(|[^\r\n\p{L}\p{N}]?\p{L}+|)";
constexpr absl::string_view kRest = R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr absl::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// A member that may be absent; null then.
const json& At(const json& object, const char* name) {
  static const json& null = *new json();
  if (!object.is_object()) return null;
  const auto found = object.find(name);
  return found == object.end() ? null : *found;
}

std::string TextAt(const json& object, const char* name) {
  const json& value = At(object, name);
  return value.is_string() ? value.get<std::string>() : "";
}

bool FlagAt(const json& object, const char* name, bool if_absent = false) {
  const json& value = At(object, name);
  return value.is_boolean() ? value.get<bool>() : if_absent;
}

// A step whose "pattern" is this text or this regular expression.
bool HasPattern(const json& step, const char* kind, absl::string_view pattern) {
  return TextAt(At(step, "pattern"), kind) == std::string(pattern);
}

// Makes a vocabulary of the parts.
class Interpreter {
 public:
  Interpreter(const TokenizerJsonParts& parts, absl::string_view name)
      : parts_(parts), name_(name), model_(At(parts.rest, "model")) {}

  absl::StatusOr<TokenizerVocabulary> Read();

 private:
  absl::Status Lies(absl::string_view what) const {
    return absl::DataLossError(absl::StrCat(what, ": file=", name_));
  }
  // What a file wants that is not known, by its beginning.
  absl::Status Unknown(absl::string_view what, const json& value) const {
    return absl::UnimplementedError(
        absl::StrCat("unknown ", what, ": ", Quote(value.dump()), ", file=", name_));
  }
  // The steps of a step, which are in its `list` if it is a sequence.
  absl::StatusOr<std::vector<const json*>> Steps(const char* name, const char* list) const;
  absl::StatusOr<TokenId> IdOf(absl::string_view token, absl::string_view what) const;

  absl::Status ReadModel();
  absl::Status ReadTokens();
  absl::Status ReadAddedToken(const json& added);
  absl::Status ReadByteLevel(const std::vector<const json*>& cutters);
  absl::Status ReadSentencePiece(const std::vector<const json*>& cutters);
  absl::Status ReadWordPiece(const std::vector<const json*>& cutters);
  absl::Status ReadPostProcessor();
  absl::Status ReadTemplate(const json& step);

  const TokenizerJsonParts& parts_;
  const absl::string_view name_;
  const json& model_;
  std::vector<const json*> normalizers_;
  absl::flat_hash_map<absl::string_view, TokenId> added_;
  TokenizerVocabulary vocabulary_;
};

absl::StatusOr<std::vector<const json*>> Interpreter::Steps(const char* name,
                                                            const char* list) const {
  std::vector<const json*> steps;
  std::vector<const json*> open = {&At(parts_.rest, name)};
  while (!open.empty()) {
    const json* const step = open.back();
    open.pop_back();
    if (step->is_null()) continue;
    if (TextAt(*step, "type").empty())
      return Lies(absl::StrCat("a step of ", name, " has no type"));
    if (TextAt(*step, "type") != "Sequence") {
      steps.push_back(step);
      if (steps.size() > kMaxSteps) return Lies(absl::StrCat(name, " has too many steps"));
      continue;
    }
    const json& parts = At(*step, list);
    if (!parts.is_array()) return Lies(absl::StrCat("a sequence in ", name, " has no ", list));
    for (auto part = parts.rbegin(); part != parts.rend(); ++part) open.push_back(&*part);
  }
  return steps;
}

absl::StatusOr<TokenId> Interpreter::IdOf(absl::string_view token, absl::string_view what) const {
  const auto added = added_.find(token);
  if (added != added_.end()) return added->second;
  const auto& tokens = vocabulary_.tokens;
  const auto found = std::find(tokens.begin(), tokens.end(), token);
  if (found != tokens.end()) return static_cast<TokenId>(found - tokens.begin());
  return Lies(absl::StrCat(what, " is no token: ", Quote(token)));
}

absl::StatusOr<TokenizerVocabulary> Interpreter::Read() {
  vocabulary_.origin = std::string(name_);
  vocabulary_.names = {"model.vocab", "model.merges", "pre_tokenizer"};
  COTERIE_RETURN_IF_ERROR(ReadTokens());
  COTERIE_ASSIGN_OR_RETURN(normalizers_, Steps("normalizer", "normalizers"));
  COTERIE_RETURN_IF_ERROR(ReadModel());
  COTERIE_RETURN_IF_ERROR(ReadPostProcessor());
  return std::move(vocabulary_);
}

// Ids must be all numbers from 0 on: gaps would let a small file ask for much memory.
absl::Status Interpreter::ReadTokens() {
  const json& added_tokens = At(parts_.rest, "added_tokens");
  if (!added_tokens.is_null() && !added_tokens.is_array()) return Lies("added_tokens is no list");
  const size_t n_most = parts_.vocabulary.size() + added_tokens.size();
  vocabulary_.tokens.resize(n_most);
  vocabulary_.types.resize(n_most, TokenType::kUnused);
  for (const TokenizerJsonParts::Token& token : parts_.vocabulary) {
    if (token.id >= n_most || vocabulary_.types[token.id] != TokenType::kUnused) {
      return Lies(absl::StrCat("an id stands twice or is not below the number of tokens: id=",
                               token.id, ", tokens=", n_most));
    }
    vocabulary_.tokens[token.id] = parts_.At(token.text);
    vocabulary_.types[token.id] = TokenType::kNormal;
  }
  for (const json& added : added_tokens) COTERIE_RETURN_IF_ERROR(ReadAddedToken(added));
  auto& types = vocabulary_.types;
  while (!types.empty() && types.back() == TokenType::kUnused) types.pop_back();
  vocabulary_.tokens.resize(types.size());
  const auto gap = std::find(types.begin(), types.end(), TokenType::kUnused);
  if (gap != types.end()) {
    return Lies(absl::StrCat("no token has the id ", gap - types.begin(), " of ", types.size()));
  }
  const auto by_id = [](const auto& a, const auto& b) { return a.id < b.id; };
  std::sort(vocabulary_.literals.begin(), vocabulary_.literals.end(), by_id);
  return absl::OkStatus();
}

absl::Status Interpreter::ReadAddedToken(const json& added) {
  const json& content = At(added, "content");
  const json& id_value = At(added, "id");
  if (!content.is_string() || !id_value.is_number_unsigned()) {
    return Lies("an added token has no content or no id");
  }
  const absl::string_view text = content.get_ref<const std::string&>();
  const uint64_t wanted = id_value.get<uint64_t>();
  if (wanted >= vocabulary_.tokens.size()) {
    return Lies(absl::StrCat("an id is not below the number of tokens: id=", wanted,
                             ", tokens=", vocabulary_.tokens.size()));
  }
  const auto id = static_cast<TokenId>(wanted);
  const bool is_new = vocabulary_.types[id] == TokenType::kUnused;
  if (!added_.emplace(text, id).second || (!is_new && vocabulary_.tokens[id] != text)) {
    return Lies(absl::StrCat("an added token stands twice or has the id of another: ", Quote(text),
                             ", id=", id));
  }
  vocabulary_.tokens[id] = text;
  vocabulary_.types[id] = FlagAt(added, "special") ? TokenType::kControl : TokenType::kUserDefined;
  vocabulary_.literals.push_back({.id = id,
                                  .is_normalized = FlagAt(added, "normalized"),
                                  .is_word = FlagAt(added, "single_word"),
                                  .strips_left = FlagAt(added, "lstrip"),
                                  .strips_right = FlagAt(added, "rstrip")});
  return absl::OkStatus();
}

absl::Status Interpreter::ReadModel() {
  COTERIE_ASSIGN_OR_RETURN(const std::vector<const json*> cutters,
                           Steps("pre_tokenizer", "pretokenizers"));
  for (const TokenizerJsonParts::Text merge : parts_.merges) {
    vocabulary_.merges.push_back(parts_.At(merge));
  }
  const std::string type = TextAt(model_, "type");
  if (type == "WordPiece") return ReadWordPiece(cutters);
  // The first files of the format did not say.
  if (type != "BPE" && !(type.empty() && model_.contains("merges"))) {
    return Unknown("model of tokens", At(model_, "type"));
  }
  for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!TextAt(model_, name).empty()) return Unknown(name, At(model_, name));
  }
  const json& dropout = At(model_, "dropout");
  if (!dropout.is_null() && dropout != 0) return Unknown("dropout of merges", dropout);
  return FlagAt(model_, "byte_fallback") ? ReadSentencePiece(cutters) : ReadByteLevel(cutters);
}

absl::Status Interpreter::ReadByteLevel(const std::vector<const json*>& cutters) {
  vocabulary_.takes_tokens_whole = FlagAt(model_, "ignore_merges");
  vocabulary_.normalizes = !normalizers_.empty();
  for (const json* step : normalizers_) {
    if (TextAt(*step, "type") != "NFC") return Unknown("normalizer", *step);
  }
  const auto is_level = [](const json& step) {
    return TextAt(step, "type") == "ByteLevel" && !FlagAt(step, "add_prefix_space", true);
  };
  const json& all = At(parts_.rest, "pre_tokenizer");
  if (cutters.empty() || cutters.size() > 2 || !is_level(*cutters.back())) {
    return Unknown("way to cut text before merging", all);
  }
  const bool cuts = FlagAt(*cutters.back(), "use_regex", true);
  const json& first = *cutters.front();
  if (cutters.size() == 1) {
    if (!cuts) return Unknown("way to cut text before merging", all);
    vocabulary_.pre = "gpt-2";
    return absl::OkStatus();
  }
  if (TextAt(first, "type") == "Digits" && FlagAt(first, "individual_digits") && cuts) {
    vocabulary_.pre = "smollm";
    return absl::OkStatus();
  }
  if (TextAt(first, "type") != "Split" || TextAt(first, "behavior") != "Isolated" ||
      FlagAt(first, "invert") || cuts) {
    return Unknown("way to cut text before merging", all);
  }
  const std::pair<std::string, const char*> patterns[] = {
      {std::string(kGpt2Pattern), "gpt-2"},
      {absl::StrCat(kContractions, kLetters, R"(\p{N}{1,3})", kRest), "llama-bpe"},
      {absl::StrCat(kContractions, kLetters, R"(\p{N})", kRest), "qwen2"},
  };
  for (const auto& [pattern, pre] : patterns) {
    if (HasPattern(first, "Regex", pattern)) vocabulary_.pre = pre;
  }
  if (vocabulary_.pre.empty()) return Unknown("way to cut text", At(first, "pattern"));
  return absl::OkStatus();
}

absl::Status Interpreter::ReadSentencePiece(const std::vector<const json*>& cutters) {
  vocabulary_.family = TokenizerFamily::kSentencePiece;
  if (FlagAt(model_, "ignore_merges")) return Unknown("way to merge", "ignore_merges");
  size_t n_bytes = 0;
  for (size_t i = 0; i < vocabulary_.tokens.size(); ++i) {
    if (vocabulary_.types[i] != TokenType::kNormal || ByteNamed(vocabulary_.tokens[i]) < 0)
      continue;
    vocabulary_.types[i] = TokenType::kByte;
    ++n_bytes;
  }
  const json& unknown = At(model_, "unk_token");
  if (unknown.is_string()) {
    if (n_bytes < 256 && !FlagAt(model_, "fuse_unk")) return Unknown("way to spell", "fuse_unk");
    COTERIE_ASSIGN_OR_RETURN(vocabulary_.unknown,
                             IdOf(unknown.get_ref<const std::string&>(), "unk_token"));
  }
  const std::string mark(kSpaceMark);
  bool replaces = false;
  for (const json* step : normalizers_) {
    if (TextAt(*step, "type") == "Prepend" && TextAt(*step, "prepend") == mark && !replaces) {
      vocabulary_.adds_space = true;
    } else if (TextAt(*step, "type") == "Replace" && HasPattern(*step, "String", " ") &&
               TextAt(*step, "content") == mark && !replaces) {
      replaces = true;
    } else {
      return Unknown("normalizer", *step);
    }
  }
  if (!replaces) return Unknown("normalizer", At(parts_.rest, "normalizer"));
  // Gemma's cuts text at spaces, of which the normalizer left none.
  for (const json* step : cutters) {
    const bool is_idle = TextAt(*step, "type") == "Split" && HasPattern(*step, "String", " ");
    if (!is_idle) return Unknown("way to cut text before merging", *step);
  }
  return absl::OkStatus();
}

absl::Status Interpreter::ReadWordPiece(const std::vector<const json*>& cutters) {
  vocabulary_.family = TokenizerFamily::kWordPiece;
  const bool is_usual = TextAt(model_, "continuing_subword_prefix") == "##" &&
                        At(model_, "max_input_chars_per_word") == 100;
  if (!is_usual) return Unknown("way to cut words", model_);
  const json& bert = normalizers_.size() == 1 ? *normalizers_[0] : At(parts_.rest, "normalizer");
  const json& strips = At(bert, "strip_accents");
  if (TextAt(bert, "type") != "BertNormalizer" || !FlagAt(bert, "clean_text") ||
      !FlagAt(bert, "handle_chinese_chars") || !FlagAt(bert, "lowercase") || strips == false) {
    return Unknown("normalizer", bert);
  }
  if (cutters.size() != 1 || TextAt(*cutters[0], "type") != "BertPreTokenizer") {
    return Unknown("way to cut text", At(parts_.rest, "pre_tokenizer"));
  }
  COTERIE_ASSIGN_OR_RETURN(vocabulary_.unknown, IdOf(TextAt(model_, "unk_token"), "unk_token"));
  return absl::OkStatus();
}

absl::Status Interpreter::ReadPostProcessor() {
  COTERIE_ASSIGN_OR_RETURN(const std::vector<const json*> steps,
                           Steps("post_processor", "processors"));
  for (const json* step : steps) {
    const std::string type = TextAt(*step, "type");
    if (type == "ByteLevel") continue;  // Places only.
    if (type == "TemplateProcessing") {
      COTERIE_RETURN_IF_ERROR(ReadTemplate(*step));
      continue;
    }
    if (type != "BertProcessing" && type != "RobertaProcessing") {
      return Unknown("post_processor", *step);
    }
    for (const auto& [name, where] :
         {std::make_pair("cls", &vocabulary_.prefix), std::make_pair("sep", &vocabulary_.suffix)}) {
      const json& token = At(*step, name);
      if (!token.is_array() || token.empty() || !token[0].is_string()) {
        return Lies(absl::StrCat("post_processor has no token ", name));
      }
      COTERIE_ASSIGN_OR_RETURN(const TokenId id,
                               IdOf(token[0].get_ref<const std::string&>(), name));
      where->push_back(id);
    }
  }
  return absl::OkStatus();
}

// {"single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}],
//  "special_tokens": {"<s>": {"ids": [1]}}}
absl::Status Interpreter::ReadTemplate(const json& step) {
  const json& items = At(step, "single");
  int n_texts = 0;
  for (const json& item : items) {
    if (!At(item, "Sequence").is_null()) {
      ++n_texts;
      continue;
    }
    const std::string name = TextAt(At(item, "SpecialToken"), "id");
    const json& ids = At(At(At(step, "special_tokens"), name.c_str()), "ids");
    if (!ids.is_array()) return Lies(absl::StrCat("post_processor has no token ", Quote(name)));
    for (const json& id : ids) {
      const bool is_id = id.is_number_unsigned() && id.get<uint64_t>() < vocabulary_.tokens.size();
      if (!is_id) return Lies("post_processor adds a token that is not there");
      auto& where = n_texts == 0 ? vocabulary_.prefix : vocabulary_.suffix;
      where.push_back(id.get<TokenId>());
    }
  }
  return n_texts == 1 ? absl::OkStatus() : Unknown("post_processor", items);
}

// What the other files say about beginnings and ends.
class EndReader {
 public:
  explicit EndReader(TokenizerVocabulary* vocabulary) : vocabulary_(*vocabulary) {}

  // tokenizer_config.json: "eos_token" is text or {"content": text}.
  absl::Status ReadNames(const json& config) {
    for (const auto& [name, id] : {std::make_pair("bos_token", &vocabulary_.bos),
                                   std::make_pair("eos_token", &vocabulary_.eos)}) {
      const json& token = At(config, name);
      const std::string text =
          token.is_string() ? token.get<std::string>() : TextAt(token, "content");
      const auto& tokens = vocabulary_.tokens;
      const auto found = std::find(tokens.begin(), tokens.end(), absl::string_view(text));
      if (!text.empty() && found != tokens.end()) {
        *id = static_cast<TokenId>(found - tokens.begin());
      }
    }
    return absl::OkStatus();
  }

  // generation_config.json, config.json: "eos_token_id" is an id or a list of them.
  absl::Status ReadIds(const json& config, absl::string_view file) {
    COTERIE_ASSIGN_OR_RETURN(const std::vector<TokenId> begins,
                             IdsIn(At(config, "bos_token_id"), file));
    COTERIE_ASSIGN_OR_RETURN(const std::vector<TokenId> ends,
                             IdsIn(At(config, "eos_token_id"), file));
    if (!begins.empty() && !vocabulary_.bos.has_value()) vocabulary_.bos = begins.front();
    if (!ends.empty() && !vocabulary_.eos.has_value()) vocabulary_.eos = ends.front();
    vocabulary_.ends.insert(vocabulary_.ends.end(), ends.begin(), ends.end());
    return absl::OkStatus();
  }

 private:
  absl::StatusOr<std::vector<TokenId>> IdsIn(const json& value, absl::string_view file) const {
    std::vector<TokenId> ids;
    if (value.is_null()) return ids;
    const json list = value.is_array() ? value : json::array({value});
    for (const json& id : list) {
      if (!id.is_number_unsigned() || id.get<uint64_t>() >= vocabulary_.tokens.size()) {
        return absl::DataLossError(absl::StrCat(
            "a token that begins or ends a text is no token: ", Quote(id.dump()), ", tokens=",
            vocabulary_.tokens.size(), ", file=", file, ", tokenizer=", vocabulary_.origin));
      }
      ids.push_back(id.get<TokenId>());
    }
    return ids;
  }

  TokenizerVocabulary& vocabulary_;
};

// A vocabulary, whose views live as long as `parts`.
absl::StatusOr<TokenizerVocabulary> VocabularyOf(const HuggingFaceTokenizerFiles& files,
                                                 TokenizerJsonParts* parts) {
  const std::string name = absl::StrCat(files.name, "/tokenizer.json");
  COTERIE_ASSIGN_OR_RETURN(*parts, ReadTokenizerJson(files.tokenizer, name));
  COTERIE_ASSIGN_OR_RETURN(TokenizerVocabulary vocabulary, Interpreter(*parts, name).Read());
  EndReader ends(&vocabulary);
  const std::pair<absl::string_view, const char*> others[] = {
      {files.tokenizer_config, "tokenizer_config.json"},
      {files.generation_config, "generation_config.json"},
      {files.config, "config.json"}};
  for (const auto& [text, file] : others) {
    if (text.empty()) continue;
    const std::string path = absl::StrCat(files.name, "/", file);
    COTERIE_ASSIGN_OR_RETURN(const TokenizerJsonParts other, ReadTokenizerJson(text, path));
    COTERIE_RETURN_IF_ERROR(text.data() == files.tokenizer_config.data()
                                ? ends.ReadNames(other.rest)
                                : ends.ReadIds(other.rest, path));
  }
  return vocabulary;
}

// The files of a folder, read.
struct Folder {
  std::string tokenizer, tokenizer_config, generation_config, config;
  HuggingFaceTokenizerFiles files;

  absl::Status Read(absl::string_view path) {
    const struct {
      const char* name;
      std::string* text;
      absl::string_view* view;
    } rows[] = {{"tokenizer.json", &tokenizer, &files.tokenizer},
                {"tokenizer_config.json", &tokenizer_config, &files.tokenizer_config},
                {"generation_config.json", &generation_config, &files.generation_config},
                {"config.json", &config, &files.config}};
    files.name = path;
    for (const auto& row : rows) {
      const bool is_first = row.text == &tokenizer;
      absl::StatusOr<std::string> text = ReadSmallFile(
          absl::StrCat(path, "/", row.name), is_first ? kMaxTokenizerBytes : kMaxConfigBytes);
      if (!is_first && absl::IsNotFound(text.status())) continue;
      COTERIE_RETURN_IF_ERROR(text.status());
      *row.text = *std::move(text);
      *row.view = *row.text;
    }
    return absl::OkStatus();
  }
};

}  // namespace

absl::StatusOr<std::unique_ptr<const Tokenizer>> TokenizerFromHuggingFace(
    const HuggingFaceTokenizerFiles& files) {
  TokenizerJsonParts parts;
  COTERIE_ASSIGN_OR_RETURN(const TokenizerVocabulary vocabulary, VocabularyOf(files, &parts));
  return Tokenizer::FromVocabulary(vocabulary);
}

absl::StatusOr<std::unique_ptr<const Tokenizer>> TokenizerFromHuggingFace(
    absl::string_view folder) {
  Folder read;
  COTERIE_RETURN_IF_ERROR(read.Read(folder));
  return TokenizerFromHuggingFace(read.files);
}

absl::StatusOr<int64_t> EstimateHuggingFaceTokenizerBytes(absl::string_view folder) {
  Folder read;
  COTERIE_RETURN_IF_ERROR(read.Read(folder));
  TokenizerJsonParts parts;
  COTERIE_ASSIGN_OR_RETURN(const TokenizerVocabulary vocabulary, VocabularyOf(read.files, &parts));
  return Tokenizer::EstimateBytes(vocabulary);
}

}  // namespace coterie
