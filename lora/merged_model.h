#pragma once

// A whole model with an adapter added to its weights, W + scale * B A, for programs that know no
// adapters. Here adapters are better left beside their base: a merged model takes its own memory,
// and rounding moves it a little.

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "core/kernels/tensor_type.h"
#include "experts/arch_spec.h"
#include "experts/model_files.h"
#include "lora/adapter.h"

namespace coterie {

// "F16", "BF16" or "Q8_0"; kInvalidArgument for others.
absl::StatusOr<TensorType> ParseMergedType(absl::string_view name);

// `spec` describes the base.
//
// The base's GGUF file with all its keys and tensors, but that the adapted matrices are
// dequantised, added to in f32, and rounded to `type`. kUnimplemented if the base is no GGUF file,
// kInvalidArgument for a delta that it has no place for or rows that are no multiple of the type's
// block. Holds the adapted matrices in memory, in `type`.
absl::Status WriteMergedGguf(const Adapter& adapter, const ModelFiles& base, const ArchSpec& spec,
                             TensorType type, absl::string_view path);

// The base's Hugging Face folder, with its tensors in one model.safetensors. kUnimplemented if the
// base is no such folder, and for Q8_0, which the format does not have.
absl::Status WriteMergedHuggingFace(const Adapter& adapter, const ModelFiles& base,
                                    const ArchSpec& spec, TensorType type,
                                    absl::string_view folder);

}  // namespace coterie
