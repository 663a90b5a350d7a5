#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "core/formats/gguf_file.h"
#include "core/formats/mapped_file.h"
#include "core/formats/tokenizer.h"
#include "experts/arch_spec.h"

namespace coterie {

// What one model consists of on the disk, whatever the format: a GGUF file, a GGUF file in parts,
// or a Hugging Face folder. Everything that loads a model reads it through this. Const after
// construction, thread-safe. Views returned live as long as the object.
class ModelFiles {
 public:
  // Maps the files and checks their tables; reads no tensor. A folder is a Hugging Face folder.
  // Errors name the file: kNotFound, kDataLoss for a damaged one or a part that does not belong,
  // kUnimplemented.
  static absl::StatusOr<std::unique_ptr<const ModelFiles>> Open(absl::string_view path);

  virtual ~ModelFiles() = default;

  // The file or folder that was opened.
  virtual const std::string& path() const = 0;
  // What is mapped, in the order in which a load reads it.
  virtual std::vector<const MappedFile*> mappings() const = 0;
  // Bytes of all tensors.
  virtual int64_t tensor_bytes() const = 0;

  // Tensors go by their GGUF names ("blk.0.attn_q.weight") in every format. kNotFound if there is
  // none of this name.
  virtual bool HasTensor(absl::string_view name) const = 0;
  virtual absl::StatusOr<TensorRef> Find(absl::string_view name) const = 0;

  virtual absl::StatusOr<ArchSpec> ReadSpec() const = 0;
  virtual absl::StatusOr<std::unique_ptr<const Tokenizer>> ReadTokenizer() const = 0;
  // At least what the tokenizer's memory_bytes() will be.
  virtual absl::StatusOr<int64_t> EstimateTokenizerBytes() const = 0;
  // The source of the chat template; empty for a base model without one.
  virtual absl::StatusOr<std::string> ReadChatTemplate() const = 0;
};

// The files that hold the weights of the model at `path`: the file itself, every part of a split
// GGUF file whose first part it is, or the safetensors files of a folder. Looks at names only.
// kNotFound for a path that does not exist or a part that is missing.
absl::StatusOr<std::vector<std::string>> WeightFilesOf(absl::string_view path);

}  // namespace coterie
