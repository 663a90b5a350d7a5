#include "tests/fuzz/hugging_face_draft.h"

#include <cstdint>
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

std::string TinyModelWeights() {
  std::vector<std::pair<std::string, bool>> names = {{"embed_tokens", false}, {"norm", true}};
  for (const char* norm : {"input_layernorm", "post_attention_layernorm"}) {
    names.emplace_back(absl::StrCat("layers.0.", norm), true);
  }
  for (const char* matrix : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                             "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}) {
    names.emplace_back(absl::StrCat("layers.0.", matrix), false);
  }
  std::string header = "{";
  size_t n_values = 0;
  for (const auto& [name, is_vector] : names) {
    const size_t n_rows = name == "embed_tokens" ? 4 : 32;
    const size_t begin = n_values;
    n_values += is_vector ? 32 : n_rows * 32;
    const std::string shape = is_vector ? "32" : absl::StrCat(n_rows, ",32");
    absl::StrAppend(&header, header == "{" ? "" : ",", "\"model.", name,
                    ".weight\":{\"dtype\":\"F32\",\"shape\":[", shape, "],\"data_offsets\":[",
                    4 * begin, ",", 4 * n_values, "]}");
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');  // So that the tensors are aligned.
  const uint64_t n_header = header.size();
  const std::vector<float> values(n_values, 0.25f);
  return absl::StrCat(
      std::string(reinterpret_cast<const char*>(&n_header), sizeof(n_header)), header,
      std::string(reinterpret_cast<const char*>(values.data()), n_values * sizeof(float)));
}

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
