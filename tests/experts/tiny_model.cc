#include "tests/experts/tiny_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <stop_token>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "core/formats/gguf_writer.h"
#include "core/kernels/kernels.h"
#include "experts/decoder.h"
#include "tests/status_matchers.h"

namespace coterie::testing {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kVocab = 96;

class RandomTensors {
 public:
  RandomTensors(TinyModel& model, uint32_t seed) : model_(model), random_(seed) {}

  void Add(const std::string& name, std::vector<int64_t> shape) {
    std::normal_distribution<float> normal(0.0f, 36.0f);
    int64_t n = 1;
    for (const int64_t extent : shape) n *= extent;
    std::vector<float> values(static_cast<size_t>(n));
    for (float& v : values) v = std::clamp(std::round(normal(random_)), -255.0f, 255.0f) / 256;
    model_.tensors[name] = {std::move(shape), std::move(values)};
  }
  // Near one, in the eight bits that bf16 has.
  void AddNorm(const std::string& name, int64_t n) {
    Add(name, {n});
    for (float& v : model_.tensors[name].values) v = 1 + std::round(v * 32) / 128;
  }

 private:
  TinyModel& model_;
  std::mt19937 random_;
};

ArchSpec TinySpec(const std::string& architecture) {
  ArchSpec spec = *ArchSpec::ForArchitecture(architecture, "tiny");
  spec.n_layers = 7;
  spec.d_model = 64;
  spec.n_heads = 4;
  spec.n_kv_heads = 2;
  spec.head_dim = architecture == "gemma3" ? 24 : 16;
  spec.d_ff = 96;
  spec.n_vocab = kVocab;
  spec.context_tokens = 512;
  spec.norm_epsilon = 1e-6f;
  spec.rope_dims = spec.head_dim;
  spec.rope_angles.base = 5000;
  spec.query_scale = 1 / std::sqrt(static_cast<float>(spec.head_dim));
  if (architecture == "llama") spec.rope = RopeKind::kAdjacent;
  if (architecture != "gemma3") return spec;
  spec.embedding_scale = 8;
  spec.rope_angles.position_scale = 0.125f;
  spec.window = 5;
  for (int64_t layer = 0; layer < spec.n_layers; ++layer) {
    spec.windowed.push_back((layer + 1) % 6 != 0);
  }
  return spec;
}

double RoundToF16(double value) {
  const float wide = static_cast<float>(value);
  uint16_t half = 0;
  float back = 0;
  RunnableKernels()[0]->f32_to_f16(&wide, 1, &half);
  RunnableKernels()[0]->dequantize_row(TensorType::kF16, reinterpret_cast<const uint8_t*>(&half), 1,
                                       &back);
  return back;
}

using Row = std::vector<double>;

// One token at a time, written from the architectures' definitions.
class Reference {
 public:
  explicit Reference(const TinyModel& model) : model_(model), spec_(model.spec) {
    keys_.resize(static_cast<size_t>(spec_.n_layers));
    values_.resize(keys_.size());
  }

  Row Next(int32_t id) {
    const std::vector<float>& embedding = model_.tensors.at("token_embd.weight").values;
    const size_t d = static_cast<size_t>(spec_.d_model);
    const auto begin = embedding.begin() + static_cast<ptrdiff_t>(static_cast<size_t>(id) * d);
    Row x(begin, begin + static_cast<ptrdiff_t>(d));
    for (double& v : x) v *= spec_.embedding_scale;
    for (int64_t layer = 0; layer < spec_.n_layers; ++layer) Layer(layer, x);
    ++position_;
    const char* head = model_.tensors.count("output.weight") > 0 ? "output" : "token_embd";
    return Multiply(head, Norm("output_norm", x));
  }

 private:
  Row Norm(const std::string& name, const Row& x) const {
    double squares = 0;
    for (const double v : x) squares += v * v;
    const double scale = 1 / std::sqrt(squares / static_cast<double>(x.size()) + 1e-6);
    const std::vector<float>& weight = model_.tensors.at(name + ".weight").values;
    Row y;
    for (size_t i = 0; i < x.size(); ++i) y.push_back(x[i] * scale * weight[i]);
    return y;
  }

