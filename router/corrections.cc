#include "router/corrections.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"

namespace coterie {
namespace {

constexpr double kMargin = 2.0;  // Logits by which a corrected label leads.
constexpr double kRidge = 0.02;  // Keeps near-equal prompts from needing huge coefficients.
constexpr double kSamePrompt = 0.99999;
constexpr int kMaxRaises = 4;

// Replaces the symmetric positive definite matrix a [n, n] by its lower Cholesky factor.
void Factor(std::vector<double>& a, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      double sum = a[i * n + j];
      for (size_t k = 0; k < j; ++k) sum -= a[i * n + k] * a[j * n + k];
      a[i * n + j] = i == j ? std::sqrt(std::max(sum, 1e-12)) : sum / a[j * n + j];
    }
  }
}

// Solves a x = b in place for one column of b, strided; a as Factor left it.
void SolveColumn(const std::vector<double>& a, size_t n, double* b, size_t stride) {
  for (size_t i = 0; i < n; ++i) {
    double sum = b[i * stride];
    for (size_t k = 0; k < i; ++k) sum -= a[i * n + k] * b[k * stride];
    b[i * stride] = sum / a[i * n + i];
  }
  for (size_t i = n; i-- > 0;) {
    double sum = b[i * stride];
    for (size_t k = i + 1; k < n; ++k) sum -= a[k * n + i] * b[k * stride];
    b[i * stride] = sum / a[i * n + i];
  }
}

// How much the label's logit lacks to lead the others by the margin; 0 if it leads by more.
double Shortfall(absl::Span<const double> logits, int label) {
  double other = -1e30;
  for (size_t d = 0; d < logits.size(); ++d) {
    if (static_cast<int>(d) != label) other = std::max(other, logits[d]);
  }
  return std::max(0.0, other + kMargin - logits[label]);
}

absl::Status Damaged(const GgufFile& file, absl::string_view what) {
  return absl::DataLossError(
      absl::StrCat("damaged router file: corrections: ", what, ": file=", file.path()));
}

bool AllFinite(absl::Span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

// Takes sparse vectors apart again.
absl::Status ReadVectors(const GgufFile& file, const DomainModel& model,
                         std::vector<CorrectedPrompt>& prompts) {
  COTERIE_ASSIGN_OR_RETURN(const auto counts, file.GetIntArray("router.corrections.counts"));
  COTERIE_ASSIGN_OR_RETURN(const auto indices, file.GetIntArray("router.corrections.indices"));
  COTERIE_ASSIGN_OR_RETURN(const auto values, file.GetFloatArray("router.corrections.values"));
  if (counts.size() != prompts.size()) return Damaged(file, "a count for each prompt is missing");
  if (!AllFinite(values)) return Damaged(file, "a vector is not finite");
  const bool dense = model.vector_is_dense();
  if (dense ? !indices.empty() : indices.size() != values.size()) {
    return Damaged(file, "vectors are of the wrong kind");
  }
  size_t begin = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    if (counts[i] < 0 || static_cast<uint64_t>(counts[i]) > values.size() - begin ||
        (dense && counts[i] != model.vector_size())) {
      return Damaged(file, "a vector has the wrong length");
    }
    PromptVector& vector = prompts[i].vector;
    const auto n = static_cast<size_t>(counts[i]);
    vector.values.assign(values.begin() + begin, values.begin() + begin + n);
    for (size_t k = begin; !dense && k < begin + n; ++k) {
      const bool rises = k == begin || indices[k] > indices[k - 1];
      if (!rises || indices[k] < 0 || indices[k] >= model.vector_size()) {
        return Damaged(file, "a vector's indices are out of order or range");
      }
      vector.indices.push_back(static_cast<uint32_t>(indices[k]));
    }
    begin += n;
  }
  return absl::OkStatus();
}

}  // namespace

double Corrections::Kernel(const PromptVector& a, const PromptVector& b) const {
  return std::exp((std::min(1.0, a.Dot(b)) - 1.0) / reach_);
}

Corrections Corrections::With(std::vector<CorrectedPrompt> newer, double reach) const {
  Corrections result;
  result.reach_ = reach;
  result.prompts_ = prompts_;
  for (CorrectedPrompt& prompt : newer) {
    std::erase_if(result.prompts_, [&](const CorrectedPrompt& old) {
      return old.vector.Dot(prompt.vector) > kSamePrompt;
    });
    result.prompts_.push_back(std::move(prompt));
  }
  if (result.size() > kMaxPrompts) {
    result.prompts_.erase(result.prompts_.begin(), result.prompts_.end() - kMaxPrompts);
  }
  result.Solve();
  return result;
}

std::vector<double> Corrections::Fitted(const std::vector<double>& kernel, size_t prompt) const {
  std::vector<double> logits = prompts_[prompt].logits;
  for (size_t j = 0; j < prompts_.size(); ++j) {
    const double similarity = kernel[prompt * prompts_.size() + j];
    for (size_t d = 0; d < logits.size(); ++d) {
      logits[d] += similarity * coefficients_[j * logits.size() + d];
    }
  }
  return logits;
}

