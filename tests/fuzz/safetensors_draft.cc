#include "tests/fuzz/safetensors_draft.h"

#include <utility>

#include "core/base/check.h"
#include "core/formats/safetensors_writer.h"

namespace coterie::testing {

std::string SafetensorsBytes(const std::vector<DraftTensor>& tensors,
                             const std::string& adapter_name) {
  SafetensorsWriter writer;
  if (!adapter_name.empty()) writer.SetMetadata("coterie.name", adapter_name);
  std::vector<std::vector<float>> values;
  for (const DraftTensor& tensor : tensors) {
    int64_t n = 1;
    for (const int64_t extent : tensor.shape) n *= extent;
    values.emplace_back(static_cast<size_t>(n), tensor.value);
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    writer.AddTensor(tensors[i].name, tensors[i].type, tensors[i].shape,
                     {reinterpret_cast<const uint8_t*>(values[i].data()), values[i].size() * 4});
  }
  absl::StatusOr<std::string> bytes = writer.Serialize();
  COTERIE_CHECK(bytes.ok(), "a test drafts a file that can be written");
  return *std::move(bytes);
}

}  // namespace coterie::testing