  Row Multiply(const std::string& name, const Row& x) const {
    const TinyTensor& w = model_.tensors.at(name + ".weight");
    const auto bias = model_.tensors.find(name + ".bias");
    Row y(static_cast<size_t>(w.shape[0]));
    for (size_t r = 0; r < y.size(); ++r) {
      if (bias != model_.tensors.end()) y[r] = bias->second.values[r];
      for (size_t c = 0; c < x.size(); ++c) y[r] += w.values[r * x.size() + c] * x[c];
    }
    return y;
  }

  // Splits into heads, norms each where there is a norm, and rotates it.
  std::vector<Row> Heads(const std::string& name, const std::string& norm, int64_t layer,
                         const Row& all) const {
    const size_t n = static_cast<size_t>(spec_.head_dim), half = n / 2;
    const RopeAngles& angles =
        spec_.IsWindowed(layer) ? spec_.window_rope_angles : spec_.rope_angles;
    std::vector<Row> heads;
    for (size_t begin = 0; begin < all.size(); begin += n) {
      const auto first = all.begin() + static_cast<ptrdiff_t>(begin);
      Row head(first, first + static_cast<ptrdiff_t>(n));
      if (spec_.qk_norm && !norm.empty()) head = Norm(norm, head);
      for (size_t i = 0; i < half && name != "v"; ++i) {
        const double angle =
            position_ * angles.position_scale *
            std::pow(angles.base, -2.0 * static_cast<double>(i) / static_cast<double>(n));
        const bool adjacent = spec_.rope == RopeKind::kAdjacent;
        double& a = head[adjacent ? 2 * i : i];
        double& b = head[adjacent ? 2 * i + 1 : i + half];
        const double rotated = a * std::cos(angle) - b * std::sin(angle);
        b = a * std::sin(angle) + b * std::cos(angle);
        a = rotated;
      }
      heads.push_back(std::move(head));
    }
    return heads;
  }

  Row Attend(int64_t layer, const std::vector<Row>& q) const {
    const auto& keys = keys_[static_cast<size_t>(layer)];
    const auto& values = values_[static_cast<size_t>(layer)];
    const size_t n = keys.size();
    const size_t window = static_cast<size_t>(spec_.window);
    const size_t first = spec_.IsWindowed(layer) && n > window ? n - window : 0;
    const size_t group = static_cast<size_t>(spec_.n_heads / spec_.n_kv_heads);
    Row out;
    for (size_t h = 0; h < q.size(); ++h) {
      Row weights, mixed(q[h].size());
      double largest = -1e300, total = 0;
      for (size_t t = first; t < n; ++t) {
        double dot = 0;
        for (size_t i = 0; i < q[h].size(); ++i) dot += q[h][i] * keys[t][h / group][i];
        weights.push_back(dot * spec_.query_scale);
        largest = std::max(largest, weights.back());
      }
      for (double& w : weights) total += w = std::exp(w - largest);
      for (size_t t = first; t < n; ++t) {
        for (size_t i = 0; i < mixed.size(); ++i) {
          mixed[i] += weights[t - first] / total * values[t][h / group][i];
        }
      }
      out.insert(out.end(), mixed.begin(), mixed.end());
    }
    return out;
  }

  double Gate(double x) const {
    if (spec_.gating == Gating::kSilu) return x / (1 + std::exp(-x));
    return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
  }

