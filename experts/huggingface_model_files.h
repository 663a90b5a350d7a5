#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/formats/safetensors_folder.h"
#include "experts/model_files.h"

namespace coterie {

// A Hugging Face folder as ModelFiles: config.json, model.safetensors or its shards,
// tokenizer.json, and where they are there tokenizer_config.json, generation_config.json and
// chat_template.jinja. Const after construction, thread-safe.
class HuggingFaceModelFiles : public ModelFiles {
 public:
  static absl::StatusOr<std::unique_ptr<const ModelFiles>> Open(absl::string_view folder);

  const std::string& path() const override { return path_; }
  std::vector<const MappedFile*> mappings() const override { return tensors_->mappings(); }
  int64_t tensor_bytes() const override { return tensors_->tensor_bytes(); }
  bool HasTensor(absl::string_view name) const override;
  absl::StatusOr<TensorRef> Find(absl::string_view name) const override;
  absl::StatusOr<ArchSpec> ReadSpec() const override { return spec_; }
  absl::StatusOr<std::unique_ptr<const Tokenizer>> ReadTokenizer() const override;
  absl::StatusOr<int64_t> EstimateTokenizerBytes() const override;
  absl::StatusOr<std::string> ReadChatTemplate() const override;

 private:
  HuggingFaceModelFiles() = default;
  // Hugging Face's name of a tensor, or "" if it has none.
  std::string NameOf(absl::string_view gguf_name) const;

  std::string path_;
  ArchSpec spec_;
  bool is_tied_ = false;  // The head is the embedding, whatever the files hold.
  std::unique_ptr<const SafetensorsFolder> tensors_;
};

}  // namespace coterie
