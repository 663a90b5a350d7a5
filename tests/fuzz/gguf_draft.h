#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "core/kernels/tensor_type.h"

namespace coterie::testing {

// A GGUF file to be: keys and tensors that a test may replace or drop before it is written.
class GgufDraft {
 public:
  using Value = std::variant<std::string, int64_t, double, bool, std::vector<std::string>,
                             std::vector<int64_t>, std::vector<float>>;

  GgufDraft& Set(const std::string& key, Value value);
  GgufDraft& Drop(const std::string& key);
  // Small weights that depend on the name alone.
  GgufDraft& SetTensor(const std::string& name, TensorType type, std::vector<int64_t> shape);
  GgufDraft& SetTensor(const std::string& name, TensorType type, std::vector<int64_t> shape,
                       std::string bytes);
  GgufDraft& DropTensor(const std::string& name);

  const Value& at(const std::string& key) const { return values_.at(key); }
  std::string Bytes() const;
  void Write(const std::string& path) const;

 private:
  struct Tensor {
    TensorType type;
    std::vector<int64_t> shape;
    std::string bytes;
  };

  std::map<std::string, Value> values_;
  std::map<std::string, Tensor> tensors_;
};

// A valid llama of one layer that speaks ASCII, with a chat template: 30 kB. The second has a
// tokenizer in the style of SentencePiece in place of a byte-level one.
GgufDraft TinyModel();
GgufDraft TinySentencePieceModel();
// Valid routers of the two tiers over the domains "code" and "general".
GgufDraft TinyLexicalRouter();
GgufDraft TinyEncoderRouter();

}  // namespace coterie::testing