  void Layer(int64_t layer, Row& x) {
    const std::string prefix = absl::StrCat("blk.", layer, ".");
    Row normed = Norm(prefix + "attn_norm", x);
    const auto q = Heads("q", prefix + "attn_q_norm", layer, Multiply(prefix + "attn_q", normed));
    auto k = Heads("k", prefix + "attn_k_norm", layer, Multiply(prefix + "attn_k", normed));
    auto v = Heads("v", "", layer, Multiply(prefix + "attn_v", normed));
    for (auto* heads : {&k, &v}) {
      for (Row& head : *heads) {
        for (double& value : head) value = RoundToF16(value);
      }
    }
    keys_[static_cast<size_t>(layer)].push_back(std::move(k));
    values_[static_cast<size_t>(layer)].push_back(std::move(v));
    Row added = Multiply(prefix + "attn_output", Attend(layer, q));
    if (spec_.post_norms) added = Norm(prefix + "post_attention_norm", added);
    for (size_t i = 0; i < x.size(); ++i) x[i] += added[i];
    normed = Norm(prefix + "ffn_norm", x);
    Row gate = Multiply(prefix + "ffn_gate", normed);
    const Row up = Multiply(prefix + "ffn_up", normed);
    for (size_t i = 0; i < gate.size(); ++i) gate[i] = Gate(gate[i]) * up[i];
    added = Multiply(prefix + "ffn_down", gate);
    if (spec_.post_norms) added = Norm(prefix + "post_ffw_norm", added);
    for (size_t i = 0; i < x.size(); ++i) x[i] += added[i];
  }

  const TinyModel& model_;
  const ArchSpec& spec_;
  double position_ = 0;
  std::vector<std::vector<std::vector<Row>>> keys_, values_;  // [layer][token][head]
};

// Blocks of 32: f16 d, then values / d.
std::vector<uint8_t> ToQ8_0(const std::vector<float>& values) {
  std::vector<uint8_t> blocks;
  for (size_t begin = 0; begin < values.size(); begin += 32) {
    float largest = 0;
    for (size_t i = begin; i < begin + 32; ++i) largest = std::max(largest, std::fabs(values[i]));
    const float d = static_cast<float>(RoundToF16(largest / 127));
    uint16_t half = 0;
    RunnableKernels()[0]->f32_to_f16(&d, 1, &half);
    blocks.push_back(static_cast<uint8_t>(half));
    blocks.push_back(static_cast<uint8_t>(half >> 8));
    for (size_t i = begin; i < begin + 32; ++i) {
      const float step = d == 0 ? 0 : std::clamp(std::round(values[i] / d), -127.0f, 127.0f);
      blocks.push_back(static_cast<uint8_t>(static_cast<int8_t>(step)));
    }
  }
  return blocks;
}

absl::Span<const uint8_t> BytesOf(const std::vector<float>& values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)};
}

void SetKeys(const ArchSpec& spec, GgufWriter& writer) {
  const std::string& a = spec.architecture;
  writer.SetString("general.architecture", a);
  writer.SetInt(a + ".block_count", spec.n_layers);
  writer.SetInt(a + ".embedding_length", spec.d_model);
  writer.SetInt(a + ".feed_forward_length", spec.d_ff);
  writer.SetInt(a + ".attention.head_count", spec.n_heads);
  writer.SetInt(a + ".attention.head_count_kv", spec.n_kv_heads);
  writer.SetInt(a + ".attention.key_length", spec.head_dim);
  writer.SetInt(a + ".attention.value_length", spec.head_dim);
  writer.SetInt(a + ".context_length", spec.context_tokens);
  writer.SetFloat(a + ".attention.layer_norm_rms_epsilon", spec.norm_epsilon);
  writer.SetFloat(a + ".rope.freq_base", spec.rope_angles.base);
  if (a == "gemma3") {
    writer.SetInt(a + ".attention.sliding_window", spec.window);
    writer.SetString(a + ".rope.scaling.type", "linear");
    writer.SetFloat(a + ".rope.scaling.factor", 1 / spec.rope_angles.position_scale);
  }
  std::vector<std::string> tokens;
  for (int i = 0; i < kVocab; ++i) tokens.push_back(std::string(1, static_cast<char>('!' + i)));
  tokens[94] = "<s>";
  tokens[95] = "</s>";
  std::vector<int64_t> types(static_cast<size_t>(kVocab), 1);
  types[94] = types[95] = 3;
  writer.SetString("tokenizer.ggml.model", "gpt2");
  writer.SetString("tokenizer.ggml.pre", "gpt-2");
  writer.SetStringArray("tokenizer.ggml.tokens", tokens);
  writer.SetIntArray("tokenizer.ggml.token_type", types);
  writer.SetStringArray("tokenizer.ggml.merges", {});
  writer.SetInt("tokenizer.ggml.bos_token_id", 94);
  writer.SetInt("tokenizer.ggml.eos_token_id", 95);
}

