#pragma once

// Prompts that a router came with: what its domains look like.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "core/formats/gguf_file.h"
#include "core/formats/gguf_writer.h"
#include "router/corrections.h"
#include "router/domain_model.h"

namespace coterie {

// Vectors and labels of a few hundred prompts; where the licence of a text allows it, the text too.
// They hold their ground against corrections, and the nearest ones explain a decision.
// Const after construction, thread-safe.
class Examples {
 public:
  struct Near {
    const std::string* text = nullptr;
    int label = 0;
    double cosine = 0.0;
  };

  Examples() : prompts_(std::make_shared<const PromptList>()) {}
  // texts: one for each prompt, empty where it is not kept.
  Examples(PromptList prompts, std::vector<std::string> texts);

  // The n nearest prompts whose text is known, nearest first.
  std::vector<Near> Nearest(const PromptVector& vector, size_t n) const;

  const std::shared_ptr<const PromptList>& prompts() const { return prompts_; }
  int64_t memory_bytes() const;

  void AppendTo(GgufWriter& file) const;
  // kDataLoss for anything that does not match the model; no examples if the file has none.
  static absl::StatusOr<Examples> From(const GgufFile& file, const DomainModel& model);

 private:
  std::shared_ptr<const PromptList> prompts_;
  std::vector<std::string> texts_;
};

}  // namespace coterie
