#pragma once

// What the user corrected: a layer over a fitted model that changes its mind near the corrected
// prompts and nowhere else.

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "core/formats/gguf_file.h"
#include "core/formats/gguf_writer.h"
#include "router/domain_model.h"

namespace coterie {

// A prompt with the domain that the user gave it. Its text is not kept.
struct CorrectedPrompt {
  PromptVector vector;
  std::vector<double> logits;  // What the model itself said.
  int label = 0;
};

// Kernel ridge regression on what the model's logits lack: each prompt asks that its label lead by
// a margin (nothing, if it does already: such prompts hold their ground), and
//
//   delta(x) = sum_i coefficient_i * exp((cos(x, x_i) - 1) / reach)
//
// with the coefficients that fulfil all of these at once. Const after construction, thread-safe.
class Corrections {
 public:
  // The oldest are forgotten beyond this number; solving takes time cubic in it (1000: a third of a
  // second).
  static constexpr int64_t kMaxPrompts = 1000;

  Corrections() = default;

  // These corrections and newer ones. A prompt that was corrected before is replaced.
  Corrections With(std::vector<CorrectedPrompt> newer, double reach) const;

  // What to add to the logits of a prompt; all zeros without corrections.
  std::vector<double> Delta(const PromptVector& prompt, int64_t n_domains) const;

  int64_t size() const { return static_cast<int64_t>(prompts_.size()); }
  int64_t memory_bytes() const;

  void AppendTo(GgufWriter& file) const;
  // Reads what AppendTo wrote; no corrections if the file has none. kDataLoss for anything that
  // does not match the model.
  static absl::StatusOr<Corrections> From(const GgufFile& file, const DomainModel& model);

 private:
  void Solve();
  double Kernel(const PromptVector& a, const PromptVector& b) const;
  std::vector<double> Fitted(const std::vector<double>& kernel, size_t prompt) const;

  std::vector<CorrectedPrompt> prompts_;
  std::vector<float> coefficients_;  // [n_prompts, n_domains]
  double reach_ = 1.0;
};

}  // namespace coterie
