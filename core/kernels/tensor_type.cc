#include "core/kernels/tensor_type.h"

#include <array>

namespace coterie {
namespace {

constexpr std::array<TensorTypeTraits, kTensorTypeCount> kTraits = {{
    {"F32", 0, 1, 4},
    {"F16", 1, 1, 2},
    {"BF16", 30, 1, 2},
    {"Q4_0", 2, 32, 18},
    {"Q4_1", 3, 32, 20},
    {"Q5_0", 6, 32, 22},
    {"Q5_1", 7, 32, 24},
    {"Q8_0", 8, 32, 34},
    {"Q4_K", 12, 256, 144},
    {"Q5_K", 13, 256, 176},
    {"Q6_K", 14, 256, 210},
}};

}  // namespace

const TensorTypeTraits& Traits(TensorType type) { return kTraits[static_cast<size_t>(type)]; }

std::optional<TensorType> TensorTypeFromGgmlId(uint32_t ggml_id) {
  for (int i = 0; i < kTensorTypeCount; ++i) {
    if (kTraits[i].ggml_id == ggml_id) return static_cast<TensorType>(i);
  }
  return std::nullopt;
}

absl::string_view GgmlTypeName(uint32_t ggml_id) {
  if (const std::optional<TensorType> type = TensorTypeFromGgmlId(ggml_id)) {
    return Traits(*type).name;
  }
  switch (ggml_id) {
    case 10:
      return "Q2_K";
    case 11:
      return "Q3_K";
    case 15:
      return "Q8_K";
    case 16:
      return "IQ2_XXS";
    case 17:
      return "IQ2_XS";
    case 18:
      return "IQ3_XXS";
    case 19:
      return "IQ1_S";
    case 20:
      return "IQ4_NL";
    case 21:
      return "IQ3_S";
    case 22:
      return "IQ2_S";
    case 23:
      return "IQ4_XS";
    case 24:
      return "I8";
    case 25:
      return "I16";
    case 26:
      return "I32";
    case 27:
      return "I64";
    case 28:
      return "F64";
    case 29:
      return "IQ1_M";
    case 34:
      return "TQ1_0";
    case 35:
      return "TQ2_0";
    case 39:
      return "MXFP4";
    case 40:
      return "NVFP4";
    default:
      return "of an unknown id";
  }
}

}  // namespace coterie
