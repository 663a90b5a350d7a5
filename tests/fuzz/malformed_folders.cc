// The files of a Hugging Face folder beside tokenizer.json and the index of shards, with one thing
// wrong: config.json, tokenizer_config.json, generation_config.json and model.safetensors.

#include <algorithm>
#include <functional>

#include "absl/strings/str_cat.h"

#include "tests/fuzz/hugging_face_draft.h"
#include "tests/fuzz/malformed_file.h"

namespace coterie::testing {
namespace {

constexpr auto kDamaged = absl::StatusCode::kDataLoss;
constexpr auto kUnsupported = absl::StatusCode::kUnimplemented;
constexpr auto kMissing = absl::StatusCode::kNotFound;

using Files = std::vector<MalformedFile>;

// Refused by the reader of a tokenizer's files, which is stricter.
std::string ManyValues() { return "[0" + Repeat(",0", 300000) + "]"; }

Files WrongTokenizerJson() {
  Files files = MalformedJson(4 << 20);
  files.push_back({"NameTwice", "{\"a\":1,\"a\":2}", kDamaged, "twice in one object: 'a'"});
  files.push_back(
      {"ManyValues", absl::StrCat("{\"a\":", ManyValues(), "}"), kDamaged, "too many values"});
  return files;
}

// Changes of the valid configuration.
class Mutations {
 public:
  explicit Mutations(Files& files) : files_(files) {}

  // The field in place of the valid one, or beside the others.
  void Field(const std::string& name, const std::string& field, const std::string& value,
             absl::StatusCode code = kDamaged, const std::string& named = "") {
    Fields(name, absl::StrCat("\"", field, "\":", value), named.empty() ? field : named, code);
  }
  // The JSON text of fields, which come first but for those that they replace.
  void Fields(const std::string& name, const std::string& fields, const std::string& named,
              absl::StatusCode code = kDamaged) {
    std::string text = Without(fields.substr(0, fields.find(':') + 1));
    files_.push_back({name, absl::StrCat("{", fields, ",", text.substr(1)), code, named});
  }
  void Drop(const std::string& name, const std::string& field, absl::StatusCode code = kDamaged) {
    files_.push_back({name, Without(absl::StrCat("\"", field, "\":")), code, field});
  }

 private:
  static std::string Without(const std::string& field) {
    std::string text = TinyModelConfig();
    const size_t at = text.find(field);
    if (at == std::string::npos) return text;
    const size_t end = text.find_first_of(",}", at);
    return text.erase(at, end - at + (text[end] == ',' ? 1 : 0));
  }

