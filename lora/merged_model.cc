#include "lora/merged_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "core/base/quote.h"
#include "core/base/status_macros.h"
#include "core/formats/gguf_file.h"
#include "core/formats/gguf_writer.h"
#include "core/formats/safetensors_folder.h"
#include "core/formats/safetensors_writer.h"
#include "core/kernels/kernels.h"
#include "lora/adapter_config.h"
#include "lora/adapter_files.h"

namespace coterie {
namespace {

namespace fs = std::filesystem;

constexpr TensorType kMergedTypes[] = {TensorType::kF16, TensorType::kBF16, TensorType::kQ8_0};
constexpr int kQ8Block = 32;

using Bytes = std::vector<uint8_t>;

// The upper half of a float, rounded to nearest even; the values are finite.
uint16_t ToBf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// 32 values as an f16 scale and 32 signed bytes (ggml:src/ggml-common.h, block_q8_0).
void EncodeQ8Block(const float* values, uint8_t* block) {
  float largest = 0;
  for (int i = 0; i < kQ8Block; ++i) largest = std::max(largest, std::fabs(values[i]));
  const float step = largest / 127;
  uint16_t scale;
  Kernels().f32_to_f16(&step, 1, &scale);
  std::memcpy(block, &scale, sizeof(scale));
  for (int i = 0; i < kQ8Block; ++i) {
    const float q = step == 0 ? 0 : std::round(values[i] / step);
    block[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(q));
  }
}

void EncodeRow(const std::vector<float>& row, TensorType type, uint8_t* out) {
  const int64_t n = static_cast<int64_t>(row.size());
  if (type == TensorType::kF16) {
    Kernels().f32_to_f16(row.data(), n, reinterpret_cast<uint16_t*>(out));
  } else if (type == TensorType::kBF16) {
    for (size_t i = 0; i < row.size(); ++i) {
      const uint16_t half = ToBf16(row[i]);
      std::memcpy(out + 2 * i, &half, sizeof(half));
    }
  } else {
    const int64_t block_bytes = Traits(TensorType::kQ8_0).block_bytes;
    for (int64_t b = 0; b * kQ8Block < n; ++b) {
      EncodeQ8Block(row.data() + b * kQ8Block, out + b * block_bytes);
    }
  }
}

// W + scale * B A in f32, row by row, rounded to `type`.
absl::StatusOr<Bytes> Merge(const MatrixView& w, const LinearDelta& delta, TensorType type) {
  if (w.n_cols % Traits(type).block_values != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the rows of a matrix do not divide into blocks of ", Traits(type).name,
                     "; choose F16: columns=", w.n_cols));
  }
  const int64_t row_bytes = RowBytes(type, w.n_cols);
  Bytes merged(static_cast<size_t>(w.n_rows * row_bytes));
  std::vector<float> row(static_cast<size_t>(w.n_cols));
  for (int64_t r = 0; r < w.n_rows; ++r) {
    Kernels().dequantize_row(w.type, w.row(r), w.n_cols, row.data());
    for (int64_t k = 0; k < delta.rank; ++k) {
      const float factor = delta.scale * delta.b[static_cast<size_t>(r * delta.rank + k)];
      const float* a = delta.a.data() + k * w.n_cols;
      for (size_t c = 0; c < row.size(); ++c) row[c] += factor * a[c];
    }
    EncodeRow(row, type, merged.data() + r * row_bytes);
  }
  return merged;
}

absl::Status CheckDeltas(const Adapter& adapter, const ArchSpec& spec) {
  for (const LinearDelta& delta : adapter.deltas) {
    COTERIE_RETURN_IF_ERROR(LinearDeltaSet::Check(spec, delta));
  }
  return absl::OkStatus();
}

absl::Status NotOfThisKind(const std::string& path, absl::string_view instead) {
  return absl::UnimplementedError(absl::StrCat(
      "a model is merged in the format of its base; export as ", instead, " instead: base=", path));
}

// Keys that are about the file and not about the model.
bool IsOfTheFile(absl::string_view key) {
  return key == "general.alignment" || absl::StartsWith(key, "split.");
}

