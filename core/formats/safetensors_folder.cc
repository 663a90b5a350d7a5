#include "core/formats/safetensors_folder.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "core/formats/json_file.h"

namespace coterie {
namespace {

constexpr absl::string_view kSingleFile = "model.safetensors";
constexpr absl::string_view kIndexFile = "model.safetensors.index.json";
// About ten thousand tensors. It bounds what reading the index takes.
constexpr int64_t kMaxIndexBytes = 1 << 20;

std::string PathIn(absl::string_view folder, absl::string_view name) {
  return absl::StrCat(folder, absl::EndsWith(folder, "/") ? "" : "/", name);
}

bool Exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

// A file in the same folder and nothing else.
bool IsPlainShardName(absl::string_view name) {
  return absl::EndsWith(name, ".safetensors") && name.size() <= 255 && name[0] != '.' &&
         name.find_first_of(absl::string_view("/\\\0", 3)) == absl::string_view::npos;
}

using WeightMap = std::map<std::string, std::string>;  // Tensor to shard.

absl::StatusOr<WeightMap> ReadIndex(const std::string& path) {
  COTERIE_ASSIGN_OR_RETURN(const nlohmann::json index, ReadJsonFile(path, kMaxIndexBytes));
  const auto entries = index.find("weight_map");
  if (entries == index.end() || !entries->is_object() || entries->empty()) {
    return absl::DataLossError(
        absl::StrCat("the index of shards has no \"weight_map\" of tensors: file=", path));
  }
  WeightMap shard_of;
  for (const auto& [tensor, shard] : entries->items()) {
    if (!shard.is_string() || !IsPlainShardName(shard.get_ref<const std::string&>())) {
      return absl::DataLossError(
          absl::StrCat("the index of shards names a file that is no .safetensors file of its own "
                       "folder: tensor=",
                       absl::CHexEscape(tensor.substr(0, 80)), ", file=", path));
    }
    shard_of[tensor] = shard.get<std::string>();
  }
  return shard_of;
}

absl::Status Missing(absl::string_view folder) {
  return absl::NotFoundError(absl::StrCat("the folder holds neither ", kSingleFile, " nor ",
                                          kIndexFile, ": folder=", folder));
}

}  // namespace

absl::StatusOr<std::vector<std::string>> SafetensorsFolder::FilesOf(absl::string_view folder) {
  const std::string single = PathIn(folder, kSingleFile);
  if (Exists(single)) return std::vector<std::string>{single};
  const std::string index = PathIn(folder, kIndexFile);
  if (!Exists(index)) return Missing(folder);
  COTERIE_ASSIGN_OR_RETURN(const WeightMap shard_of, ReadIndex(index));
  std::map<std::string, bool> shards;
  for (const auto& [tensor, shard] : shard_of) shards[PathIn(folder, shard)] = true;
  std::vector<std::string> paths;
  for (const auto& [path, ignored] : shards) {
    if (!Exists(path)) {
      return absl::NotFoundError(
          absl::StrCat("a shard that the index names is missing: file=", path, ", index=", index));
    }
    paths.push_back(path);
  }
  return paths;
}

absl::StatusOr<std::unique_ptr<const SafetensorsFolder>> SafetensorsFolder::Open(
    absl::string_view path) {
  std::unique_ptr<SafetensorsFolder> folder(new SafetensorsFolder);
  folder->folder_ = std::string(path);
  COTERIE_ASSIGN_OR_RETURN(const std::vector<std::string> paths, FilesOf(path));
  std::map<std::string, const SafetensorsFile*> by_path;
  for (const std::string& one : paths) {
    COTERIE_ASSIGN_OR_RETURN(std::unique_ptr<const SafetensorsFile> file,
                             SafetensorsFile::Open(one));
    by_path[one] = file.get();
    folder->tensor_bytes_ += file->tensor_bytes();
    folder->files_.push_back(std::move(file));
  }
  if (paths.front() == PathIn(path, kSingleFile)) {
    const SafetensorsFile* const file = folder->files_.front().get();
    for (const absl::string_view name : file->TensorNames()) {
      folder->file_of_.emplace(std::string(name), file);
    }
    return std::unique_ptr<const SafetensorsFolder>(std::move(folder));
  }
  COTERIE_ASSIGN_OR_RETURN(const WeightMap shard_of, ReadIndex(PathIn(path, kIndexFile)));
  for (const auto& [tensor, shard] : shard_of) {
    const auto file = by_path.find(PathIn(path, shard));
    if (file == by_path.end() || !file->second->Has(tensor)) {
      return absl::DataLossError(
          absl::StrCat("a shard lacks a tensor that the index promises: tensor=",
                       absl::CHexEscape(tensor.substr(0, 80)), ", file=", PathIn(path, shard),
                       ", index=", PathIn(path, kIndexFile)));
    }
    folder->file_of_.emplace(tensor, file->second);
  }
  return std::unique_ptr<const SafetensorsFolder>(std::move(folder));
}

absl::StatusOr<SafetensorsTensor> SafetensorsFolder::Find(absl::string_view name) const {
  const auto it = file_of_.find(name);
  if (it == file_of_.end()) {
    return absl::NotFoundError(
        absl::StrCat("tensor is missing: tensor=", name, ", folder=", folder_));
  }
  return it->second->Find(name);
}

std::vector<absl::string_view> SafetensorsFolder::TensorNames() const {
  std::vector<absl::string_view> names;
  for (const auto& [name, file] : file_of_) names.push_back(name);
  return names;
}

std::vector<const MappedFile*> SafetensorsFolder::mappings() const {
  std::vector<const MappedFile*> mappings;
  for (const auto& file : files_) mappings.push_back(file->mapping());
  return mappings;
}

}  // namespace coterie
