// GGUF files that are sound as containers and contradict themselves as models or routers.

#include <cmath>
#include <functional>
#include <limits>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

#include "tests/fuzz/gguf_draft.h"
#include "tests/fuzz/malformed_file.h"

namespace coterie::testing {
namespace {

constexpr auto kDamaged = absl::StatusCode::kDataLoss;
constexpr auto kUnsupported = absl::StatusCode::kUnimplemented;
constexpr auto kMissing = absl::StatusCode::kNotFound;
constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

using Files = std::vector<MalformedFile>;
using Strings = std::vector<std::string>;
using Integers = std::vector<int64_t>;
using Floats = std::vector<float>;

// Adds files that are `valid` but for one change.
class Mutations {
 public:
  Mutations(const GgufDraft& valid, Files& files) : valid_(valid), files_(files) {}

  void Add(const std::string& name, const std::function<void(GgufDraft&)>& change,
           const std::string& field, absl::StatusCode code = kDamaged) {
    GgufDraft draft = valid_;
    change(draft);
    files_.push_back({name, draft.Bytes(), code, field});
  }
  void Key(const std::string& name, const std::string& key, GgufDraft::Value value,
           absl::StatusCode code = kDamaged, const std::string& field = "") {
    Add(
        name, [&](GgufDraft& draft) { draft.Set(key, value); }, field.empty() ? key : field, code);
  }
  void Without(const std::string& name, const std::string& key, absl::StatusCode code = kMissing) {
    Add(
        name, [&](GgufDraft& draft) { draft.Drop(key); }, key, code);
  }
  void WithoutTensor(const std::string& name, const std::string& tensor,
                     absl::StatusCode code = kMissing) {
    Add(
        name, [&](GgufDraft& draft) { draft.DropTensor(tensor); }, tensor, code);
  }
  void Tensor(const std::string& name, const std::string& tensor, TensorType type, Integers shape,
              absl::StatusCode code = kDamaged) {
    Add(
        name, [&](GgufDraft& draft) { draft.SetTensor(tensor, type, shape); }, tensor, code);
  }
  template <typename T>
  T At(const std::string& key) const {
    return std::get<T>(valid_.at(key));
  }