absl::Status CopyOtherFiles(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::create_directories(to, error);
  for (fs::directory_iterator it(from, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (!it->is_regular_file() || absl::StrContains(name, ".safetensors")) continue;
    fs::copy_file(it->path(), to / name, fs::copy_options::overwrite_existing, error);
    if (error) break;
  }
  if (!error) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("cannot copy the base's folder: from=", from.string(),
                                          ", to=", to.string(), ", error=", error.message()));
}

}  // namespace

absl::StatusOr<TensorType> ParseMergedType(absl::string_view name) {
  for (const TensorType type : kMergedTypes) {
    if (name == Traits(type).name) return type;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("a merged model is of type F16, BF16 or Q8_0, not ", Quote(name)));
}

absl::Status WriteMergedGguf(const Adapter& adapter, const ModelFiles& base, const ArchSpec& spec,
                             TensorType type, absl::string_view path) {
  std::error_code error;
  if (fs::is_directory(base.path(), error)) {
    return NotOfThisKind(base.path(), "merged-hf");
  }
  COTERIE_RETURN_IF_ERROR(CheckDeltas(adapter, spec));
  COTERIE_ASSIGN_OR_RETURN(const auto file, GgufFile::Open(base.path()));
  std::map<std::string, const LinearDelta*, std::less<>> delta_of;
  const std::vector<LinearDelta> served = ServedDeltas(adapter, spec);
  for (const LinearDelta& delta : served) delta_of[GgufTensorName(delta)] = &delta;
  GgufWriter writer;
  for (const absl::string_view key : file->Keys()) {
    if (!IsOfTheFile(key)) writer.CopyKey(*file, key);
  }
  std::vector<Bytes> merged;
  for (const absl::string_view name : file->TensorNames()) {
    COTERIE_ASSIGN_OR_RETURN(const TensorRef tensor, file->Find(name));
    const auto delta = delta_of.find(name);
    if (delta == delta_of.end()) {
      writer.AddTensor(name, tensor.type, tensor.shape, tensor.bytes);
      continue;
    }
    COTERIE_ASSIGN_OR_RETURN(Bytes bytes, Merge(tensor.matrix(), *delta->second, type));
    merged.push_back(std::move(bytes));  // The writer keeps a view of the bytes, which stay.
    writer.AddTensor(name, type, tensor.shape, merged.back());
  }
  return writer.Write(path);
}

absl::Status WriteMergedHuggingFace(const Adapter& adapter, const ModelFiles& base,
                                    const ArchSpec& spec, TensorType type,
                                    absl::string_view folder) {
  const std::string& from = base.path();
  std::error_code error;
  if (!fs::is_directory(from, error)) return NotOfThisKind(from, "merged-gguf");
  if (type == TensorType::kQ8_0) {
    return absl::UnimplementedError("a Hugging Face folder is merged as F16 or BF16, not Q8_0");
  }
  COTERIE_RETURN_IF_ERROR(CheckDeltas(adapter, spec));
  COTERIE_ASSIGN_OR_RETURN(const auto tensors, SafetensorsFolder::Open(from));
  std::map<std::string, const LinearDelta*, std::less<>> delta_of;
  for (const LinearDelta& delta : adapter.deltas) {
    delta_of[absl::StrCat(ModuleName(delta.layer, delta.linear), ".weight")] = &delta;
  }
  SafetensorsWriter writer;
  writer.SetMetadata("format", "pt");
  std::vector<Bytes> merged;
  for (const absl::string_view name : tensors->TensorNames()) {
    COTERIE_ASSIGN_OR_RETURN(const SafetensorsTensor tensor, tensors->Find(name));
    const auto delta = delta_of.find(name);
    if (delta == delta_of.end()) {
      writer.AddTensor(name, tensor.type, tensor.shape, tensor.bytes);
      continue;
    }
    COTERIE_ASSIGN_OR_RETURN(const MatrixView w, tensor.matrix());
    COTERIE_ASSIGN_OR_RETURN(Bytes bytes, Merge(w, *delta->second, type));
    merged.push_back(std::move(bytes));
    writer.AddTensor(name,
                     type == TensorType::kF16 ? SafetensorsType::kF16 : SafetensorsType::kBF16,
                     tensor.shape, merged.back());
  }
  COTERIE_RETURN_IF_ERROR(CopyOtherFiles(from, std::string(folder)));
  return writer.Write(absl::StrCat(folder, "/model.safetensors"));
}

}  // namespace coterie