// Hugging Face's name and values of a tensor.
std::string HuggingFaceName(const std::string& gguf_name, bool is_gemma) {
  std::string name = gguf_name;
  const auto replace = [&](const std::string& from, const std::string& to) {
    const size_t at = name.find(from + ".");
    if (at != std::string::npos) name.replace(at, from.size(), to);
    return at != std::string::npos;
  };
  if (replace("token_embd", "model.embed_tokens") || replace("output_norm", "model.norm") ||
      (!absl::StartsWith(name, "blk.") && replace("output", "lm_head"))) {
    return name;
  }
  name.replace(0, 4, "model.layers.");
  const char* const ffn_norm = is_gemma ? "pre_feedforward_layernorm" : "post_attention_layernorm";
  (void)(replace("post_attention_norm", "post_attention_layernorm") ||
         replace("post_ffw_norm", "post_feedforward_layernorm") ||
         replace("attn_q_norm", "self_attn.q_norm") || replace("attn_k_norm", "self_attn.k_norm") ||
         replace("attn_norm", "input_layernorm") || replace("ffn_norm", ffn_norm) ||
         replace("attn_q", "self_attn.q_proj") || replace("attn_k", "self_attn.k_proj") ||
         replace("attn_v", "self_attn.v_proj") || replace("attn_output", "self_attn.o_proj") ||
         replace("ffn_gate", "mlp.gate_proj") || replace("ffn_up", "mlp.up_proj") ||
         replace("ffn_down", "mlp.down_proj"));
  return name;
}

std::vector<float> HuggingFaceValues(const TinyModel& model, const std::string& name) {
  const TinyTensor& tensor = model.tensors.at(name);
  std::vector<float> values = tensor.values;
  if (model.spec.architecture == "gemma3" && absl::StrContains(name, "norm")) {
    for (float& v : values) v -= 1;
  }
  const bool permuted = absl::StrContains(name, "attn_q.w") || absl::StrContains(name, "attn_k.w");
  if (model.spec.architecture != "llama" || !permuted) return values;
  const int64_t n_cols = tensor.shape[1], dim = model.spec.head_dim, half = dim / 2;
  for (int64_t row = 0; row < tensor.shape[0]; ++row) {
    const int64_t head = row / dim, within = row % dim;
    const int64_t from = head * dim + 2 * (within % half) + within / half;
    std::copy_n(tensor.values.begin() + from * n_cols, n_cols, values.begin() + row * n_cols);
  }
  return values;
}

std::string Encode(const std::vector<float>& values, SafetensorsType type) {
  std::string bytes;
  for (const float value : values) {
    const char* const raw = reinterpret_cast<const char*>(&value);
    if (type == SafetensorsType::kF32) bytes.append(raw, 4);
    if (type == SafetensorsType::kBF16) bytes.append(raw + 2, 2);
    if (type != SafetensorsType::kF16) continue;
    uint16_t half = 0;
    RunnableKernels()[0]->f32_to_f16(&value, 1, &half);
    bytes.append(reinterpret_cast<const char*>(&half), 2);
  }
  return bytes;
}

nlohmann::json Config(const ArchSpec& spec) {
  const bool is_gemma = spec.architecture == "gemma3";
  nlohmann::json config = {
      {"model_type", is_gemma ? "gemma3_text" : spec.architecture},
      {"num_hidden_layers", spec.n_layers},
      {"hidden_size", spec.d_model},
      {"intermediate_size", spec.d_ff},
      {"num_attention_heads", spec.n_heads},
      {"num_key_value_heads", spec.n_kv_heads},
      {"head_dim", spec.head_dim},
      {"max_position_embeddings", spec.context_tokens},
      {"vocab_size", spec.n_vocab},
      {"rms_norm_eps", 1e-6},
      {"rope_theta", spec.rope_angles.base},
      {"tie_word_embeddings", is_gemma},
  };
  if (!is_gemma) return config;
  config["sliding_window"] = spec.window;
  config["query_pre_attn_scalar"] = spec.head_dim;
  config["rope_local_base_freq"] = 10000.0;
  config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 8.0}};
  return config;
}

