#include <cmath>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "core/base/quote.h"
#include "core/base/status_macros.h"
#include "core/formats/gguf_file.h"
#include "core/formats/gguf_writer.h"
#include "lora/adapter_files.h"
#include "lora/adapter_tensors.h"

namespace coterie {
namespace {

constexpr absl::string_view kTensors[kLayerLinearCount] = {
    "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
constexpr char kAlphaKey[] = "adapter.lora.alpha";

struct IdentityKey {
  const char* key;
  std::string BaseIdentity::*field;
};
constexpr IdentityKey kIdentity[] = {{"coterie.base_id", &BaseIdentity::id},
                                     {"coterie.base_name", &BaseIdentity::name},
                                     {"coterie.tokenizer", &BaseIdentity::tokenizer},
                                     {"coterie.chat_template", &BaseIdentity::chat_template}};

// Keys that change what an adapter computes.
constexpr const char* kRefusedKeys[] = {"adapter.alora.invocation_tokens"};

std::string TensorName(const LinearDelta& delta, bool is_a) {
  return absl::StrCat(GgufTensorName(delta), ".lora_", is_a ? "a" : "b");
}

bool ParseTensorName(absl::string_view name, int64_t& layer, LayerLinear& linear, bool& is_a) {
  is_a = absl::EndsWith(name, ".weight.lora_a");
  if (!absl::ConsumePrefix(&name, "blk.") ||
      !absl::ConsumeSuffix(&name, is_a ? ".weight.lora_a" : ".weight.lora_b")) {
    return false;
  }
  const size_t dot = name.find('.');
  if (dot == absl::string_view::npos || !absl::SimpleAtoi(name.substr(0, dot), &layer) ||
      layer < 0 || absl::StrCat(layer) != name.substr(0, dot)) {
    return false;
  }
  for (int i = 0; i < kLayerLinearCount; ++i) {
    linear = static_cast<LayerLinear>(i);
    if (kTensors[i] == name.substr(dot + 1)) return true;
  }
  return false;
}

absl::Status CheckKind(const GgufFile& file, const ArchSpec& spec) {
  const auto expect = [&file](const char* key, absl::string_view wanted) -> absl::Status {
    COTERIE_ASSIGN_OR_RETURN(const absl::string_view found, file.GetString(key));
    if (found == wanted) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("this is no adapter for the base: key=", key,
                                                   ", value=", Quote(found), ", wanted=", wanted,
                                                   ", file=", file.path()));
  };
  COTERIE_RETURN_IF_ERROR(expect("general.type", "adapter"));
  COTERIE_RETURN_IF_ERROR(expect("adapter.type", "lora"));
  COTERIE_RETURN_IF_ERROR(expect("general.architecture", spec.architecture));
  for (const char* key : kRefusedKeys) {
    if (!file.Has(key)) continue;
    return absl::UnimplementedError(absl::StrCat(
        "the adapter uses what is not implemented: key=", key, ", file=", file.path()));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<LinearDelta>> ReadDeltas(const GgufFile& file) {
  AdapterTensors tensors(file.path());
  for (const absl::string_view name : file.TensorNames()) {
    int64_t layer = 0;
    LayerLinear linear = LayerLinear::kQ;
    bool is_a = false;
    if (!ParseTensorName(name, layer, linear, is_a)) {
      return absl::UnimplementedError(absl::StrCat(
          "the adapter has a tensor that is no LoRA matrix of q, k, v, o, gate, up or down: "
          "tensor=",
          Quote(name), ", file=", file.path()));
    }
    COTERIE_ASSIGN_OR_RETURN(const TensorRef tensor, file.Find(name));
    COTERIE_RETURN_IF_ERROR(
        tensors.Add(layer, linear, is_a, name, tensor.type, tensor.shape, tensor.bytes.data()));
  }
  return tensors.Take();
}

bool HasAdjacentRows(const ArchSpec& spec) { return spec.architecture == "llama"; }

}  // namespace

std::string GgufTensorName(const LinearDelta& delta) {
  return absl::StrCat("blk.", delta.layer, ".", kTensors[static_cast<size_t>(delta.linear)],
                      ".weight");
}

absl::StatusOr<Adapter> ReadGgufAdapter(absl::string_view path, const ArchSpec& spec) {
  COTERIE_ASSIGN_OR_RETURN(const std::unique_ptr<const GgufFile> file, GgufFile::Open(path));
  COTERIE_RETURN_IF_ERROR(CheckKind(*file, spec));
  Adapter adapter;
  adapter.base.architecture = spec.architecture;
  for (const IdentityKey& identity : kIdentity) {
    COTERIE_ASSIGN_OR_RETURN(const absl::string_view value, file->GetString(identity.key, ""));
    adapter.base.*identity.field = std::string(value);
  }
  COTERIE_ASSIGN_OR_RETURN(const absl::string_view name, file->GetString("coterie.name", ""));
  if (!name.empty()) COTERIE_RETURN_IF_ERROR(InFile(CheckAdapterName(name), path));
  adapter.name = std::string(name);
  COTERIE_ASSIGN_OR_RETURN(const double alpha, file->GetFloat(kAlphaKey));
  if (!(std::fabs(alpha) <= 1e6)) {
    return absl::DataLossError(absl::StrCat("a number is out of range: key=", kAlphaKey,
                                            ", value=", alpha, ", file=", path));
  }
  COTERIE_ASSIGN_OR_RETURN(adapter.deltas, ReadDeltas(*file));
  for (LinearDelta& delta : adapter.deltas) {
    // An alpha of 0 stands for a scale of 1.
    delta.scale = alpha == 0 ? 1.0f : static_cast<float>(alpha / static_cast<double>(delta.rank));
    COTERIE_RETURN_IF_ERROR(InFile(LinearDeltaSet::Check(spec, delta), path));
    if (HasAdjacentRows(spec)) PermuteRows(spec, RowOrder::kHuggingFace, delta);
  }
  return adapter;
}

absl::Status WriteGgufAdapter(const Adapter& adapter, const ArchSpec& spec,
                              absl::string_view path) {
  if (adapter.deltas.empty()) return absl::InvalidArgumentError("the adapter changes nothing");
  GgufWriter writer;
  writer.SetString("general.type", "adapter");
  writer.SetString("general.architecture", spec.architecture);
  writer.SetString("adapter.type", "lora");
  const auto alpha_of = [](const LinearDelta& delta) {
    return static_cast<double>(delta.scale) * static_cast<double>(delta.rank);
  };
  // One for all; 0 would mean a scale of 1.
  const double first = alpha_of(adapter.deltas[0]);
  const float alpha = first == 0 ? 1.0f : static_cast<float>(first);
  writer.SetFloat32(kAlphaKey, alpha);
  if (!adapter.name.empty()) writer.SetString("coterie.name", adapter.name);
  for (const IdentityKey& identity : kIdentity) {
    const std::string& value = adapter.base.*identity.field;
    if (!value.empty()) writer.SetString(identity.key, value);
  }
  std::vector<LinearDelta> deltas = adapter.deltas;
  for (LinearDelta& delta : deltas) {
    COTERIE_RETURN_IF_ERROR(LinearDeltaSet::Check(spec, delta));
    if (HasAdjacentRows(spec)) PermuteRows(spec, RowOrder::kAdjacent, delta);
    const double ratio = alpha_of(delta) / alpha;
    for (float& value : delta.b) value = static_cast<float>(value * ratio);
  }
  for (const LinearDelta& delta : deltas) {
    const LinearShape shape = ShapeOf(spec, delta.linear);
    for (const bool is_a : {true, false}) {
      const std::vector<float>& values = is_a ? delta.a : delta.b;
      const int64_t extents[] = {is_a ? delta.rank : shape.out, is_a ? shape.in : delta.rank};
      writer.AddTensor(
          TensorName(delta, is_a), TensorType::kF32, extents,
          {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)});
    }
  }
  return writer.Write(path);
}

}  // namespace coterie
