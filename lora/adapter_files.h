#pragma once

// Adapters in the two formats that others read and write. Files are hostile: everything is checked
// before it is used, and what is not implemented is refused by its name.
//
// PEFT: a folder of adapter_config.json and adapter_model.safetensors
//   (huggingface/peft:docs/source/developer_guides/checkpoint.md). What the adapter belongs to
//   travels in the tensor file's metadata ("coterie.base_id", ...), because PEFT takes no key in
//   the configuration that it does not know.
// GGUF: one file, as llama.cpp's convert_lora_to_gguf.py writes and src/llama-adapter.cpp reads;
//   rows of q and k of llama models are permuted in it; one alpha for all. Ours are "coterie.*".

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "experts/arch_spec.h"
#include "lora/adapter.h"

namespace coterie {

inline constexpr absl::string_view kAdapterConfigFile = "adapter_config.json";
inline constexpr absl::string_view kAdapterTensorsFile = "adapter_model.safetensors";

// kNotFound, kDataLoss for damaged files, kUnimplemented for what is not supported; with file,
// field or tensor. The name is the folder's unless the file tells one.
absl::StatusOr<Adapter> ReadPeftAdapter(absl::string_view folder);

// What a PEFT folder's tensor file says it belongs to, from its header alone.
absl::StatusOr<BaseIdentity> ReadPeftIdentity(absl::string_view folder);

// `spec` is the base's: the file says too little to undo its order of rows. kInvalidArgument for a
// delta that the base has no place for.
absl::StatusOr<Adapter> ReadGgufAdapter(absl::string_view path, const ArchSpec& spec);

// Either, by what is at `path`.
absl::StatusOr<Adapter> ReadAdapter(absl::string_view path, const ArchSpec& spec);

// Makes the folder if need be and writes both files, in f32, each atomically: equal adapters give
// equal bytes. kInvalidArgument for an adapter without deltas.
absl::Status WritePeftAdapter(const Adapter& adapter, absl::string_view folder);

// In f32. Where deltas have different alphas, the ratio is multiplied into B. kInvalidArgument for
// a delta that the base has no place for.
absl::Status WriteGgufAdapter(const Adapter& adapter, const ArchSpec& spec, absl::string_view path);

// "blk.3.attn_q.weight", llama.cpp's name of the matrix that a delta changes.
std::string GgufTensorName(const LinearDelta& delta);

}  // namespace coterie