// A safetensors file of the tensors named, in that order.
std::string SafetensorsBytes(const TinyModel& model, const std::vector<std::string>& names,
                             SafetensorsType type) {
  nlohmann::json header = nlohmann::json::object();
  std::string data;
  for (const std::string& name : names) {
    const std::string bytes = Encode(HuggingFaceValues(model, name), type);
    header[HuggingFaceName(name, model.spec.architecture == "gemma3")] = {
        {"dtype", std::string(SafetensorsTypeName(type))},
        {"shape", model.tensors.at(name).shape},
        {"data_offsets", {data.size(), data.size() + bytes.size()}}};
    data += bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + text + data;
}

}  // namespace

TinyModel MakeTinyModel(const std::string& architecture, uint32_t seed) {
  TinyModel model;
  model.spec = TinySpec(architecture);
  const ArchSpec& spec = model.spec;
  RandomTensors random(model, seed);
  random.Add("token_embd.weight", {kVocab, spec.d_model});
  random.AddNorm("output_norm.weight", spec.d_model);
  if (architecture != "gemma3") random.Add("output.weight", {kVocab, spec.d_model});
  for (int64_t layer = 0; layer < spec.n_layers; ++layer) {
    const std::string prefix = absl::StrCat("blk.", layer, ".");
    random.AddNorm(prefix + "attn_norm.weight", spec.d_model);
    random.AddNorm(prefix + "ffn_norm.weight", spec.d_model);
    random.Add(prefix + "attn_q.weight", {spec.d_q(), spec.d_model});
    random.Add(prefix + "attn_k.weight", {spec.d_kv(), spec.d_model});
    random.Add(prefix + "attn_v.weight", {spec.d_kv(), spec.d_model});
    random.Add(prefix + "attn_output.weight", {spec.d_model, spec.d_q()});
    random.Add(prefix + "ffn_gate.weight", {spec.d_ff, spec.d_model});
    random.Add(prefix + "ffn_up.weight", {spec.d_ff, spec.d_model});
    random.Add(prefix + "ffn_down.weight", {spec.d_model, spec.d_ff});
    if (spec.qkv_bias) {
      random.Add(prefix + "attn_q.bias", {spec.d_q()});
      random.Add(prefix + "attn_k.bias", {spec.d_kv()});
      random.Add(prefix + "attn_v.bias", {spec.d_kv()});
    }
    if (spec.qk_norm) {
      random.AddNorm(prefix + "attn_q_norm.weight", spec.head_dim);
      random.AddNorm(prefix + "attn_k_norm.weight", spec.head_dim);
    }
    if (spec.post_norms) {
      random.AddNorm(prefix + "post_attention_norm.weight", spec.d_model);
      random.AddNorm(prefix + "post_ffw_norm.weight", spec.d_model);
    }
  }
  return model;
}

std::vector<double> ReferenceLogits(const TinyModel& model, const std::vector<int32_t>& ids) {
  Reference reference(model);
  std::vector<double> logits;
  for (const int32_t id : ids) {
    const Row row = reference.Next(id);
    logits.insert(logits.end(), row.begin(), row.end());
  }
  return logits;
}

