#include "experts/model_files.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "experts/gguf_model_files.h"
#include "experts/huggingface_model_files.h"

namespace coterie {

namespace fs = std::filesystem;

namespace {

bool IsFolder(absl::string_view path) {
  std::error_code error;
  return fs::is_directory(std::string(path), error);
}

}  // namespace

absl::StatusOr<std::unique_ptr<const ModelFiles>> ModelFiles::Open(absl::string_view path) {
  if (IsFolder(path)) return HuggingFaceModelFiles::Open(path);
  COTERIE_ASSIGN_OR_RETURN(std::unique_ptr<const GgufFile> file, GgufFile::Open(path));
  return std::make_unique<const GgufModelFiles>(std::move(file));
}

absl::StatusOr<std::vector<std::string>> WeightFilesOf(absl::string_view path) {
  if (IsFolder(path)) return SafetensorsFolder::FilesOf(path);
  std::vector<std::string> files = GgufPartPaths(path);
  for (const std::string& file : files) {
    std::error_code error;
    if (fs::exists(file, error)) continue;
    return absl::NotFoundError(absl::StrCat("a model file is missing: file=", file));
  }
  return files;
}

absl::StatusOr<std::string> GgufModelFiles::ReadChatTemplate() const {
  COTERIE_ASSIGN_OR_RETURN(const absl::string_view source,
                           file_->GetString("tokenizer.chat_template", ""));
  return std::string(source);
}

}  // namespace coterie
