#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/formats/gguf_file.h"
#include "experts/model_files.h"

namespace coterie {

// A GGUF file, or one in parts, as ModelFiles. Const after construction, thread-safe.
class GgufModelFiles : public ModelFiles {
 public:
  explicit GgufModelFiles(std::unique_ptr<const GgufFile> file) : file_(std::move(file)) {}

  const std::string& path() const override { return file_->path(); }
  std::vector<const MappedFile*> mappings() const override { return file_->mappings(); }
  int64_t tensor_bytes() const override { return file_->tensor_bytes(); }
  bool HasTensor(absl::string_view name) const override { return file_->HasTensor(name); }
  absl::StatusOr<TensorRef> Find(absl::string_view name) const override {
    return file_->Find(name);
  }
  absl::StatusOr<ArchSpec> ReadSpec() const override { return ArchSpec::FromGguf(*file_); }
  absl::StatusOr<std::unique_ptr<const Tokenizer>> ReadTokenizer() const override {
    return Tokenizer::FromGguf(*file_);
  }
  absl::StatusOr<int64_t> EstimateTokenizerBytes() const override {
    return Tokenizer::EstimateBytes(*file_);
  }
  absl::StatusOr<std::string> ReadChatTemplate() const override;

 private:
  std::unique_ptr<const GgufFile> file_;
};

}  // namespace coterie
