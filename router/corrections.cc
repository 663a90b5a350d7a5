#include "router/corrections.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"

namespace coterie {
namespace {

constexpr double kMargin = 2.0;  // Logits by which a corrected label leads.
// A domain that was added begins by so much under the first one, and asks to lead by so much: then
// a prompt is of it if half of what its examples ask for reaches it.
constexpr double kAddedGap = 4.0, kAddedMargin = 4.0;
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
double Shortfall(absl::Span<const double> logits, int label, double margin) {
  double other = -1e30;
  for (size_t d = 0; d < logits.size(); ++d) {
    if (static_cast<int>(d) != label) other = std::max(other, logits[d]);
  }
  return std::max(0.0, other + margin - logits[label]);
}

double MarginOf(const CorrectedPrompt& prompt) {
  const bool is_added = prompt.label >= static_cast<int>(prompt.logits.size());
  return is_added ? kAddedMargin : kMargin;
}

// The arrays router.NAME.PART of a file.
struct PromptArrays {
  const GgufFile& file;
  const absl::string_view name;

  std::string Key(absl::string_view part) const { return absl::StrCat("router.", name, ".", part); }
  auto Ints(absl::string_view part) const { return file.GetIntArray(Key(part)); }
  auto Floats(absl::string_view part) const { return file.GetFloatArray(Key(part)); }
  absl::Status Damaged(absl::string_view what) const {
    return absl::DataLossError(
        absl::StrCat("damaged router file: ", name, ": ", what, ": file=", file.path()));
  }
};

bool AllFinite(absl::Span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

// Takes sparse vectors apart again.
absl::Status ReadVectors(const PromptArrays& in, const DomainModel& model, PromptList& prompts) {
  COTERIE_ASSIGN_OR_RETURN(const auto counts, in.Ints("counts"));
  COTERIE_ASSIGN_OR_RETURN(const auto indices, in.Ints("indices"));
  COTERIE_ASSIGN_OR_RETURN(const auto values, in.Floats("values"));
  if (counts.size() != prompts.size()) return in.Damaged("a count for each prompt is missing");
  if (!AllFinite(values)) return in.Damaged("a vector is not finite");
  const bool dense = model.vector_is_dense();
  if (dense ? !indices.empty() : indices.size() != values.size()) {
    return in.Damaged("vectors are of the wrong kind");
  }
  size_t begin = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    if (counts[i] < 0 || static_cast<uint64_t>(counts[i]) > values.size() - begin ||
        (dense && counts[i] != model.vector_size())) {
      return in.Damaged("a vector has the wrong length");
    }
    PromptVector& vector = prompts[i].vector;
    const auto n = static_cast<size_t>(counts[i]);
    vector.values.assign(values.begin() + begin, values.begin() + begin + n);
    for (size_t k = begin; !dense && k < begin + n; ++k) {
      const bool rises = k == begin || indices[k] > indices[k - 1];
      if (!rises || indices[k] < 0 || indices[k] >= model.vector_size()) {
        return in.Damaged("a vector's indices are out of order or range");
      }
      vector.indices.push_back(static_cast<uint32_t>(indices[k]));
    }
    begin += n;
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<double> Extended(std::vector<double> logits, int64_t n_domains) {
  const double most = *std::max_element(logits.begin(), logits.end());
  logits.resize(n_domains, most - kAddedGap);
  return logits;
}

void AppendPrompts(const PromptList& prompts, absl::string_view name, GgufWriter& file) {
  if (prompts.empty()) return;
  std::vector<int64_t> labels, counts, indices;
  std::vector<float> logits, values;
  for (const CorrectedPrompt& prompt : prompts) {
    labels.push_back(prompt.label);
    counts.push_back(static_cast<int64_t>(prompt.vector.values.size()));
    logits.insert(logits.end(), prompt.logits.begin(), prompt.logits.end());
    indices.insert(indices.end(), prompt.vector.indices.begin(), prompt.vector.indices.end());
    values.insert(values.end(), prompt.vector.values.begin(), prompt.vector.values.end());
  }
  const auto key = [&](absl::string_view part) { return absl::StrCat("router.", name, ".", part); };
  file.SetIntArray(key("labels"), labels);
  file.SetIntArray(key("counts"), counts);
  file.SetIntArray(key("indices"), indices);
  file.SetFloatArray(key("values"), values);
  file.SetFloatArray(key("logits"), logits);
}

absl::StatusOr<PromptList> ReadPrompts(const GgufFile& file, absl::string_view name,
                                       const DomainModel& model, int64_t n_domains,
                                       size_t max_prompts) {
  const PromptArrays in{file, name};
  PromptList prompts;
  if (!file.Has(in.Key("labels"))) return prompts;
  COTERIE_ASSIGN_OR_RETURN(const auto labels, in.Ints("labels"));
  COTERIE_ASSIGN_OR_RETURN(const auto logits, in.Floats("logits"));
  const auto n_fitted = static_cast<size_t>(model.n_domains());
  if (labels.empty() || labels.size() > max_prompts) return in.Damaged("too many or none");
  if (logits.size() != labels.size() * n_fitted || !AllFinite(logits)) {
    return in.Damaged("logits do not match the domains");
  }
  for (size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] < 0 || labels[i] >= n_domains) return in.Damaged("unknown label");
    CorrectedPrompt prompt;
    prompt.label = static_cast<int>(labels[i]);
    prompt.logits.assign(logits.begin() + i * n_fitted, logits.begin() + (i + 1) * n_fitted);
    prompts.push_back(std::move(prompt));
  }
  COTERIE_RETURN_IF_ERROR(ReadVectors(in, model, prompts));
  return prompts;
}

int64_t BytesOf(const PromptList& prompts) {
  int64_t bytes = 0;
  for (const CorrectedPrompt& prompt : prompts) {
    bytes += static_cast<int64_t>(sizeof(prompt) + prompt.logits.capacity() * sizeof(double) +
                                  prompt.vector.indices.capacity() * sizeof(uint32_t) +
                                  prompt.vector.values.capacity() * sizeof(float));
  }
  return bytes;
}

double Corrections::Kernel(const PromptVector& a, const PromptVector& b) const {
  return std::exp((std::min(1.0, a.Dot(b)) - 1.0) / reach_);
}

std::vector<const CorrectedPrompt*> Corrections::All() const {
  std::vector<const CorrectedPrompt*> all;
  for (const CorrectedPrompt& prompt : prompts_) all.push_back(&prompt);
  all.insert(all.end(), kept_anchors_.begin(), kept_anchors_.end());
  return all;
}

// What the user says of a prompt outweighs what the router came with.
void Corrections::KeepAnchors() {
  kept_anchors_.clear();
  if (anchors_ == nullptr) return;
  for (const CorrectedPrompt& anchor : *anchors_) {
    const bool is_corrected =
        std::any_of(prompts_.begin(), prompts_.end(), [&](const CorrectedPrompt& prompt) {
          return prompt.vector.Dot(anchor.vector) > kSamePrompt;
        });
    if (!is_corrected) kept_anchors_.push_back(&anchor);
  }
}

Corrections Corrections::With(PromptList newer, int64_t n_domains) const {
  Corrections result(reach_, anchors_);
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
  result.Solve(n_domains);
  return result;
}

void Corrections::Solve(int64_t n_domains) {
  if (prompts_.empty()) return;
  KeepAnchors();
  const std::vector<const CorrectedPrompt*> all = All();
  const size_t n = all.size();
  const auto width = static_cast<size_t>(n_domains);
  std::vector<double> kernel(n * n);
  std::vector<std::vector<double>> logits;
  std::vector<double> targets(n * width, 0.0);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      kernel[i * n + j] = kernel[j * n + i] = Kernel(all[i]->vector, all[j]->vector);
    }
    logits.push_back(Extended(all[i]->logits, n_domains));
    targets[i * width + all[i]->label] = Shortfall(logits[i], all[i]->label, MarginOf(*all[i]));
  }
  std::vector<double> factor = kernel;
  for (size_t i = 0; i < n; ++i) factor[i * n + i] += kRidge;
  Factor(factor, n);

