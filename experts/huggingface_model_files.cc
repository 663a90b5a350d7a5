#include "experts/huggingface_model_files.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

#include "core/base/read_file.h"
#include "core/base/status_macros.h"
#include "core/formats/json_file.h"
#include "core/formats/tokenizer_json.h"

namespace coterie {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxConfigBytes = 1 << 20;
constexpr int64_t kMaxTemplateBytes = 4 << 20;  // tokenizer_config.json lists all added tokens.

struct NamePair {
  absl::string_view gguf;
  absl::string_view hugging_face;
};

constexpr NamePair kModelNames[] = {
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.norm"},
    {"output", "lm_head"},
};

// Inside a layer. Gemma's four norms have names of their own.
constexpr NamePair kLayerNames[] = {
    {"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},      {"attn_v", "self_attn.v_proj"},
    {"attn_q_norm", "self_attn.q_norm"}, {"attn_k_norm", "self_attn.k_norm"},
    {"attn_output", "self_attn.o_proj"}, {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
};
constexpr NamePair kPostNormNames[] = {
    {"post_attention_norm", "post_attention_layernorm"},
    {"ffn_norm", "pre_feedforward_layernorm"},
    {"post_ffw_norm", "post_feedforward_layernorm"},
};

absl::string_view Lookup(absl::Span<const NamePair> names, absl::string_view gguf) {
  for (const NamePair& pair : names) {
    if (pair.gguf == gguf) return pair.hugging_face;
  }
  return "";
}

std::string PathIn(absl::string_view folder, absl::string_view name) {
  return (std::filesystem::path(std::string(folder)) / std::string(name)).string();
}

bool Exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

}  // namespace

absl::StatusOr<std::unique_ptr<const ModelFiles>> HuggingFaceModelFiles::Open(
    absl::string_view folder) {
  std::unique_ptr<HuggingFaceModelFiles> files(new HuggingFaceModelFiles);
  files->path_ = std::string(folder);
  const std::string config_path = PathIn(folder, "config.json");
  if (!Exists(config_path)) {
    return absl::NotFoundError(absl::StrCat(
        "the folder is no Hugging Face model: it has no config.json: folder=", folder));
  }
  COTERIE_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(config_path, kMaxConfigBytes));
  COTERIE_ASSIGN_OR_RETURN(const Json config, ParseJsonObject(text, config_path));
  COTERIE_ASSIGN_OR_RETURN(files->spec_, ArchSpec::FromHuggingFace(text, config_path));
  const Json tied = config.value("tie_word_embeddings", Json());
  files->is_tied_ = tied.is_boolean() ? tied.get<bool>() : files->spec_.architecture == "gemma3";
  COTERIE_ASSIGN_OR_RETURN(files->tensors_, SafetensorsFolder::Open(folder));
  if (!files->is_tied_ && !files->tensors_->Has("lm_head.weight")) {
    return absl::NotFoundError(
        absl::StrCat("tensor is missing (config.json does not tie it to the embedding): "
                     "tensor=lm_head.weight, folder=",
                     folder));
  }
  return std::unique_ptr<const ModelFiles>(std::move(files));
}

std::string HuggingFaceModelFiles::NameOf(absl::string_view gguf_name) const {
  const size_t dot = gguf_name.rfind('.');  // ".weight" or ".bias"
  if (dot == absl::string_view::npos) return "";
  absl::string_view stem = gguf_name.substr(0, dot);
  const absl::string_view ending = gguf_name.substr(dot);
  if (!absl::ConsumePrefix(&stem, "blk.")) {
    const absl::string_view name = Lookup(kModelNames, stem);
    return name.empty() || (stem == "output" && is_tied_) ? "" : absl::StrCat(name, ending);
  }
  const std::pair<absl::string_view, absl::string_view> layer =
      absl::StrSplit(stem, absl::MaxSplits('.', 1));
  absl::string_view name = spec_.post_norms ? Lookup(kPostNormNames, layer.second) : "";
  if (name.empty()) name = Lookup(kLayerNames, layer.second);
  return name.empty() ? "" : absl::StrCat("model.layers.", layer.first, ".", name, ending);
}

bool HuggingFaceModelFiles::HasTensor(absl::string_view name) const {
  const std::string own = NameOf(name);
  return !own.empty() && tensors_->Has(own);
}

absl::StatusOr<TensorRef> HuggingFaceModelFiles::Find(absl::string_view name) const {
  const std::string own = NameOf(name);
  COTERIE_ASSIGN_OR_RETURN(const SafetensorsTensor tensor,
                           tensors_->Find(own.empty() ? name : own));
  const absl::StatusOr<MatrixView> matrix = tensor.matrix();
  if (!matrix.ok()) {
    return absl::Status(matrix.status().code(),
                        absl::StrCat(matrix.status().message(), ", folder=", path_));
  }
  return TensorRef{tensor.name, matrix->type, tensor.shape, tensor.bytes};
}

absl::StatusOr<std::unique_ptr<const Tokenizer>> HuggingFaceModelFiles::ReadTokenizer() const {
  return TokenizerFromHuggingFace(path_);
}

absl::StatusOr<int64_t> HuggingFaceModelFiles::EstimateTokenizerBytes() const {
  return EstimateHuggingFaceTokenizerBytes(path_);
}

// In the order in which transformers looks: chat_template.jinja, then tokenizer_config.json, where
// it is text or a list of {name, template} of which "default" counts.
absl::StatusOr<std::string> HuggingFaceModelFiles::ReadChatTemplate() const {
  const std::string file = PathIn(path_, "chat_template.jinja");
  if (Exists(file)) return ReadSmallFile(file, kMaxTemplateBytes);
  const std::string config_path = PathIn(path_, "tokenizer_config.json");
  if (!Exists(config_path)) return std::string();
  COTERIE_ASSIGN_OR_RETURN(const Json config, ReadJsonFile(config_path, kMaxTemplateBytes));
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return std::string();
  if (found->is_string()) return found->get<std::string>();
  if (found->is_array()) {
    for (const Json& one : *found) {
      if (!one.is_object() || one.value("name", Json()) != "default") continue;
      const Json source = one.value("template", Json());
      if (source.is_string()) return source.get<std::string>();
    }
  }
  return absl::DataLossError(
      absl::StrCat("chat_template is neither text nor a list with a default: file=", config_path));
}

}  // namespace coterie
