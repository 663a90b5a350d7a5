#pragma once

// What the user corrected: a layer over a fitted model that changes its mind near the corrected
// prompts and nowhere else.

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "core/formats/gguf_file.h"
#include "core/formats/gguf_writer.h"
#include "router/domain_model.h"

namespace coterie {

// A prompt with the domain that it belongs to. Its text is not needed.
struct CorrectedPrompt {
  PromptVector vector;
  std::vector<double> logits;  // What the model itself said, about the domains it was fitted to.
  int label = 0;
};

using PromptList = std::vector<CorrectedPrompt>;

// Adds arrays router.NAME.*, nothing for no prompts.
void AppendPrompts(const PromptList& prompts, absl::string_view name, GgufWriter& file);
// Reads what AppendPrompts wrote; none if the file has none. kDataLoss for more than max_prompts, a
// label not in [0, n_domains), or anything that does not match the model.
absl::StatusOr<PromptList> ReadPrompts(const GgufFile& file, absl::string_view name,
                                       const DomainModel& model, int64_t n_domains,
                                       size_t max_prompts);
int64_t BytesOf(const PromptList& prompts);

// What a model says about n_domains domains of which it was fitted to the first ones only: those
// that were added begin well under its most likely one.
std::vector<double> Extended(std::vector<double> logits, int64_t n_domains);

// Kernel ridge regression on what the model's logits lack: each prompt asks that its label lead by
// a margin (nothing, if it does already: such prompts hold their ground), and
//
//   delta(x) = sum_i coefficient_i * exp((cos(x, x_i) - 1) / reach)
//
// with the coefficients that fulfil all of these at once. Anchors are prompts that the router came
// with: they hold their ground too, so that corrections change what they are about and not the
// domains around it. Const after construction, thread-safe.
class Corrections {
 public:
  // The oldest are forgotten beyond this number; solving takes time cubic in it and the anchors
  // (1000: a third of a second).
  static constexpr int64_t kMaxPrompts = 1000;
  static constexpr size_t kMaxAnchors = 500;

  Corrections() = default;
  // None yet. anchors may be null.
  Corrections(double reach, std::shared_ptr<const PromptList> anchors)
      : anchors_(std::move(anchors)), reach_(reach) {}

  // These corrections and newer ones, over n_domains domains. A prompt that was corrected before is
  // replaced.
  Corrections With(PromptList newer, int64_t n_domains) const;

  // What to add to the logits of a prompt; all zeros without corrections.
  std::vector<double> Delta(const PromptVector& prompt, int64_t n_domains) const;

  int64_t size() const { return static_cast<int64_t>(prompts_.size()); }
  // Without the anchors, which are shared.
  int64_t memory_bytes() const;
  const PromptList& prompts() const { return prompts_; }

 private:
  void Solve(int64_t n_domains);
  double Kernel(const PromptVector& a, const PromptVector& b) const;
  void KeepAnchors();
  // The corrections, then the anchors kept.
  std::vector<const CorrectedPrompt*> All() const;

  PromptList prompts_;
  std::shared_ptr<const PromptList> anchors_;
  std::vector<const CorrectedPrompt*> kept_anchors_;  // In *anchors_.
  std::vector<float> coefficients_;                   // [n_prompts + n_kept_anchors, n_domains]
  double reach_ = 1.0;
};

}  // namespace coterie