std::vector<float> LogitsOf(const ModelFiles& files, const std::vector<int32_t>& ids, int64_t chunk,
                            const LinearDeltaSet* delta) {
  std::vector<float> logits;
  const absl::StatusOr<ArchSpec> spec = files.ReadSpec();
  EXPECT_THAT(spec, IsOk());
  if (!spec.ok()) return logits;
  const absl::StatusOr<DecoderWeights> weights = DecoderWeights::From(files, *spec);
  EXPECT_THAT(weights, IsOk());
  if (!weights.ok()) return logits;
  WorkerPool pool(2);
  const int64_t n_ids = static_cast<int64_t>(ids.size());
  chunk = std::min(chunk, n_ids);
  KvCache kv(*spec, n_ids);
  DecoderScratch scratch(*spec, chunk, chunk, pool.n_workers(),
                         delta == nullptr ? 0 : delta->max_rank());
  for (int64_t begin = 0; begin < n_ids; begin += chunk) {
    const size_t n = static_cast<size_t>(std::min(chunk, n_ids - begin));
    const SequenceSlice slice{&kv, {ids.data() + begin, n}, LogitRows::kAll, delta};
    CpuDecoder decoder(*spec, {&slice, 1}, Activations::kF32, pool, scratch);
    EXPECT_TRUE(RunDecoder(*spec, *weights, decoder, std::stop_token()));
    logits.insert(logits.end(), scratch.logits().begin(), scratch.logits().end());
  }
  return logits;
}

std::vector<int32_t> TinyIds(int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < n; ++i) ids.push_back(static_cast<int32_t>(random() % kVocab));
  return ids;
}

std::string WriteGguf(const TinyModel& model, const fs::path& folder, const std::string& name,
                      int n_parts, TensorType head) {
  std::vector<GgufWriter> writers(static_cast<size_t>(n_parts));
  SetKeys(model.spec, writers[0]);
  const std::string head_name =
      model.tensors.contains("output.weight") ? "output.weight" : "token_embd.weight";
  const std::vector<uint8_t> rounded_head = ToQ8_0(model.tensors.at(head_name).values);
  size_t i = 0;
  for (const auto& [tensor_name, tensor] : model.tensors) {
    GgufWriter& writer = writers[i++ * writers.size() / model.tensors.size()];
    if (tensor_name == head_name && head == TensorType::kQ8_0) {
      writer.AddTensor(tensor_name, head, tensor.shape, rounded_head);
    } else {
      writer.AddTensor(tensor_name, TensorType::kF32, tensor.shape, BytesOf(tensor.values));
    }
  }
  if (n_parts == 1) {
    const std::string path = (folder / (name + ".gguf")).string();
    EXPECT_THAT(writers[0].Write(path), IsOk());
    return path;
  }
  const auto part_path = [&](int part) {
    return (folder / absl::StrFormat("%s-%05d-of-%05d.gguf", name, part, n_parts)).string();
  };
  for (int part = 0; part < n_parts; ++part) {
    GgufWriter& writer = writers[static_cast<size_t>(part)];
    writer.SetInt("split.no", part);
    writer.SetInt("split.count", n_parts);
    writer.SetInt("split.tensors.count", static_cast<int64_t>(model.tensors.size()));
    EXPECT_THAT(writer.Write(part_path(part + 1)), IsOk());
  }
  return part_path(1);
}

void WriteHuggingFaceFolder(const TinyModel& model, const fs::path& folder, SafetensorsType type,
                            int n_shards) {
  fs::create_directories(folder);
  WriteFile(folder / "config.json", Config(model.spec).dump());
  std::vector<std::vector<std::string>> names(static_cast<size_t>(n_shards));
  size_t i = 0;
  for (const auto& [name, tensor] : model.tensors) {
    names[i++ * names.size() / model.tensors.size()].push_back(name);
  }
  if (n_shards == 1) {
    WriteFile(folder / "model.safetensors", SafetensorsBytes(model, names[0], type));
    return;
  }
  nlohmann::json index = {{"metadata", {{"total_size", 0}}}};
  for (int shard = 0; shard < n_shards; ++shard) {
    const std::string file = absl::StrFormat("model-%05d-of-%05d.safetensors", shard + 1, n_shards);
    const auto& own = names[static_cast<size_t>(shard)];
    WriteFile(folder / file, SafetensorsBytes(model, own, type));
    for (const std::string& name : own) {
      index["weight_map"][HuggingFaceName(name, model.spec.architecture == "gemma3")] = file;
    }
  }
  WriteFile(folder / "model.safetensors.index.json", index.dump());
}

void WriteFile(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

std::string ReadFile(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

}  // namespace coterie::testing