  // Neighbours with other labels pull a prompt back: those that still do not lead ask for more.
  for (int raise = 0; raise <= kMaxRaises; ++raise) {
    std::vector<double> solution = targets;
    for (size_t d = 0; d < width; ++d) SolveColumn(factor, n, solution.data() + d, width);
    coefficients_.assign(solution.begin(), solution.end());
    bool all_lead = true;
    for (size_t i = 0; i < n; ++i) {
      std::vector<double> fitted = logits[i];
      for (size_t j = 0; j < n; ++j) {
        for (size_t d = 0; d < width; ++d) {
          fitted[d] += kernel[i * n + j] * solution[j * width + d];
        }
      }
      const double margin = MarginOf(*all[i]);
      const double lacking = Shortfall(fitted, all[i]->label, margin);
      if (lacking < 0.75 * margin) continue;
      all_lead = false;
      targets[i * width + all[i]->label] += lacking;
    }
    if (all_lead) break;
  }
}

std::vector<double> Corrections::Delta(const PromptVector& prompt, int64_t n_domains) const {
  std::vector<double> delta(n_domains, 0.0);
  if (prompts_.empty()) return delta;
  const std::vector<const CorrectedPrompt*> all = All();
  for (size_t i = 0; i < all.size(); ++i) {
    const double similarity = Kernel(prompt, all[i]->vector);
    for (int64_t d = 0; d < n_domains; ++d) {
      delta[d] += similarity * coefficients_[i * n_domains + d];
    }
  }
  return delta;
}

int64_t Corrections::memory_bytes() const {
  return static_cast<int64_t>(coefficients_.capacity() * sizeof(float)) + BytesOf(prompts_);
}

}  // namespace coterie