void Corrections::Solve() {
  const size_t n = prompts_.size();
  if (n == 0) return;
  const size_t n_domains = prompts_.front().logits.size();
  std::vector<double> kernel(n * n);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      kernel[i * n + j] = kernel[j * n + i] = Kernel(prompts_[i].vector, prompts_[j].vector);
    }
  }
  std::vector<double> factor = kernel;
  for (size_t i = 0; i < n; ++i) factor[i * n + i] += kRidge;
  Factor(factor, n);

  std::vector<double> targets(n * n_domains, 0.0);
  for (size_t i = 0; i < n; ++i) {
    targets[i * n_domains + prompts_[i].label] = Shortfall(prompts_[i].logits, prompts_[i].label);
  }
  // Neighbours with other labels pull a prompt back: those that still do not lead ask for more.
  for (int raise = 0; raise <= kMaxRaises; ++raise) {
    std::vector<double> solution = targets;
    for (size_t d = 0; d < n_domains; ++d) SolveColumn(factor, n, solution.data() + d, n_domains);
    coefficients_.assign(solution.begin(), solution.end());
    bool all_lead = true;
    for (size_t i = 0; i < n; ++i) {
      const double lacking = Shortfall(Fitted(kernel, i), prompts_[i].label);
      if (lacking < 0.75 * kMargin) continue;
      all_lead = false;
      targets[i * n_domains + prompts_[i].label] += lacking;
    }
    if (all_lead) break;
  }
}

std::vector<double> Corrections::Delta(const PromptVector& prompt, int64_t n_domains) const {
  std::vector<double> delta(n_domains, 0.0);
  for (size_t i = 0; i < prompts_.size(); ++i) {
    const double similarity = Kernel(prompt, prompts_[i].vector);
    for (int64_t d = 0; d < n_domains; ++d) {
      delta[d] += similarity * coefficients_[i * n_domains + d];
    }
  }
  return delta;
}

int64_t Corrections::memory_bytes() const {
  int64_t bytes = static_cast<int64_t>(coefficients_.capacity() * sizeof(float));
  for (const CorrectedPrompt& prompt : prompts_) {
    bytes += static_cast<int64_t>(sizeof(prompt) + prompt.logits.capacity() * sizeof(double) +
                                  prompt.vector.indices.capacity() * sizeof(uint32_t) +
                                  prompt.vector.values.capacity() * sizeof(float));
  }
  return bytes;
}

void Corrections::AppendTo(GgufWriter& file) const {
  if (prompts_.empty()) return;
  std::vector<int64_t> labels, counts, indices;
  std::vector<float> logits, values;
  for (const CorrectedPrompt& prompt : prompts_) {
    labels.push_back(prompt.label);
    counts.push_back(static_cast<int64_t>(prompt.vector.values.size()));
    logits.insert(logits.end(), prompt.logits.begin(), prompt.logits.end());
    indices.insert(indices.end(), prompt.vector.indices.begin(), prompt.vector.indices.end());
    values.insert(values.end(), prompt.vector.values.begin(), prompt.vector.values.end());
  }
  file.SetIntArray("router.corrections.labels", labels);
  file.SetIntArray("router.corrections.counts", counts);
  file.SetIntArray("router.corrections.indices", indices);
  file.SetFloatArray("router.corrections.values", values);
  file.SetFloatArray("router.corrections.logits", logits);
}

absl::StatusOr<Corrections> Corrections::From(const GgufFile& file, const DomainModel& model) {
  Corrections result;
  if (!file.Has("router.corrections.labels")) return result;
  COTERIE_ASSIGN_OR_RETURN(const auto labels, file.GetIntArray("router.corrections.labels"));
  COTERIE_ASSIGN_OR_RETURN(const auto logits, file.GetFloatArray("router.corrections.logits"));
  const auto n_domains = static_cast<size_t>(model.n_domains());
  if (labels.empty() || labels.size() > kMaxPrompts) return Damaged(file, "too many or none");
  if (logits.size() != labels.size() * n_domains || !AllFinite(logits)) {
    return Damaged(file, "logits do not match the domains");
  }
  for (size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] < 0 || labels[i] >= model.n_domains()) return Damaged(file, "unknown label");
    CorrectedPrompt prompt;
    prompt.label = static_cast<int>(labels[i]);
    prompt.logits.assign(logits.begin() + i * n_domains, logits.begin() + (i + 1) * n_domains);
    result.prompts_.push_back(std::move(prompt));
  }
  COTERIE_RETURN_IF_ERROR(ReadVectors(file, model, result.prompts_));
  result.reach_ = model.correction_reach();
  result.Solve();
  return result;
}

}  // namespace coterie