  Files& files_;
};

void AddExtents(Mutations m) {
  for (const char* field :
       {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "vocab_size", "max_position_embeddings"}) {
    std::string name = field;
    std::erase(name, '_');
    if (name != "numkeyvalueheads") m.Drop(name + "Missing", field);
    m.Field(name + "Zero", field, "0");
    m.Field(name + "Negative", field, "-1");
    m.Field(name + "Huge", field, "9223372036854775807");
    m.Field(name + "BeyondInt64", field, "18446744073709551615");
    m.Field(name + "BeyondAll", field, "1" + std::string(400, '0'), kDamaged, "config.json");
    m.Field(name + "Real", field, "32.0");
    m.Field(name + "Text", field, "\"32\"");
    m.Field(name + "List", field, "[32]");
    m.Field(name + "Null", field, name == "numkeyvalueheads" ? "{}" : "null");
  }
  m.Field("LayersMore", "num_hidden_layers", "2", kMissing, "tensor=model.layers.1.");
  m.Field("LayersMost", "num_hidden_layers", "1024", kMissing, "tensor=model.layers.1.");
  m.Field("WidthOther", "hidden_size", "64", kDamaged, "tensor=model.embed_tokens.weight");
  m.Field("WidthOdd", "hidden_size", "33", kDamaged, "multiple of 32");
  m.Field("FeedForwardOther", "intermediate_size", "64", kDamaged, "mlp.gate_proj.weight");
  m.Field("HeadsOdd", "num_attention_heads", "5", kDamaged, "n_heads=5");
  m.Field("HeadsManyForTheWidth", "num_attention_heads", "64");
  m.Field("KvHeadsDoNotDivide", "num_key_value_heads", "3", kDamaged, "n_kv_heads=3");
  m.Field("VocabularyOther", "vocab_size", "5", kDamaged, "tensor=model.embed_tokens.weight");
  m.Field("HeadDimZero", "head_dim", "0");
  m.Field("HeadDimHuge", "head_dim", "9223372036854775807");
  m.Field("HeadDimOdd", "head_dim", "15", kDamaged, "head_dim=15");
  m.Field("HeadDimOther", "head_dim", "4096", kDamaged, "self_attn.q_proj.weight");
  m.Field("HeadUntied", "tie_word_embeddings", "false", kMissing, "tensor=lm_head.weight");
}

void AddKinds(Mutations m) {
  m.Fields("NameTwice", "\"hidden_size\":32,\"hidden_size\":32", "'hidden_size'");
  m.Field("ManyValues", "a", ManyValues(), kDamaged, "too many values");
  m.Drop("TypeMissing", "model_type", kUnsupported);
  m.Field("TypeNumber", "model_type", "3");
  m.Field("TypeUnknown", "model_type", "\"mamba\\n\\u00e4\"", kUnsupported, "model_type='mamba\\n");
  m.Field("TypeLong", "model_type", "\"" + std::string(100000, 'x') + "\"", kUnsupported, "'xxx");
  m.Field("ActivationOther", "hidden_act", "\"gelu\"", kUnsupported);
  m.Field("ActivationNumber", "hidden_act", "3");
  m.Field("Quantised", "quantization_config", "{\"bits\":4}", kUnsupported);
  m.Field("Windows", "use_sliding_window", "true", kUnsupported);
  for (const auto& [name, value] :
       std::vector<std::pair<const char*, const char*>>{{"Zero", "0"},
                                                        {"Negative", "-1"},
                                                        {"Huge", "1e300"},
                                                        {"Tiny", "1e-300"},
                                                        {"Text", "\"1\""},
                                                        {"List", "[1]"}}) {
    m.Field(absl::StrCat("Epsilon", name), "rms_norm_eps", value);
    m.Field(absl::StrCat("RopeBase", name), "rope_theta", value);
    m.Field(absl::StrCat("Rotated", name), "partial_rotary_factor", value);
  }
  m.Field("RotatedHalf", "partial_rotary_factor", "0.5", kUnsupported);
  m.Field("ScalingNumber", "rope_scaling", "8");
  m.Field("ScalingTypeNumber", "rope_scaling", "{\"rope_type\":8}", kDamaged, "rope_type");
  m.Field("ScalingUnknown", "rope_scaling", "{\"rope_type\":\"yarn\"}", kUnsupported, "'yarn'");
  m.Field("ScalingZero", "rope_scaling", "{\"type\":\"linear\",\"factor\":0}", kDamaged, "factor");
  m.Field("ScalingReversed", "rope_scaling", "{\"type\":\"llama3\",\"high_freq_factor\":0.5}",
          kDamaged, "high_freq_factor");
  m.Field("ParametersNumber", "rope_parameters", "8");
  m.Field("ParametersOfOneKind", "rope_parameters", "{\"full_attention\":{}}");
  m.Field("ParametersKindNumber", "rope_parameters",
          "{\"full_attention\":{},\"sliding_attention\":3}");
  for (const char* name : {"bos_token_id", "eos_token_id"}) {
    const std::string plain = name[0] == 'b' ? "Bos" : "Eos";
    m.Field(plain + "Large", name, "4", kDamaged, "no token: '4'");
    m.Field(plain + "Negative", name, "-1", kDamaged, "no token: '-1'");
    m.Field(plain + "Text", name, "\"3\"", kDamaged, "no token");
    m.Field(plain + "Nested", name, "[[3]]", kDamaged, "no token");
    m.Field(plain + "Object", name, "{\"id\":3}", kDamaged, "no token");
  }
}

// Of gemma3: windows and what depends on them.
void AddWindows(Mutations m) {
  const auto gemma = [&](const char* name, const std::string& fields, const char* named,
                         absl::StatusCode code = kDamaged) {
    m.Fields(name,
             absl::StrCat("\"model_type\":\"gemma3_text\",\"hidden_activation\":"
                          "\"gelu_pytorch_tanh\",",
                          fields),
             named, code);
  };
  gemma("WindowNegative", "\"sliding_window\":-5", "sliding_window");
  gemma("WindowText", "\"sliding_window\":\"5\"", "sliding_window");
  gemma("WindowPatternZero", "\"sliding_window\":5,\"sliding_window_pattern\":0",
        "sliding_window_pattern");
  gemma("LayerTypesText", "\"layer_types\":\"full\"", "layer_types");
  gemma("LayerTypesNumbers", "\"layer_types\":[1]", "layer_types");
  gemma("LayerTypesMany",
        "\"layer_types\":[\"full_attention\"" + Repeat(",\"full_attention\"", 5000) + "]",
        "windowed");
  gemma("LayerTypesWithoutWindow", "\"layer_types\":[\"sliding_attention\"]", "window=0");
  gemma("QueryScaleZero", "\"query_pre_attn_scalar\":0", "query_pre_attn_scalar");
  gemma("LocalBaseZero", "\"rope_local_base_freq\":0", "rope_local_base_freq");
  gemma("SoftCap", "\"final_logit_softcapping\":30.0", "final_logit_softcapping", kUnsupported);
}

void AddWeights(Files& files) {
  const auto change = [&](const std::string& name, const std::string& tensor,
                          const std::function<void(std::vector<DraftTensor>&, size_t)>& how,
                          absl::StatusCode code = kDamaged) {
    std::vector<DraftTensor> tensors = TinyModelTensors();
    const auto at = std::find_if(tensors.begin(), tensors.end(),
                                 [&](const DraftTensor& one) { return one.name == tensor; });
    how(tensors, static_cast<size_t>(at - tensors.begin()));
    files.push_back({name, SafetensorsBytes(tensors), code, tensor});
  };
  const auto shape = [&](const std::string& name, const std::string& tensor,
                         std::vector<int64_t> wrong) {
    change(name, tensor, [&](auto& tensors, size_t i) { tensors[i].shape = wrong; });
  };
  for (const char* tensor :
       {"model.embed_tokens.weight", "model.norm.weight", "model.layers.0.input_layernorm.weight",
        "model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.down_proj.weight"}) {
    std::string name = tensor;
    std::erase_if(name, [](char c) { return c == '.' || c == '_'; });
    change(
        name + "Missing", tensor,
        [](auto& tensors, size_t i) { tensors.erase(tensors.begin() + static_cast<ptrdiff_t>(i)); },
        kMissing);
    change(
        name + "Integers", tensor,
        [](auto& tensors, size_t i) { tensors[i].type = SafetensorsType::kI32; }, kUnsupported);
    shape(name + "Scalar", tensor, {});
    shape(name + "Empty", tensor, {0});
    shape(name + "EmptyRows", tensor, {32, 0});
    shape(name + "Cube", tensor, {1, 1, 32});
    shape(name + "Long", tensor, {33});
  }
  change("BiasShape", "model.layers.0.self_attn.q_proj.bias", [](auto& tensors, size_t) {
    tensors.push_back({"model.layers.0.self_attn.q_proj.bias", {31}});
  });
  // One more space in the header moves all data by a byte.
  std::string odd = TinyModelWeights();
  ++odd[0];
  const size_t end_of_header = odd.find("}}") + 2;
  odd.insert(end_of_header, " ");
  files.push_back({"Misaligned", odd, kUnsupported, "not aligned"});
}

}  // namespace

std::vector<MalformedFile> MalformedModelWeights() {
  Files files = MalformedSafetensors();
  AddWeights(files);
  return files;
}

std::vector<MalformedFile> MalformedModelConfigs() {
  Files files = MalformedJson(1 << 20);
  files.push_back({"Empty", "", kDamaged, "JSON"});
  AddExtents(Mutations(files));
  AddKinds(Mutations(files));
  AddWindows(Mutations(files));
  return files;
}

std::vector<MalformedFile> MalformedTokenizerConfigs() {
  Files files = WrongTokenizerJson();
  const auto chat_template = [&](const char* name, const std::string& value, const char* field,
                                 absl::StatusCode code = kDamaged) {
    files.push_back({name, absl::StrCat("{\"chat_template\":", value, "}"), code, field});
  };
  chat_template("TemplateNumber", "3", "chat_template");
  chat_template("TemplateObject", "{\"default\":\"a\"}", "chat_template");
  chat_template("TemplatesNone", "[]", "chat_template");
  chat_template("TemplatesText", "[\"default\"]", "chat_template");
  chat_template("TemplatesWithoutDefault", R"([{"name":"tool_use","template":"a"}])", "default");
  chat_template("TemplateOfNumber", R"([{"name":"default","template":3}])", "default");
  return files;
}

std::vector<MalformedFile> MalformedGenerationConfigs() {
  Files files = WrongTokenizerJson();
  const auto ends = [&](const char* name, const std::string& value, const char* field) {
    files.push_back({name, absl::StrCat("{\"eos_token_id\":", value, "}"), kDamaged, field});
  };
  ends("EndLarge", "4", "no token: '4'");
  ends("EndNegative", "-1", "no token: '-1'");
  ends("EndBeyondInt64", "18446744073709551616", "no token");
  ends("EndText", "\"3\"", "no token");
  ends("EndsOneLarge", "[3,4]", "no token: '4'");
  ends("EndsNested", "[[3]]", "no token");
  return files;
}

}  // namespace coterie::testing
