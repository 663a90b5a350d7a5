#pragma once

// Decoders with random weights, small enough to be checked against plain float64, in every form in
// which models are stored.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/formats/safetensors_file.h"
#include "experts/arch_spec.h"
#include "experts/cpu_decoder.h"
#include "experts/linear_delta.h"
#include "experts/model_files.h"

namespace coterie::testing {

struct TinyTensor {
  std::vector<int64_t> shape;
  std::vector<float> values;  // Each is exact in bf16 and f16 too.
};

// Tensors by their GGUF names and as GGUF stores them (q and k of llama permuted, norms of gemma
// plus one); a description to match.
struct TinyModel {
  ArchSpec spec;
  std::map<std::string, TinyTensor> tensors;
};

// architecture: "llama", "qwen2" or "gemma3". Seven layers of width 64; gemma3 has windows of five
// tokens, two rotations, linear scaling of the global one and a tied head.
TinyModel MakeTinyModel(const std::string& architecture, uint32_t seed = 1);

// Logits of every token in float64, [n_tokens, n_vocab]; keys and values are rounded to f16, as the
// cache keeps them.
std::vector<double> ReferenceLogits(const TinyModel& model, const std::vector<int32_t>& ids);

// The same from files, with f32 activations and an adapter if there is one, in passes of at most
// `chunk` tokens.
std::vector<float> LogitsOf(const ModelFiles& files, const std::vector<int32_t>& ids,
                            int64_t chunk = 1 << 20, const LinearDeltaSet* delta = nullptr);

// Some ids of the tiny vocabulary.
std::vector<int32_t> TinyIds(int64_t n, uint32_t seed = 2);

// Writes NAME.gguf, or with n_parts > 1 its parts, and returns the path to open. The head as F32 or
// rounded to Q8_0.
std::string WriteGguf(const TinyModel& model, const std::filesystem::path& folder,
                      const std::string& name, int n_parts = 1, TensorType head = TensorType::kF32);

// config.json and tensors as Hugging Face would store them, in n_shards files; no tokenizer.
void WriteHuggingFaceFolder(const TinyModel& model, const std::filesystem::path& folder,
                            SafetensorsType type, int n_shards = 1);

void WriteFile(const std::filesystem::path& path, const std::string& text);
std::string ReadFile(const std::filesystem::path& path);

}  // namespace coterie::testing
