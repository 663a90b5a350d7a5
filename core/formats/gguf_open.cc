// How a GgufFile is opened: one file, or the parts of a split one (llama.cpp:tools/gguf-split). The
// first part has all keys; every part has split.no (from 0), split.count and split.tensors.count.

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"

#include "core/base/status_macros.h"
#include "core/formats/gguf_file.h"

namespace coterie {
namespace {

constexpr absl::string_view kFirstPart = "-00001-of-";
constexpr absl::string_view kEnding = ".gguf";
constexpr size_t kCountDigits = 5;

}  // namespace

std::vector<std::string> GgufPartPaths(absl::string_view path) {
  std::vector<std::string> paths = {std::string(path)};
  const size_t n_suffix = kFirstPart.size() + kCountDigits + kEnding.size();
  if (path.size() <= n_suffix || !absl::EndsWith(path, kEnding)) return paths;
  const absl::string_view stem = path.substr(0, path.size() - n_suffix);
  const absl::string_view suffix = path.substr(stem.size());
  const absl::string_view digits = suffix.substr(kFirstPart.size(), kCountDigits);
  int n_parts = 0;
  if (!absl::StartsWith(suffix, kFirstPart) || !absl::SimpleAtoi(digits, &n_parts)) return paths;
  for (int part = 2; part <= n_parts; ++part) {
    paths.push_back(absl::StrFormat("%s-%05d-of-%s%s", stem, part, digits, kEnding));
  }
  return paths;
}

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::OpenOne(absl::string_view path) {
  COTERIE_ASSIGN_OR_RETURN(MappedFile mapping, MappedFile::Open(path));
  auto file = std::unique_ptr<GgufFile>(new GgufFile());
  file->mapping_ = std::make_unique<MappedFile>(std::move(mapping));
  file->path_ = std::string(path);
  COTERIE_RETURN_IF_ERROR(file->Read(file->mapping_->bytes()));
  return file;
}

absl::StatusOr<std::unique_ptr<const GgufFile>> GgufFile::Open(absl::string_view path) {
  COTERIE_ASSIGN_OR_RETURN(std::unique_ptr<GgufFile> file, OpenOne(path));
  COTERIE_RETURN_IF_ERROR(file->AddParts());
  return std::unique_ptr<const GgufFile>(std::move(file));
}

absl::StatusOr<std::unique_ptr<const GgufFile>> GgufFile::Parse(absl::Span<const uint8_t> bytes,
                                                                absl::string_view name) {
  auto file = std::unique_ptr<GgufFile>(new GgufFile());
  file->path_ = std::string(name);
  COTERIE_RETURN_IF_ERROR(file->Read(bytes));
  return std::unique_ptr<const GgufFile>(std::move(file));
}

absl::Status GgufFile::AddParts() {
  COTERIE_ASSIGN_OR_RETURN(const int64_t n_parts, GetInt("split.count", 1));
  COTERIE_ASSIGN_OR_RETURN(const int64_t index, GetInt("split.no", 0));
  // gguf-split --merge leaves a count of 0.
  if (n_parts < 0 || index < 0 || index >= std::max<int64_t>(1, n_parts)) {
    return absl::DataLossError(absl::StrCat("a GGUF file is no part of a split one: split.no=",
                                            index, ", split.count=", n_parts, ", file=", path_));
  }
  if (n_parts <= 1) return absl::OkStatus();
  if (index != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "this is not the first part of a split GGUF file; open the one whose name ends "
        "in -00001-of-NNNNN.gguf: part=",
        index + 1, " of ", n_parts, ", file=", path_));
  }
  const std::vector<std::string> paths = GgufPartPaths(path_);
  if (static_cast<int64_t>(paths.size()) != n_parts) {
    return absl::DataLossError(absl::StrCat(
        "the first part of a split GGUF file must be named NAME-00001-of-NNNNN.gguf, with the "
        "number of parts, for the others to be found: parts=",
        n_parts, ", file=", path_));
  }
  for (int64_t i = 1; i < n_parts; ++i) {
    absl::StatusOr<std::unique_ptr<GgufFile>> part = OpenOne(paths[static_cast<size_t>(i)]);
    if (absl::IsNotFound(part.status())) {
      return absl::NotFoundError(
          absl::StrCat("a part of a split GGUF file is missing: part=", i + 1, " of ", n_parts,
                       ", file=", paths[static_cast<size_t>(i)]));
    }
    COTERIE_RETURN_IF_ERROR(part.status());
    COTERIE_RETURN_IF_ERROR(AddPart(*std::move(part), i, n_parts));
  }
  COTERIE_ASSIGN_OR_RETURN(const int64_t n_tensors, GetInt("split.tensors.count"));
  if (static_cast<int64_t>(tensors_.size()) == n_tensors) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      "the parts of a split GGUF file do not hold all of its tensors: announced=", n_tensors,
      ", found=", tensors_.size(), ", file=", path_));
}

absl::Status GgufFile::AddPart(std::unique_ptr<const GgufFile> part, int64_t index,
                               int64_t n_parts) {
  COTERIE_ASSIGN_OR_RETURN(const int64_t own_index, part->GetInt("split.no", -1));
  COTERIE_ASSIGN_OR_RETURN(const int64_t own_count, part->GetInt("split.count", -1));
  COTERIE_ASSIGN_OR_RETURN(const int64_t own_total, part->GetInt("split.tensors.count", -1));
  COTERIE_ASSIGN_OR_RETURN(const int64_t total, GetInt("split.tensors.count"));
  if (own_index != index || own_count != n_parts || own_total != total) {
    return absl::DataLossError(absl::StrCat(
        "a part does not belong to this split GGUF file: split.no=", own_index, " (wanted ", index,
        "), split.count=", own_count, " (wanted ", n_parts, "), split.tensors.count=", own_total,
        " (wanted ", total, "), file=", part->path(), ", first part=", path_));
  }
  for (const TensorRef& tensor : part->tensors_) {
    if (!tensor_index_.emplace(tensor.name, tensors_.size()).second) {
      return absl::DataLossError(
          absl::StrCat("a tensor stands in two parts of a split GGUF file: tensor=", tensor.name,
                       ", file=", part->path(), ", first part=", path_));
    }
    tensors_.push_back(tensor);
  }
  tensor_bytes_ += part->tensor_bytes_;
  parts_.push_back(std::move(part));
  return absl::OkStatus();
}

int64_t GgufFile::size() const {
  int64_t size = static_cast<int64_t>(bytes_.size());
  for (const auto& part : parts_) size += part->size();
  return size;
}

std::vector<const MappedFile*> GgufFile::mappings() const {
  std::vector<const MappedFile*> mappings;
  if (mapping_ != nullptr) mappings.push_back(mapping_.get());
  for (const auto& part : parts_) mappings.push_back(part->mapping_.get());
  return mappings;
}

}  // namespace coterie
