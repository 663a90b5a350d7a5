#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "core/base/quote.h"
#include "core/base/read_file.h"
#include "core/base/status_macros.h"
#include "core/base/write_file.h"
#include "core/formats/safetensors_file.h"
#include "core/formats/safetensors_writer.h"
#include "lora/adapter_config.h"
#include "lora/adapter_files.h"
#include "lora/adapter_tensors.h"

namespace coterie {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxConfigBytes = 1 << 20;
constexpr absl::string_view kPrefix = "base_model.model.";

struct MetadataField {
  const char* key;
  std::string BaseIdentity::*field;
};
constexpr MetadataField kMetadata[] = {{"coterie.base_id", &BaseIdentity::id},
                                       {"coterie.base_name", &BaseIdentity::name},
                                       {"coterie.architecture", &BaseIdentity::architecture},
                                       {"coterie.tokenizer", &BaseIdentity::tokenizer},
                                       {"coterie.chat_template", &BaseIdentity::chat_template}};

std::string TensorName(const LinearDelta& delta, bool is_a) {
  return absl::StrCat(kPrefix, ModuleName(delta.layer, delta.linear), ".lora_", is_a ? "A" : "B",
                      ".weight");
}

absl::Status AddTensor(const SafetensorsTensor& tensor, const std::string& path,
                       AdapterTensors& tensors) {
  absl::string_view module = tensor.name;
  int64_t layer = 0;
  LayerLinear linear = LayerLinear::kQ;
  const bool is_a = absl::EndsWith(module, ".lora_A.weight");
  if (!absl::ConsumePrefix(&module, kPrefix) ||
      !absl::ConsumeSuffix(&module, is_a ? ".lora_A.weight" : ".lora_B.weight") ||
      !ParseModuleName(module, layer, linear)) {
    return absl::UnimplementedError(absl::StrCat(
        "the adapter has a tensor that is no LoRA matrix of q, k, v, o, gate, up or down: tensor=",
        Quote(tensor.name), ", file=", path));
  }
  const absl::StatusOr<MatrixView> view = tensor.matrix();
  COTERIE_RETURN_IF_ERROR(InFile(view.status(), path));
  return tensors.Add(layer, linear, is_a, tensor.name, view->type, tensor.shape, view->data);
}

BaseIdentity IdentityIn(const SafetensorsFile& file) {
  BaseIdentity base;
  for (const MetadataField& field : kMetadata) {
    const auto found = file.metadata().find(field.key);
    if (found != file.metadata().end()) base.*field.field = found->second;
  }
  return base;
}

std::string FolderName(absl::string_view folder) {
  fs::path path = fs::path(std::string(folder)).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  return path.filename().string();
}

}  // namespace

absl::StatusOr<BaseIdentity> ReadPeftIdentity(absl::string_view folder) {
  COTERIE_ASSIGN_OR_RETURN(const std::unique_ptr<const SafetensorsFile> file,
                           SafetensorsFile::Open(absl::StrCat(folder, "/", kAdapterTensorsFile)));
  return IdentityIn(*file);
}

absl::StatusOr<Adapter> ReadPeftAdapter(absl::string_view folder) {
  const std::string config_path = absl::StrCat(folder, "/", kAdapterConfigFile);
  const std::string path = absl::StrCat(folder, "/", kAdapterTensorsFile);
  COTERIE_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(config_path, kMaxConfigBytes));
  COTERIE_ASSIGN_OR_RETURN(const AdapterConfig config, AdapterConfig::Parse(text, config_path));
  COTERIE_ASSIGN_OR_RETURN(const std::unique_ptr<const SafetensorsFile> file,
                           SafetensorsFile::Open(path));
  Adapter adapter;
  adapter.name = FolderName(folder);
  adapter.rslora = config.rslora();
  adapter.base = IdentityIn(*file);
  if (adapter.base.name.empty()) adapter.base.name = config.base_name();
  if (const auto name = file->metadata().find("coterie.name"); name != file->metadata().end()) {
    COTERIE_RETURN_IF_ERROR(InFile(CheckAdapterName(name->second), path));
    adapter.name = name->second;
  }
  AdapterTensors tensors(path);
  for (const absl::string_view name : file->TensorNames()) {
    COTERIE_ASSIGN_OR_RETURN(const SafetensorsTensor tensor, file->Find(name));
    COTERIE_RETURN_IF_ERROR(AddTensor(tensor, path, tensors));
  }
  COTERIE_ASSIGN_OR_RETURN(adapter.deltas, tensors.Take());
  for (LinearDelta& delta : adapter.deltas) {
    COTERIE_ASSIGN_OR_RETURN(delta.scale, config.ScaleOf(ModuleName(delta.layer, delta.linear),
                                                         delta.layer, delta.rank));
  }
  return adapter;
}

absl::Status WritePeftAdapter(const Adapter& adapter, absl::string_view folder) {
  if (adapter.deltas.empty()) return absl::InvalidArgumentError("the adapter changes nothing");
  std::error_code error;
  fs::create_directories(std::string(folder), error);
  SafetensorsWriter writer;
  writer.SetMetadata("format", "pt");
  if (!adapter.name.empty()) writer.SetMetadata("coterie.name", adapter.name);
  for (const MetadataField& field : kMetadata) {
    const std::string& value = adapter.base.*field.field;
    if (!value.empty()) writer.SetMetadata(field.key, value);
  }
  for (const LinearDelta& delta : adapter.deltas) {
    for (const bool is_a : {true, false}) {
      const std::vector<float>& values = is_a ? delta.a : delta.b;
      const int64_t other = static_cast<int64_t>(values.size()) / delta.rank;
      const int64_t shape[] = {is_a ? delta.rank : other, is_a ? other : delta.rank};
      writer.AddTensor(
          TensorName(delta, is_a), SafetensorsType::kF32, shape,
          {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)});
    }
  }
  COTERIE_RETURN_IF_ERROR(writer.Write(absl::StrCat(folder, "/", kAdapterTensorsFile)));
  return WriteFileAtomically(absl::StrCat(folder, "/", kAdapterConfigFile),
                             AdapterConfigJson(adapter));
}

absl::StatusOr<Adapter> ReadAdapter(absl::string_view path, const ArchSpec& spec) {
  std::error_code error;
  if (fs::is_directory(std::string(path), error)) return ReadPeftAdapter(path);
  return ReadGgufAdapter(path, spec);
}

}  // namespace coterie
