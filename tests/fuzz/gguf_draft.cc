#include "tests/fuzz/gguf_draft.h"

#include <cstring>
#include <fstream>
#include <numeric>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/check.h"
#include "core/formats/gguf_writer.h"
#include "core/formats/utf8.h"

namespace coterie::testing {
namespace {

constexpr uint16_t kHalfHundredth = 0x211F;  // 0.01 in f16.

std::string FloatBytes(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

// Bytes of a tensor of F32 or Q8_0; other types get zeros.
std::string Weights(const std::string& name, TensorType type, int64_t n_values) {
  uint32_t seed = 7;
  for (const char c : name) seed = seed * 31 + static_cast<uint8_t>(c);
  std::mt19937 random(seed);
  if (type == TensorType::kF32) {
    std::vector<float> values;
    for (int64_t i = 0; i < n_values; ++i) {
      values.push_back(0.5f + static_cast<float>(random() % 1000) / 1000.0f);
    }
    return FloatBytes(values);
  }
  std::string bytes(static_cast<size_t>(n_values / Traits(type).block_values) *
                        static_cast<size_t>(Traits(type).block_bytes),
                    '\0');
  if (type != TensorType::kQ8_0) return bytes;
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<char>(random());
    if (i % 34 == 1) std::memcpy(bytes.data() + i - 1, &kHalfHundredth, sizeof(kHalfHundredth));
  }
  return bytes;
}

void Write(GgufWriter& writer, const std::string& key, const GgufDraft::Value& value) {
  struct Visitor {
    GgufWriter& writer;
    const std::string& key;
    void operator()(const std::string& v) { writer.SetString(key, v); }
    void operator()(int64_t v) { writer.SetInt(key, v); }
    void operator()(double v) { writer.SetFloat(key, v); }
    void operator()(bool v) { writer.SetBool(key, v); }
    void operator()(const std::vector<std::string>& v) { writer.SetStringArray(key, v); }
    void operator()(const std::vector<int64_t>& v) { writer.SetIntArray(key, v); }
    void operator()(const std::vector<float>& v) { writer.SetFloatArray(key, v); }
  };
  std::visit(Visitor{writer, key}, value);
}

}  // namespace

GgufDraft& GgufDraft::Set(const std::string& key, Value value) {
  values_[key] = std::move(value);
  return *this;
}

GgufDraft& GgufDraft::Drop(const std::string& key) {
  COTERIE_CHECK(values_.erase(key) == 1, "a test drops a key that is there");
  return *this;
}

GgufDraft& GgufDraft::SetTensor(const std::string& name, TensorType type,
                                std::vector<int64_t> shape) {
  const int64_t n = std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
  return SetTensor(name, type, std::move(shape), Weights(name, type, n));
}

GgufDraft& GgufDraft::SetTensor(const std::string& name, TensorType type,
                                std::vector<int64_t> shape, std::string bytes) {
  tensors_[name] = {type, std::move(shape), std::move(bytes)};
  return *this;
}

GgufDraft& GgufDraft::DropTensor(const std::string& name) {
  COTERIE_CHECK(tensors_.erase(name) == 1, "a test drops a tensor that is there");
  return *this;
}

std::string GgufDraft::Bytes() const {
  GgufWriter writer;
  for (const auto& [key, value] : values_) testing::Write(writer, key, value);
  for (const auto& [name, tensor] : tensors_) {
    writer.AddTensor(name, tensor.type, tensor.shape,
                     {reinterpret_cast<const uint8_t*>(tensor.bytes.data()), tensor.bytes.size()});
  }
  absl::StatusOr<std::string> bytes = writer.Serialize();
  COTERIE_CHECK(bytes.ok(), "a test drafts a file that can be written");
  return *std::move(bytes);
}

void GgufDraft::Write(const std::string& path) const {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << Bytes();
}

GgufDraft TinyModel() {
  // Printable ASCII, then space and line feed in the byte alphabet of GPT-2, merges and specials.
  std::vector<std::string> tokens;
  for (char c = '!'; c <= '~'; ++c) tokens.emplace_back(1, c);
  for (const uint32_t code : {0x120u, 0x10Au}) AppendUtf8(code, &tokens.emplace_back());
  for (const char* text : {"he", "ll", "hell", "<s>", "</s>", "<|im_start|>", "<|im_end|>"}) {
    tokens.emplace_back(text);
  }
  const auto n_vocab = static_cast<int64_t>(tokens.size());
  std::vector<int64_t> types(tokens.size(), 1);
  std::fill(types.end() - 4, types.end(), 3);

  GgufDraft model;
  model.Set("general.architecture", "llama").Set("llama.block_count", int64_t{1});
  model.Set("llama.embedding_length", int64_t{32}).Set("llama.feed_forward_length", int64_t{32});
  model.Set("llama.attention.head_count", int64_t{2});
  model.Set("llama.attention.head_count_kv", int64_t{2});
  model.Set("llama.context_length", int64_t{256});
  model.Set("llama.attention.layer_norm_rms_epsilon", 1e-5).Set("llama.rope.freq_base", 1e4);
  model.Set("tokenizer.ggml.model", "gpt2").Set("tokenizer.ggml.pre", "gpt-2");
  model.Set("tokenizer.ggml.tokens", tokens).Set("tokenizer.ggml.token_type", types);
  model.Set("tokenizer.ggml.merges", std::vector<std::string>{"h e", "l l", "he ll"});
  model.Set("tokenizer.ggml.bos_token_id", n_vocab - 4);
  model.Set("tokenizer.ggml.eos_token_id", n_vocab - 1);
  model.Set("tokenizer.ggml.add_bos_token", false);
  model.Set("tokenizer.chat_template",
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
            "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}");
  model.SetTensor("token_embd.weight", TensorType::kQ8_0, {n_vocab, 32});
  model.SetTensor("output_norm.weight", TensorType::kF32, {32});
  for (const char* norm : {"attn_norm", "ffn_norm"}) {
    model.SetTensor(absl::StrCat("blk.0.", norm, ".weight"), TensorType::kF32, {32});
  }
  for (const char* matrix :
       {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}) {
    model.SetTensor(absl::StrCat("blk.0.", matrix, ".weight"), TensorType::kQ8_0, {32, 32});
  }
  return model;
}

GgufDraft TinySentencePieceModel() {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<int64_t> types = {2, 3, 3};
  for (int byte = 0; byte < 256; ++byte) {
    tokens.push_back(absl::StrCat("<0x", absl::Hex(byte, absl::kZeroPad2), ">"));
    types.push_back(6);
  }
  for (const char* text : {"h", "e", "l", "o", "he", "ll", "\xE2\x96\x81", "\xE2\x96\x81he"}) {
    tokens.emplace_back(text);
    types.push_back(1);
  }
  tokens.emplace_back("  ");
  types.push_back(4);
  std::vector<float> scores;
  for (size_t i = 0; i < tokens.size(); ++i) scores.push_back(-static_cast<float>(i));
  GgufDraft model = TinyModel();
  model.Set("tokenizer.ggml.model", "llama").Drop("tokenizer.ggml.pre");
  model.Set("tokenizer.ggml.tokens", tokens).Set("tokenizer.ggml.token_type", types);
  model.Set("tokenizer.ggml.scores", scores).Drop("tokenizer.ggml.merges");
  model.Set("tokenizer.ggml.bos_token_id", int64_t{1})
      .Set("tokenizer.ggml.eos_token_id", int64_t{2});
  return model.SetTensor("token_embd.weight", TensorType::kQ8_0,
                         {static_cast<int64_t>(tokens.size()), 32});
}

namespace {

GgufDraft RouterOf(const char* tier) {
  GgufDraft router;
  router.Set("general.architecture", "coterie-router").Set("router.format", int64_t{1});
  router.Set("router.tier", tier).Set("router.version", "1");
  router.Set("router.domains", std::vector<std::string>{"code", "general"});
  return router.Set("router.temperature", 1.0).Set("router.abstain_below", 0.5);
}

}  // namespace

GgufDraft TinyLexicalRouter() {
  GgufDraft router = RouterOf("lexical");
  router.Set("router.lexical.features", int64_t{2});
  router.Set("router.lexical.hashes", std::vector<int64_t>{3, 9});
  router.SetTensor("lexical.idf", TensorType::kF32, {2});
  router.SetTensor("lexical.weight", TensorType::kF32, {2, 2});
  return router.SetTensor("lexical.bias", TensorType::kF32, {2});
}

GgufDraft TinyEncoderRouter() {
  const std::vector<std::string> words = {"[PAD]", "[UNK]", "[CLS]", "[SEP]",
                                          "a",     "write", "##s",   "function"};
  GgufDraft router = RouterOf("encoder");
  router.Set("router.encoder.layers", int64_t{1}).Set("router.encoder.heads", int64_t{2});
  router.Set("router.encoder.width", int64_t{32}).Set("router.encoder.ff_width", int64_t{32});
  router.Set("router.encoder.max_tokens", int64_t{16})
      .Set("router.encoder.tail_tokens", int64_t{4});
  router.Set("router.encoder.epsilon", 1e-12).Set("router.encoder.vocabulary", words);
  const auto linear = [&](const std::string& name, int64_t n_out, int64_t n_in) {
    router.SetTensor(name + ".weight", TensorType::kQ8_0, {n_out, n_in});
    router.SetTensor(name + ".bias", TensorType::kF32, {n_out});
  };
  const auto norm = [&](const std::string& name) {
    router.SetTensor(name + ".weight", TensorType::kF32, {32});
    router.SetTensor(name + ".bias", TensorType::kF32, {32});
  };
  router.SetTensor("token_embd.weight", TensorType::kQ8_0, {8, 32});
  router.SetTensor("position_embd.weight", TensorType::kF32, {16, 32});
  norm("token_embd_norm");
  linear("blk.0.attn_qkv", 96, 32);
  linear("blk.0.attn_output", 32, 32);
  norm("blk.0.attn_output_norm");
  linear("blk.0.ffn_up", 32, 32);
  linear("blk.0.ffn_down", 32, 32);
  norm("blk.0.layer_output_norm");
  router.SetTensor("cls.weight", TensorType::kF32, {2, 32});
  return router.SetTensor("cls.bias", TensorType::kF32, {2});
}

}  // namespace coterie::testing
