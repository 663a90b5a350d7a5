#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "core/formats/mapped_file.h"
#include "core/formats/safetensors_file.h"

namespace coterie {

// The safetensors files of a model folder as Hugging Face writes them: model.safetensors, or the
// shards of which model.safetensors.index.json says who holds which tensor ("weight_map"). Const
// after construction, thread-safe. Views returned live as long as the object.
class SafetensorsFolder {
 public:
  // Errors name the file: kNotFound if there is neither a file nor an index, or a shard is missing;
  // kDataLoss for a damaged file, an index that is not of the form, a shard's name that is not a
  // plain name of a .safetensors file in the same folder, and a shard that lacks a tensor which the
  // index promises.
  static absl::StatusOr<std::unique_ptr<const SafetensorsFolder>> Open(absl::string_view folder);
  // The paths of the files that Open would map, in order of their names; checks names only.
  static absl::StatusOr<std::vector<std::string>> FilesOf(absl::string_view folder);

  // kNotFound naming folder and tensor if there is no such tensor.
  absl::StatusOr<SafetensorsTensor> Find(absl::string_view name) const;
  bool Has(absl::string_view name) const { return file_of_.count(name) > 0; }
  std::vector<absl::string_view> TensorNames() const;  // Sorted.

  int64_t tensor_bytes() const { return tensor_bytes_; }
  std::vector<const MappedFile*> mappings() const;  // One a file.

 private:
  SafetensorsFolder() = default;

  std::string folder_;
  std::vector<std::unique_ptr<const SafetensorsFile>> files_;
  std::map<std::string, const SafetensorsFile*, std::less<>> file_of_;
  int64_t tensor_bytes_ = 0;
};

}  // namespace coterie
