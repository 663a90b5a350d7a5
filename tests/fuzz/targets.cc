#include "tests/fuzz/targets.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "core/base/check.h"
#include "core/formats/chat_template.h"
#include "core/formats/gguf_file.h"
#include "core/formats/safetensors_file.h"
#include "core/formats/safetensors_folder.h"
#include "core/formats/tokenizer.h"
#include "core/formats/tokenizer_json.h"
#include "core/formats/utf8.h"
#include "experts/expert.h"
#include "experts/expert_catalog.h"
#include "experts/expert_quality.h"
#include "experts/sampler.h"
#include "experts/session.h"
#include "experts/stop_matcher.h"
#include "router/router.h"
#include "runtime/configuration.h"
#include "runtime/prefix_block_file.h"
#include "tests/fuzz/gguf_draft.h"
#include "tests/fuzz/hugging_face_draft.h"
#include "tests/fuzz/malformed_file.h"
#include "tests/fuzz/scratch_folder.h"
#include "tests/fuzz/target_inputs.h"

namespace coterie::testing {
namespace {

void RunGguf(absl::string_view bytes) {
  const auto file = GgufFile::Parse(AsBytes(bytes), "fuzz.gguf");
  if (!file.ok()) return;
  for (const absl::string_view key : (*file)->Keys()) {
    static_cast<void>((*file)->Describe(key));
    static_cast<void>((*file)->GetString(key));
    static_cast<void>((*file)->GetInt(key));
    static_cast<void>((*file)->GetFloat(key));
    static_cast<void>((*file)->GetBool(key));
    static_cast<void>((*file)->GetStringArray(key));
    static_cast<void>((*file)->GetIntArray(key));
    static_cast<void>((*file)->GetFloatArray(key));
  }
  for (const absl::string_view name : (*file)->TensorNames()) {
    const auto tensor = (*file)->Find(name);
    COTERIE_CHECK(tensor.ok(), "a tensor that is listed is found");
    Touch(tensor->bytes);
    static_cast<void>(tensor->matrix());
  }
}

void RunSafetensors(absl::string_view bytes) {
  const auto file = SafetensorsFile::Parse(AsBytes(bytes), "fuzz.safetensors");
  if (!file.ok()) return;
  for (const absl::string_view name : (*file)->TensorNames()) {
    const auto tensor = (*file)->Find(name);
    COTERIE_CHECK(tensor.ok(), "a tensor that is listed is found");
    Touch(tensor->bytes);
    static_cast<void>(tensor->matrix());
  }
}

constexpr absl::string_view kTexts[] = {"hello you", "", " \n\t 12345 don't", "<|im_start|>user<s>",
                                        "\xE2\x96\x81\xC3\xA4 \xF0\x9F\x98\x80"};

void UseTokenizer(const Tokenizer& tokenizer) {
  for (const absl::string_view text : kTexts) {
    const auto ids = tokenizer.Encode(text, true, true);
    if (!ids.ok()) continue;
    for (const TokenId id : *ids) {
      COTERIE_CHECK(id >= 0 && id < tokenizer.n_vocab(), "a token is one of the vocabulary");
    }
    COTERIE_CHECK(FindInvalidUtf8(tokenizer.Decode(*ids)) == tokenizer.Decode(*ids).size(),
                  "decoded text is UTF-8");
  }
}

void RunTokenizer(absl::string_view bytes) {
  const auto file = GgufFile::Parse(AsBytes(bytes), "fuzz.gguf");
  if (!file.ok()) return;
  const auto estimate = Tokenizer::EstimateBytes(**file);
  const auto tokenizer = Tokenizer::FromGguf(**file);
  if (!tokenizer.ok()) return;
  COTERIE_CHECK(estimate.ok() && *estimate >= (*tokenizer)->memory_bytes(),
                "what is reserved for a tokenizer holds it");
  UseTokenizer(**tokenizer);
}

void UseTemplate(const ChatTemplate& chat_template) {
  RenderOptions options;
  options.tools_json = R"([{"type":"function","function":{"name":"f","parameters":{}}}])";
  static_cast<void>(chat_template.Render({{"user", "hi", ""}, {"assistant", "ho", ""}}, options));
}

void RunModel(absl::string_view bytes) {
  const MemoryFile memory(bytes);
  const auto expert = Expert::Open(memory.path());
  if (!expert.ok()) return;
  UseTokenizer((*expert)->tokenizer());
  if ((*expert)->chat_template() != nullptr) UseTemplate(*(*expert)->chat_template());
  static WorkerPool pool(1);
  const SessionShape shape = SessionShape::ForTokens(4);
  const ArchSpec& spec = (*expert)->spec();
  if (shape.KvBytes(spec) + shape.ScratchBytes(spec, 1) > 1 << 26) return;
  for (const Activations activations : {Activations::kInt8, Activations::kF32}) {
    Session session(**expert, pool, shape, activations);
    const TokenId last = static_cast<TokenId>(spec.n_vocab - 1);
    COTERIE_CHECK(session.Prefill({0, last}, {}).ok(), "an expert that opens answers");
    auto sampler = Sampler::Create(SamplingOptions(), spec.n_vocab);
    COTERIE_CHECK(sampler.ok(), "an expert that opens can be sampled");
    static_cast<void>(sampler->Sample(session.logits()));
  }
}

void RunRouter(absl::string_view bytes) {
  const MemoryFile memory(bytes);
  const auto router = Router::Load(memory.path());
  if (!router.ok()) return;
  const auto estimate = Router::EstimateBytes(memory.path(), 1);
  COTERIE_CHECK(estimate.ok() && *estimate >= (*router)->memory_bytes(),
                "what is reserved for a router holds it");
  for (const absl::string_view text : kTexts) static_cast<void>((*router)->Classify(text));
  static_cast<void>((*router)->Correct("write a function", (*router)->domains()[0]));
}

// Template, message and the message's JSON fields, separated by zero bytes.
void RunTemplate(absl::string_view bytes) {
  constexpr absl::string_view kMark = "\x01mark\x02";
  const std::vector<absl::string_view> parts = absl::StrSplit(bytes, absl::MaxSplits('\0', 2));
  const auto chat_template = ChatTemplate::Parse(parts[0], "fuzz");
  if (!chat_template.ok()) return;
  const std::string content =
      absl::StrCat(kMark, parts.size() > 1 ? parts[1] : absl::string_view());
  const std::string fields(parts.size() > 2 ? parts[2] : absl::string_view());
  RenderOptions options;
  options.bos_token = "<s>";
  options.tools_json = R"([{"name":"f","parameters":{"a":[1,2.5,null,true,"x"]}}])";
  const auto pieces =
      (*chat_template)->Render({{"user", content, fields}, {"assistant", "b", ""}}, options);
  if (!pieces.ok()) return;
  for (const TextPiece& piece : *pieces) {
    COTERIE_CHECK(!piece.text.empty(), "no piece is empty");
    COTERIE_CHECK(!piece.trusted || !absl::StrContains(piece.text, kMark) ||
                      absl::StrContains(parts[0], kMark.substr(0, 1)) ||
                      absl::StrContains(parts[0], "\\"),
                  "no template makes a message's text trusted");
  }
}

void RunConfiguration(absl::string_view bytes) {
  static_cast<void>(Configuration::Parse(bytes, "fuzz.toml"));
}

void RunRecord(absl::string_view bytes) {
  static const auto folder = [] {
    auto made = std::make_unique<ScratchFolder>();
    made->Write("model.gguf", TinyModel().Bytes());
    return made;
  }();
  folder->Write("models/fuzz.json", std::string(bytes));
  COTERIE_CHECK(ExpertCatalog::FromStore(folder->path()).ok(), "a bad record spares the store");
}

void EncodeAndDecode(const Tokenizer& tokenizer, const std::vector<TextPiece>& pieces,
                     bool is_text) {
  const auto encoding = tokenizer.Encode(pieces, {});
  COTERIE_CHECK(encoding.ok() == is_text, "text is encoded if and only if it is UTF-8");
  if (!encoding.ok()) return;
  COTERIE_CHECK(encoding->ids.size() == encoding->roles.size(), "every token has a role");
  StopMatcher stream = *StopMatcher::Create({});
  std::string streamed, token;
  for (size_t i = 0; i < encoding->ids.size(); ++i) {
    COTERIE_CHECK(!tokenizer.IsControl(encoding->ids[i]) || encoding->roles[i] == Role::kNone,
                  "a user's text becomes no special token");
    token.clear();
    tokenizer.AppendBytes(encoding->ids[i], /*is_first=*/i == 0, &token);
    streamed += stream.Append(token);
    COTERIE_CHECK(FindInvalidUtf8(streamed) == streamed.size(), "half a character is not shown");
  }
  streamed += stream.Flush();
  COTERIE_CHECK(streamed == tokenizer.Decode(encoding->ids), "a stream says what Decode says");
}

// Pieces separated by zero bytes, every second one trusted.
void RunText(absl::string_view bytes) {
  static const Tokenizer* const byte_level = TokenizerOf(TinyModel()).release();
  static const Tokenizer* const sentence_piece = TokenizerOf(TinySentencePieceModel()).release();
  std::vector<TextPiece> pieces;
  bool is_text = true, is_trusted = false;
  for (const absl::string_view part : absl::StrSplit(bytes, '\0')) {
    pieces.push_back({std::string(part), is_trusted, is_trusted ? Role::kNone : Role::kUser});
    is_text = is_text && FindInvalidUtf8(part) == part.size();
    is_trusted = !is_trusted;
  }
  EncodeAndDecode(*byte_level, pieces, is_text);
  EncodeAndDecode(*sentence_piece, pieces, is_text);
}

// The files of a tokenizer, separated by zero bytes, which none of them may have: tokenizer.json,
// tokenizer_config.json, generation_config.json, config.json.
void RunTokenizerJson(absl::string_view bytes) {
  static const auto folder = std::make_unique<ScratchFolder>();
  const std::vector<std::string> parts = absl::StrSplit(bytes, absl::MaxSplits('\0', 3));
  const char* const names[] = {"tokenizer.json", "tokenizer_config.json", "generation_config.json",
                               "config.json"};
  for (size_t i = 0; i < std::size(names); ++i) {
    folder->Write(names[i], i < parts.size() ? parts[i] : "");
  }
  const auto tokenizer = TokenizerFromHuggingFace(folder->path());
  if (!tokenizer.ok()) return;
  const auto estimate = EstimateHuggingFaceTokenizerBytes(folder->path());
  COTERIE_CHECK(estimate.ok() && *estimate >= (*tokenizer)->memory_bytes(),
                "what is reserved for a tokenizer holds it");
  UseTokenizer(**tokenizer);
}

void RunShardIndex(absl::string_view bytes) {
  static const auto folder = [] {
    auto made = std::make_unique<ScratchFolder>();
    made->Write("a.safetensors", ValidSafetensors());
    return made;
  }();
  folder->Write("model.safetensors.index.json", std::string(bytes));
  const auto shards = SafetensorsFolder::Open(folder->path());
  if (!shards.ok()) return;
  for (const absl::string_view name : (*shards)->TensorNames()) {
    const auto tensor = (*shards)->Find(name);
    COTERIE_CHECK(tensor.ok(), "a tensor that is listed is found");
    Touch(tensor->bytes);
  }
}

// config.json and tokenizer_config.json of a model folder, separated by a zero byte.
void RunModelFolder(absl::string_view bytes) {
  static const auto folder = [] {
    auto made = std::make_unique<ScratchFolder>();
    CompleteHuggingFaceFolder(made->path());
    return made;
  }();
  const std::vector<std::string> parts = absl::StrSplit(bytes, absl::MaxSplits('\0', 1));
  folder->Write("config.json", parts[0]);
  folder->Write("tokenizer_config.json", parts.size() > 1 ? parts[1] : TinyTokenizerConfig());
  const auto spec = ArchSpec::FromHuggingFace(parts[0], "config.json");
  if (!spec.ok()) return;
  COTERIE_CHECK(spec->KvBytes(spec->context_tokens) > 0, "what a context takes can be told");
  const auto expert = Expert::Open(folder->path());
  if (!expert.ok()) return;
  UseTokenizer((*expert)->tokenizer());
  if ((*expert)->chat_template() != nullptr) UseTemplate(*(*expert)->chat_template());
}

// The bytes as either part of a split model whose other part is valid.
void RunParts(absl::string_view bytes) {
  static const auto folder = std::make_unique<ScratchFolder>();
  const std::string first = folder->path("m-00001-of-00002.gguf");
  const std::string parts[] = {ValidFirstPart(), ValidSecondPart()};
  for (const int hostile : {0, 1}) {
    folder->Write("m-00001-of-00002.gguf", hostile == 0 ? std::string(bytes) : parts[0]);
    folder->Write("m-00002-of-00002.gguf", hostile == 1 ? std::string(bytes) : parts[1]);
    const auto file = GgufFile::Open(first);
    if (!file.ok()) continue;
    for (const absl::string_view name : (*file)->TensorNames()) Touch((*file)->Find(name)->bytes);
  }
}

void RunMeasurements(absl::string_view bytes) {
  static const auto folder = std::make_unique<ScratchFolder>();
  folder->Write("measurements.json", std::string(bytes));
  const auto measured = MeasuredQuality::Read(folder->path());
  if (measured.ok()) static_cast<void>(measured->Over(DefaultQuality("a", 1 << 20), "b", "home"));
}

// The block that a file is asked to be, in plain text or sealed.
BlockPlace AskedBlock(absl::string_view key) {
  static const auto* const tokens = new std::vector<TokenId>(64, 7);
  const std::string before = FirstBlockName("fuzz", key);
  return {before, BlockName(before, *tokens), *tokens, 256};
}

void RunPrefixBlock(absl::string_view bytes) {
  for (const std::string& key : {std::string(), std::string(32, 'k')}) {
    std::vector<uint8_t> block(256);
    if (!ReadBlockFile(bytes, AskedBlock(key), key, block.data()).ok()) continue;
    COTERIE_CHECK(!key.empty() || WriteBlockFile(AskedBlock(key), block, key) == bytes,
                  "a block that is read is one that was written");
  }
}

Seeds PrefixBlocks() {
  const std::vector<uint8_t> block(256, 5);
  Seeds seeds;
  for (const std::string& key : {std::string(), std::string(32, 'k')}) {
    const std::string file = WriteBlockFile(AskedBlock(key), block, key);
    for (const size_t length : {file.size(), file.size() - 1, size_t{96}, size_t{24}}) {
      seeds.push_back(file.substr(0, length));
    }
    seeds.push_back(file);
    seeds.back()[file.size() / 2] ^= 1;
  }
  return seeds;
}

Seeds TinyModels() { return {TinyModel().Bytes(), TinySentencePieceModel().Bytes()}; }

Seeds TemplateSeeds() {
  Seeds seeds = SeedsOf(MalformedTemplates(), {ValidTemplate()});
  const std::string with_fields(absl::string_view("\0hi\0{\"tool_calls\":[{\"name\":\"f\"}]}", 34));
  seeds.push_back(ValidTemplate() + with_fields);
  seeds.push_back("{% for m in messages[::-1] %}{{ m.tool_calls | tojson(indent=2) }}{% endfor %}" +
                  with_fields);
  seeds.push_back(
      "{{ [1,2,'a']|join('-') ~ 'x'.split('y')|first|upper|replace('X','b')|indent(2) }}"
      "{{ {'a':1}|dictsort|list }}{{ messages|selectattr('role','eq','user')|map('trim')|list }}");
  return seeds;
}

}  // namespace

const std::vector<FuzzTarget>& FuzzTargets() {
  static const auto* const targets = [] {
    auto* all = new std::vector<FuzzTarget>{
        {"gguf", RunGguf,
         [] {
           return SeedsOf(MalformedGguf(), {ValidGguf(), TinyModel().Bytes()});
         }},
        {"safetensors", RunSafetensors,
         [] { return SeedsOf(MalformedSafetensors(), {ValidSafetensors()}); }},
        {"tokenizer", RunTokenizer, [] { return SeedsOf(MalformedModels(), TinyModels()); }},
        {"model", RunModel, [] { return SeedsOf(MalformedModels(), TinyModels()); }},
        {"router", RunRouter,
         [] {
           return SeedsOf(MalformedRouters(),
                          {TinyLexicalRouter().Bytes(), TinyEncoderRouter().Bytes()});
         }},
        {"template", RunTemplate, TemplateSeeds},
        {"configuration", RunConfiguration,
         [] { return SeedsOf(MalformedConfigurations(), {ValidConfiguration()}); }},
        {"record", RunRecord, [] { return SeedsOf(MalformedRecords(), {ValidRecord()}); }},
        {"tokenizer_json", RunTokenizerJson,
         [] {
           const std::string end(1, '\0');
           return SeedsOf(MalformedTokenizerJson(),
                          {ValidTokenizerJson() + end + TinyTokenizerConfig() + end +
                           R"({"eos_token_id":[3]})" + end + TinyModelConfig()});
         }},
        {"shard_index", RunShardIndex,
         [] { return SeedsOf(MalformedShardIndexes(), {ValidShardIndex()}); }},
        {"model_folder", RunModelFolder,
         [] {
           Seeds seeds = SeedsOf(MalformedModelConfigs(), {TinyModelConfig()});
           for (const MalformedFile& file : MalformedTokenizerConfigs()) {
             if (file.bytes.size() > kMaxSeedBytes) continue;
             seeds.push_back(TinyModelConfig() + std::string(1, '\0') + file.bytes);
           }
           return seeds;
         }},
        {"parts", RunParts,
         [] {
           return SeedsOf(MalformedFirstParts(),
                          SeedsOf(MalformedSecondParts(), {ValidFirstPart(), ValidSecondPart()}));
         }},
        {"measurements", RunMeasurements,
         [] { return SeedsOf(MalformedMeasurements(), {ValidMeasurements()}); }},
        {"prefix_block", RunPrefixBlock, PrefixBlocks},
        {"text", RunText,
         [] {
           return Seeds{"hello <|im_end|>", std::string("a\0<|im_start|>user\0<|im_end|>", 29),
                        std::string("he\0ll", 5), "\xE2\x96", "\xF0\x9F\x98\x80"};
         }},
    };
    for (FuzzTarget& target : LearningTargets()) all->push_back(target);
    return all;
  }();
  return *targets;
}

}  // namespace coterie::testing
