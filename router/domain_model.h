#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "core/formats/gguf_writer.h"
#include "router/domain_scores.h"

namespace coterie {

// A prompt as a vector of length 1, in which similar prompts lie close: sparse with rising indices,
// or dense with no indices.
struct PromptVector {
  std::vector<uint32_t> indices;
  std::vector<float> values;

  // The cosine of two vectors of the same model.
  double Dot(const PromptVector& other) const;
};

// What a model makes of a prompt.
struct ModelReading {
  std::vector<double> logits;  // [n_domains]
  PromptVector vector;         // Empty if asked not to.
};

// A fitted model of either tier, without labels or calibration. Const after construction,
// thread-safe, does no I/O.
class DomainModel {
 public:
  virtual ~DomainModel() = default;

  // Reads a prompt that CutPrompt returned and that is not empty.
  virtual absl::StatusOr<ModelReading> Read(absl::string_view cut, bool want_vector) const = 0;

  // What in the prompt speaks for one domain over another, largest first; empty if the model
  // cannot say.
  virtual std::vector<DecidingFeature> Decide(absl::string_view cut, int domain,
                                              int runner_up) const = 0;

  // "encoder" or "lexical".
  virtual absl::string_view tier() const = 0;

  // Adds keys and tensors; what they view lives as long as the model.
  virtual void AppendTo(GgufWriter& file) const = 0;

  virtual int64_t n_domains() const = 0;
  // Length of a dense PromptVector, or the number of features of a sparse one.
  virtual int64_t vector_size() const = 0;
  virtual bool vector_is_dense() const = 0;
  // How far a correction reaches: the kernel between prompts is exp((cosine - 1) / reach).
  virtual double correction_reach() const = 0;
  virtual int64_t memory_bytes() const = 0;
};

}  // namespace coterie