 private:
  const GgufDraft& valid_;
  Files& files_;
};

void AddArchitectures(Mutations m) {
  m.Without("ArchitectureMissing", "general.architecture");
  m.Key("ArchitectureNumber", "general.architecture", int64_t{3});
  m.Key("ArchitectureUnknown", "general.architecture", "\xff\n", kUnsupported,
        "architecture='\\xff\\n'");
  m.Without("LayersMissing", "llama.block_count");
  for (const char* key : {"block_count", "embedding_length", "feed_forward_length",
                          "attention.head_count", "attention.head_count_kv", "context_length"}) {
    const std::string full = absl::StrCat("llama.", key);
    std::string name = key;
    std::erase_if(name, [](char c) { return c == '.' || c == '_'; });
    m.Key(name + "Zero", full, int64_t{0});
    m.Key(name + "Negative", full, int64_t{-1});
    m.Key(name + "Huge", full, kMax);
    m.Key(name + "Text", full, "32");
    m.Key(name + "Array", full, Integers{32});
  }
  m.Key("LayersMore", "llama.block_count", int64_t{2}, kMissing, "blk.1.");
  m.Key("LayersMost", "llama.block_count", int64_t{1024}, kMissing, "blk.1.");
  m.Key("WidthOdd", "llama.embedding_length", int64_t{33}, kDamaged, "multiple of 32");
  m.Key("WidthOther", "llama.embedding_length", int64_t{64}, kDamaged, "token_embd.weight");
  m.Key("HeadsOdd", "llama.attention.head_count", int64_t{5}, kDamaged, "n_heads=5");
  m.Key("HeadsMany", "llama.attention.head_count", int64_t{4096}, kUnsupported, "key_length=0");
  m.Key("KeysLong", "llama.attention.key_length", int64_t{4096}, kDamaged, "blk.0.attn_q.weight");
  m.Key("KvHeadsDoNotDivide", "llama.attention.head_count_kv", int64_t{3}, kDamaged,
        "n_kv_heads=3");
  m.Key("ValueLength", "llama.attention.value_length", int64_t{8}, kUnsupported, "value_length=8");
  m.Key("KeyLengthZero", "llama.attention.key_length", int64_t{0});
  m.Key("RopeLong", "llama.rope.dimension_count", int64_t{17});
  m.Key("RopeOdd", "llama.rope.dimension_count", int64_t{15}, kDamaged, "rope_dims=15");
  m.Key("ScalingUnknown", "llama.rope.scaling.type", "yarn\x01", kUnsupported,
        "scaling='yarn\\x01'");
  m.Add(
      "ScalingZero",
      [](GgufDraft& d) {
        d.Set("llama.rope.scaling.type", "linear").Set("llama.rope.scaling.factor", 0.0);
      },
      "llama.rope.scaling.factor");
  for (const auto& [name, value] : std::vector<std::pair<const char*, double>>{
           {"Zero", 0.0}, {"Nan", std::nan("")}, {"Huge", 1e300}, {"Tiny", 1e-300}}) {
    m.Key(absl::StrCat("RopeBase", name), "llama.rope.freq_base", value);
    m.Key(absl::StrCat("Epsilon", name), "llama.attention.layer_norm_rms_epsilon", value);
  }
  m.Key("EpsilonText", "llama.attention.layer_norm_rms_epsilon", "1e-5");
  m.Key("Mixture", "llama.expert_count", int64_t{8}, kUnsupported, "expert_count=8");
}

void AddWeights(Mutations m) {
  const int64_t n_vocab = static_cast<int64_t>(m.At<Strings>("tokenizer.ggml.tokens").size());
  constexpr auto kF32 = TensorType::kF32;
  constexpr auto kQ8 = TensorType::kQ8_0;
  for (const char* name : {"token_embd.weight", "output_norm.weight", "blk.0.attn_norm.weight",
                           "blk.0.attn_q.weight", "blk.0.ffn_down.weight"}) {
    std::string plain = name;
    std::erase_if(plain, [](char c) { return c == '.' || c == '_'; });
    m.WithoutTensor(plain + "Missing", name);
    m.Tensor(plain + "Empty", name, kF32, {0});
    m.Tensor(plain + "Cube", name, kF32, {1, 1, 32});
    m.Tensor(plain + "EmptyMatrix", name, kF32, {0, 32});
    m.Tensor(plain + "EmptyRows", name, kF32, {n_vocab, 0});
  }
  m.Tensor("EmbeddingShort", "token_embd.weight", kQ8, {n_vocab - 1, 32});
  m.Tensor("EmbeddingWide", "token_embd.weight", kQ8, {n_vocab, 64});
  m.Tensor("HeadShape", "output.weight", kQ8, {n_vocab - 1, 32});
  m.Tensor("NormBlocks", "output_norm.weight", kQ8, {32}, kUnsupported);
  m.Tensor("NormLong", "output_norm.weight", kF32, {33});
  m.Tensor("BiasShape", "blk.0.attn_q.bias", kF32, {31});
  m.Tensor("BiasType", "blk.0.attn_q.bias", kQ8, {32}, kUnsupported);
  m.Tensor("RopeFactors", "rope_freqs.weight", kF32, {7});
}

void AddTokenizers(Mutations m) {
  const Strings tokens = m.At<Strings>("tokenizer.ggml.tokens");
  const Integers types = m.At<Integers>("tokenizer.ggml.token_type");
  const auto n = static_cast<int64_t>(tokens.size());
  const auto key = [](const char* name) { return absl::StrCat("tokenizer.ggml.", name); };
  const auto token = [&](int64_t id, std::string text) {
    Strings changed = tokens;
    changed[static_cast<size_t>(id)] = std::move(text);
    return changed;
  };
  m.Without("FamilyMissing", key("model"));
  m.Key("FamilyUnknown", key("model"), "plamo2\xff", kUnsupported);
  m.Key("RuleUnknown", key("pre"), "poro\xff", kUnsupported);
  m.Without("TokensMissing", key("tokens"));
  m.Key("TokensText", key("tokens"), "abc");
  m.Key("TokensNumbers", key("tokens"), types);
  m.Key("TokensNone", key("tokens"), Strings{});
  m.Key("TokenTwice", key("tokens"), token(1, tokens[0]), kDamaged, "tokens[1]");
  m.Key("SpecialTwice", key("tokens"), token(n - 1, tokens[static_cast<size_t>(n) - 2]), kDamaged,
        absl::StrCat("tokens[", n - 1, "]"));
  m.Key("SpecialLong", key("tokens"), token(n - 1, std::string(1000, '<')), kDamaged,
        absl::StrCat("tokens[", n - 1, "]"));
  Strings many_special = tokens;
  Integers many_types = types;
  for (int i = 0; i < 3000; ++i) {
    many_special.push_back(absl::StrCat(std::string(500, '<'), i));
    many_types.push_back(3);
  }
  m.Add(
      "SpecialsLong",
      [&](GgufDraft& d) { d.Set(key("tokens"), many_special).Set(key("token_type"), many_types); },
      "special tokens are too long");
  m.Add(
      "TokensMany",
      [&](GgufDraft& d) { d.Set(key("tokens"), Strings((1 << 20) + 1)).Drop(key("token_type")); },
      "tokenizer.ggml.tokens=1048577");
  m.Key("TypesShort", key("token_type"), Integers(types.size() - 1, 1));
  m.Key("TypesNone", key("token_type"), Integers{});
  m.Key("TypesFloats", key("token_type"), Floats(types.size(), 1.0f));
  m.Key("TypeUnknown", key("token_type"), Integers(types.size(), 7), kDamaged, "token_type[0]=7");
  m.Key("TypeNegative", key("token_type"), Integers(types.size(), -1), kDamaged, "token_type[0]");
  m.Without("MergesMissing", key("merges"));
  m.Key("MergesNumbers", key("merges"), types);
  m.Key("MergeOfOne", key("merges"), Strings{"he"}, kDamaged, "merges[0]");
  m.Key("MergeEmpty", key("merges"), Strings{""}, kDamaged, "merges[0]");
  m.Key("MergeOfUnknown", key("merges"), Strings{"h e", "h q"}, kDamaged, "merges[1]");
  m.Key("MergesMany", key("merges"), Strings((1 << 20) + 1, "h e"), kDamaged,
        "tokenizer.ggml.merges=1048577");
  for (const char* id : {"bos", "eos", "eot", "eom", "unknown"}) {
    const std::string full = key(absl::StrCat(id, "_token_id").c_str());
    m.Key(absl::StrCat(id, "IdLarge"), full, n);
    m.Key(absl::StrCat(id, "IdNegative"), full, int64_t{-1});
    m.Key(absl::StrCat(id, "IdHuge"), full, kMax);
    m.Key(absl::StrCat(id, "IdText"), full, "3");
  }
  m.Key("AddBosNumber", key("add_bos_token"), int64_t{1});
  m.Add(
      "BosUnnamed",
      [&](GgufDraft& d) { d.Set(key("add_bos_token"), true).Drop(key("bos_token_id")); },
      "bos_token_id");
  m.Key("TemplateNumber", "tokenizer.chat_template", int64_t{3});
  m.Key("TemplateBroken", "tokenizer.chat_template", "{% if %}", kDamaged, "line 1");
  m.Key("TemplateLong", "tokenizer.chat_template", std::string(300 << 10, 'x'),
        absl::StatusCode::kResourceExhausted, "too long");
}

// Of tokenizers in the style of SentencePiece.
void AddScores(Mutations m) {
  const Strings tokens = m.At<Strings>("tokenizer.ggml.tokens");
  const Floats scores = m.At<Floats>("tokenizer.ggml.scores");
  const auto with = [&](size_t id, const char* text) {
    Strings changed = tokens;
    changed[id] = text;
    return changed;
  };
  const auto score = [&](float value) {
    Floats changed = scores;
    changed[260] = value;
    return changed;
  };
  m.Without("ScoresMissing", "tokenizer.ggml.scores");
  // Integers where floats are expected were read as such: three times the bytes.
  m.Key("ScoresIntegers", "tokenizer.ggml.scores", Integers(tokens.size(), 0));
  m.Key("ScoresFew", "tokenizer.ggml.scores", Floats(scores.begin(), scores.end() - 1), kDamaged,
        "scores=");
  m.Key("ScoresNone", "tokenizer.ggml.scores", Floats{});
  m.Key("ScoreNan", "tokenizer.ggml.scores", score(std::nanf("")), kDamaged, "tokens[260]");
  m.Key("ScoreInfinite", "tokenizer.ggml.scores", score(INFINITY), kDamaged, "tokens[260]");
  m.Without("ByteTypesMissing", "tokenizer.ggml.token_type");
  for (const char* text : {"<0x-1>", "<0xZZ>", "<0x1>", "<0x100>", "", "a"}) {
    m.Key(absl::StrCat("Byte", absl::CHexEscape(text)), "tokenizer.ggml.tokens", with(3, text),
          kDamaged, "tokens[3]");
  }
  m.Key("ByteTwice", "tokenizer.ggml.tokens", with(4, "<0x00>"), kDamaged, "tokens[4]");
  m.Key("TokenNotUtf8", "tokenizer.ggml.tokens", with(260, "\xff\xfe"), kDamaged, "tokens[260]");
  m.Key("TokenHalfCharacter", "tokenizer.ggml.tokens", with(260, "\xE2\x96"), kDamaged,
        "tokens[260]");
  m.Key("SpacesRemoved", "tokenizer.ggml.remove_extra_whitespaces", true, kUnsupported);
  m.Key("SpacePrefixText", "tokenizer.ggml.add_space_prefix", "yes");
}

void AddRouterHeads(Mutations m) {
  m.Without("ArchitectureMissing", "general.architecture", kDamaged);
  m.Key("ArchitectureOther", "general.architecture", "llama");
  m.Key("FormatLater", "router.format", int64_t{2}, kUnsupported);
  m.Without("FormatMissing", "router.format", kDamaged);
  m.Key("TierUnknown", "router.tier", "psychic\xff");
  m.Without("TierMissing", "router.tier", kDamaged);
  m.Without("VersionMissing", "router.version", kDamaged);
  m.Key("DomainsOne", "router.domains", Strings{"code"});
  m.Key("DomainsEqual", "router.domains", Strings{"code", "code"});
  m.Key("DomainsUnnamed", "router.domains", Strings{"code", ""});
  m.Key("DomainsNumbers", "router.domains", Integers{1, 2});
  Strings many;
  for (int i = 0; i < 257; ++i) many.push_back(absl::StrCat(i));
  m.Key("DomainsMany", "router.domains", many);
  for (const auto& [name, value] : std::vector<std::pair<const char*, double>>{
           {"Zero", 0.0}, {"Nan", std::nan("")}, {"Huge", 1e300}}) {
    m.Key(absl::StrCat("Temperature", name), "router.temperature", value);
  }
  m.Key("AbstainNan", "router.abstain_below", std::nan(""));
  m.Key("AbstainNegative", "router.abstain_below", -0.1);
}

void AddLexicalRouters(Mutations m) {
  constexpr auto kF32 = TensorType::kF32;
  m.Without("LexicalFeaturesMissing", "router.lexical.features", absl::StatusCode::kUnimplemented);
  m.Key("LexicalFeaturesNewer", "router.lexical.features", int64_t{3},
        absl::StatusCode::kUnimplemented, "router.lexical.features=3");
  m.Without("LexicalHashesMissing", "router.lexical.hashes", kDamaged);
  m.Key("LexicalHashesOrder", "router.lexical.hashes", Integers{9, 3}, kDamaged, "the hashes");
  m.Key("LexicalHashesNone", "router.lexical.hashes", Integers{}, kDamaged, "features=0");
  m.Key("LexicalHashesWide", "router.lexical.hashes", Integers{1, kMax}, kDamaged, "the hashes");
  // Hashes whose places in the table, the top bits of a product, are one and the same.
  Integers colliding;
  constexpr int kBits = 14;
  for (uint32_t hash = 0; colliding.size() < 6000; ++hash) {
    if (hash * 0x9e3779b97f4a7c15ull >> (64 - kBits) < 8) colliding.push_back(hash);
  }
  const auto n = static_cast<int64_t>(colliding.size());
  m.Add(
      "LexicalHashesCollide",
      [&](GgufDraft& d) {
        d.Set("router.lexical.hashes", colliding);
        d.SetTensor("lexical.idf", kF32, {n}).SetTensor("lexical.weight", kF32, {n, 2});
      },
      "router.lexical.hashes");
  for (const char* tensor : {"lexical.idf", "lexical.weight", "lexical.bias"}) {
    std::string name = tensor;
    name.erase(name.find('.'), 1);
    m.WithoutTensor(name + "Missing", tensor, kDamaged);
    m.Tensor(name + "Shape", tensor, kF32, {3});
    m.Tensor(name + "Type", tensor, TensorType::kF16, {2});
  }
  const float nan[2] = {1.0f, std::nanf("")};
  m.Add(
      "LexicalNan",
      [&](GgufDraft& d) {
        d.SetTensor("lexical.bias", kF32, {2}, std::string(reinterpret_cast<const char*>(nan), 8));
      },
      "lexical.bias");
}

void AddCorrections(Mutations m) {
  const auto add = [&](const char* name, Integers labels, Integers counts, Integers indices,
                       Floats values, Floats logits) {
    m.Add(
        name,
        [&](GgufDraft& d) {
          d.Set("router.corrections.labels", labels).Set("router.corrections.counts", counts);
          d.Set("router.corrections.indices", indices).Set("router.corrections.values", values);
          d.Set("router.corrections.logits", logits);
        },
        "corrections");
  };
  add("CorrectionLabel", {2}, {1}, {0}, {1.0f}, {0.0f, 0.0f});
  add("CorrectionLabelNegative", {-1}, {1}, {0}, {1.0f}, {0.0f, 0.0f});
  add("CorrectionLogits", {0}, {1}, {0}, {1.0f}, {0.0f});
  add("CorrectionLogitsNan", {0}, {1}, {0}, {1.0f}, {0.0f, std::nanf("")});
  add("CorrectionCount", {0}, {2}, {0}, {1.0f}, {0.0f, 0.0f});
  add("CorrectionCountNegative", {0}, {-1}, {0}, {1.0f}, {0.0f, 0.0f});
  add("CorrectionCountHuge", {0}, {kMax}, {0}, {1.0f}, {0.0f, 0.0f});
  add("CorrectionIndex", {0}, {1}, {2}, {1.0f}, {0.0f, 0.0f});
  add("CorrectionIndexNegative", {0}, {1}, {-1}, {1.0f}, {0.0f, 0.0f});
  add("CorrectionIndicesOrder", {0}, {2}, {1, 1}, {1.0f, 1.0f}, {0.0f, 0.0f});
  add("CorrectionIndicesFew", {0}, {1}, {}, {1.0f}, {0.0f, 0.0f});
  add("CorrectionValueNan", {0}, {1}, {0}, {std::nanf("")}, {0.0f, 0.0f});
  add("CorrectionsMany", Integers(1001, 0), Integers(1001, 0), {}, {}, Floats(2002, 0.0f));
}

void AddEncoderRouters(Mutations m) {
  for (const char* key : {"layers", "heads", "width", "ff_width", "max_tokens", "tail_tokens"}) {
    const std::string full = absl::StrCat("router.encoder.", key);
    std::string name = absl::StrCat("encoder", key);
    std::erase(name, '_');
    m.Without(name + "Missing", full, kDamaged);
    m.Key(name + "Negative", full, int64_t{-1});
    m.Key(name + "Huge", full, kMax);
    m.Key(name + "Text", full, "2");
  }
  m.Key("EncoderLayersMore", "router.encoder.layers", int64_t{2}, kDamaged, "blk.1.");
  m.Key("EncoderWidthOther", "router.encoder.width", int64_t{64}, kDamaged, "token_embd.weight");
  m.Key("EncoderHeadsOdd", "router.encoder.heads", int64_t{3}, kDamaged, "heads=3");
  m.Key("EncoderEpsilonNan", "router.encoder.epsilon", std::nan(""), kDamaged, "epsilon");
  m.Without("EncoderWordsMissing", "router.encoder.vocabulary", kDamaged);
  m.Key("EncoderWordsNone", "router.encoder.vocabulary", Strings{}, kDamaged, "tokens=0");
  m.Key("EncoderWordsTwice", "router.encoder.vocabulary", Strings(8, "a"), kDamaged, "tokens[1]");
  m.Key("EncoderWordsWithoutClasses", "router.encoder.vocabulary",
        Strings{"a", "b", "c", "d", "e", "f", "g", "h"}, kDamaged, "[CLS]");
  m.Key("EncoderWordsFewer", "router.encoder.vocabulary", Strings{"[UNK]", "[CLS]", "[SEP]"},
        kDamaged, "token_embd.weight");
  for (const char* tensor : {"token_embd.weight", "position_embd.weight", "blk.0.attn_qkv.weight",
                             "blk.0.attn_qkv.bias", "cls.weight"}) {
    std::string name = absl::StrCat("encoder", tensor);
    std::erase_if(name, [](char c) { return c == '.' || c == '_'; });
    m.WithoutTensor(name + "Missing", tensor, kDamaged);
    m.Tensor(name + "Shape", tensor, TensorType::kF32, {3});
    m.Tensor(name + "Type", tensor, TensorType::kF16, {8, 32});
  }
}

}  // namespace

std::vector<MalformedFile> MalformedModels() {
  Files files;
  const GgufDraft valid = TinyModel();
  AddArchitectures(Mutations(valid, files));
  AddWeights(Mutations(valid, files));
  AddTokenizers(Mutations(valid, files));
  const GgufDraft sentence_piece = TinySentencePieceModel();
  AddScores(Mutations(sentence_piece, files));
  return files;
}

std::vector<MalformedFile> MalformedRouters() {
  Files files;
  const GgufDraft lexical = TinyLexicalRouter();
  AddRouterHeads(Mutations(lexical, files));
  AddLexicalRouters(Mutations(lexical, files));
  AddCorrections(Mutations(lexical, files));
  const GgufDraft encoder = TinyEncoderRouter();
  AddEncoderRouters(Mutations(encoder, files));
  return files;
}

}  // namespace coterie::testing
