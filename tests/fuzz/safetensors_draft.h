#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/formats/safetensors_file.h"

namespace coterie::testing {

// A tensor of a safetensors file to be, of four bytes an element.
struct DraftTensor {
  std::string name;
  std::vector<int64_t> shape;
  float value = 0.5f;
  SafetensorsType type = SafetensorsType::kF32;
};

// The file, with "coterie.name" in its metadata unless that is empty.
std::string SafetensorsBytes(const std::vector<DraftTensor>& tensors,
                             const std::string& adapter_name = "");

}  // namespace coterie::testing
