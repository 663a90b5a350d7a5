#include "tests/fuzz/hugging_face_draft.h"

#include <filesystem>
#include <fstream>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "tests/fuzz/malformed_file.h"

namespace coterie::testing {

std::string TinyModelConfig() {
  return R"({"model_type":"llama","hidden_size":32,"intermediate_size":32,"num_hidden_layers":1,)"
         R"("num_attention_heads":2,"num_key_value_heads":2,"max_position_embeddings":256,)"
         R"("vocab_size":4,"rms_norm_eps":1e-5,"rope_theta":10000.0,"hidden_act":"silu",)"
         R"("tie_word_embeddings":true,"eos_token_id":3,"torch_dtype":"float32"})";
}

std::string TinyTokenizerConfig() {
  return R"({"eos_token":"<s>","chat_template":"{% for m in messages %}{{ m.content }}{% endfor %}"})";
}

std::vector<DraftTensor> TinyModelTensors() {
  std::vector<DraftTensor> tensors = {{"model.embed_tokens.weight", {4, 32}},
                                      {"model.norm.weight", {32}}};
  const auto add = [&](const char* name, std::vector<int64_t> shape) {
    tensors.push_back({absl::StrCat("model.layers.0.", name, ".weight"), std::move(shape)});
  };
  for (const char* norm : {"input_layernorm", "post_attention_layernorm"}) add(norm, {32});
  for (const char* matrix : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                             "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}) {
    add(matrix, {32, 32});
  }
  return tensors;
}

std::string TinyModelWeights() { return SafetensorsBytes(TinyModelTensors()); }

void CompleteHuggingFaceFolder(const std::string& folder) {
  const std::pair<const char*, std::string> files[] = {
      {"config.json", TinyModelConfig()},
      {"tokenizer.json", ValidTokenizerJson()},
      {"tokenizer_config.json", TinyTokenizerConfig()},
      {"model.safetensors", TinyModelWeights()}};
  for (const auto& [name, bytes] : files) {
    const std::string path = absl::StrCat(folder, "/", name);
    if (!std::filesystem::exists(path)) std::ofstream(path, std::ios::binary) << bytes;
  }
}

}  // namespace coterie::testing
