#include "router/lexical_fit.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <unordered_map>
#include <utility>

#include "core/base/check.h"

namespace coterie {
namespace {

constexpr int kMinRows = 2;  // A feature of a single prompt says nothing about others.
constexpr size_t kMaxFeatures = 400'000;
constexpr int kMaxPasses = 20;
constexpr double kCost = 2.0;
constexpr double kTolerance = 0.05;  // Largest projected gradient at which a fit is done.

// The features that enough rows have, with their inverse document frequencies.
LexicalVocabulary BuildVocabulary(absl::Span<const LexicalRow> rows) {
  std::unordered_map<uint32_t, uint32_t> n_rows_with;
  n_rows_with.reserve(1 << 20);
  std::vector<uint32_t> of_row;
  for (const LexicalRow& row : rows) {
    of_row.clear();
    ForEachFeature(row.cut, [&](const TextFeature& f) { of_row.push_back(f.hash); });
    std::sort(of_row.begin(), of_row.end());
    of_row.erase(std::unique(of_row.begin(), of_row.end()), of_row.end());
    for (const uint32_t hash : of_row) ++n_rows_with[hash];
  }
  // Of two or three rows, every feature they have counts.
  const uint32_t min_rows = rows.size() < 20 ? 1 : kMinRows;
  std::vector<std::pair<uint32_t, uint32_t>> kept;  // Rows with it, hash.
  for (const auto& [hash, count] : n_rows_with) {
    if (count >= min_rows) kept.emplace_back(count, hash);
  }
  if (kept.size() > kMaxFeatures) {
    std::sort(kept.begin(), kept.end(), std::greater<>());
    kept.resize(kMaxFeatures);
  }
  std::sort(kept.begin(), kept.end(),
            [](const auto& a, const auto& b) { return a.second < b.second; });
  std::vector<uint32_t> hashes;
  std::vector<float> idf;
  for (const auto& [count, hash] : kept) {
    hashes.push_back(hash);
    idf.push_back(static_cast<float>(std::log((1.0 + rows.size()) / (1.0 + count)) + 1.0));
  }
  return LexicalVocabulary(std::move(hashes), std::move(idf));
}

// The dual problem of all labels at once. Weights lie label by label within a feature, so that one
// visit to a row serves every label.
class DualDescent {
 public:
  DualDescent(std::vector<PromptVector> vectors, absl::Span<const LexicalRow> rows,
              int64_t n_features, int n_labels)
      : vectors_(std::move(vectors)),
        rows_(rows),
        n_labels_(n_labels),
        // One more feature, 1 in every row: the bias.
        weights_((n_features + 1) * n_labels, 0.0f),
        alphas_(rows.size() * n_labels, 0.0f),
        margins_(n_labels),
        steps_(n_labels) {}

  void Run() {
    std::vector<size_t> order(rows_.size());
    std::iota(order.begin(), order.end(), 0);
    std::mt19937 random(1);
    for (int pass = 0; pass < kMaxPasses; ++pass) {
      std::shuffle(order.begin(), order.end(), random);
      double largest = 0.0;
      for (const size_t row : order) largest = std::max(largest, Visit(row));
      if (largest < kTolerance) break;
    }
  }

  std::vector<float> TakeWeights() {
    weights_.resize(weights_.size() - n_labels_);
    return std::move(weights_);
  }
  std::vector<float> Bias() const { return {weights_.end() - n_labels_, weights_.end()}; }

 private:
  float* WeightsOf(size_t feature) { return weights_.data() + feature * n_labels_; }

  // Minimises over the row's alpha of each label; returns the largest projected gradient.
  double Visit(size_t row) {
    const PromptVector& vector = vectors_[row];
    float* bias = weights_.data() + weights_.size() - n_labels_;
    std::copy(bias, bias + n_labels_, margins_.begin());
    for (size_t i = 0; i < vector.indices.size(); ++i) {
      const float* weights = WeightsOf(vector.indices[i]);
      const float value = vector.values[i];
      for (int d = 0; d < n_labels_; ++d) margins_[d] += value * weights[d];
    }
    // Vectors have length 1 and the bias feature is 1; an empty vector has the bias alone.
    const double curvature = (vector.values.empty() ? 1.0 : 2.0) + 0.5 / kCost;
    double largest = 0.0;
    for (int d = 0; d < n_labels_; ++d) {
      const double sign = rows_[row].label == d ? 1.0 : -1.0;
      float& alpha = alphas_[row * n_labels_ + d];
      const double gradient = sign * margins_[d] - 1.0 + alpha * 0.5 / kCost;
      if (alpha > 0.0f || gradient < 0.0) largest = std::max(largest, std::abs(gradient));
      const double next = std::max(0.0, alpha - gradient / curvature);
      steps_[d] = static_cast<float>(sign * (next - alpha));
      alpha = static_cast<float>(next);
    }
    if (std::all_of(steps_.begin(), steps_.end(), [](float s) { return s == 0.0f; })) {
      return largest;
    }
    for (int d = 0; d < n_labels_; ++d) bias[d] += steps_[d];
    for (size_t i = 0; i < vector.indices.size(); ++i) {
      float* weights = WeightsOf(vector.indices[i]);
      const float value = vector.values[i];
      for (int d = 0; d < n_labels_; ++d) weights[d] += value * steps_[d];
    }
    return largest;
  }

  const std::vector<PromptVector> vectors_;
  const absl::Span<const LexicalRow> rows_;
  const int n_labels_;
  std::vector<float> weights_;  // [n_features + 1, n_labels]
  std::vector<float> alphas_;   // [n_rows, n_labels]
  std::vector<float> margins_, steps_;
};

}  // namespace

std::unique_ptr<const LexicalModel> FitLexical(absl::Span<const LexicalRow> rows, int n_labels) {
  COTERIE_CHECK(!rows.empty() && n_labels > 0, "there are rows and labels to fit");
  LexicalVocabulary vocabulary = BuildVocabulary(rows);
  std::vector<PromptVector> vectors;
  vectors.reserve(rows.size());
  for (const LexicalRow& row : rows) vectors.push_back(vocabulary.Vector(row.cut));
  DualDescent descent(std::move(vectors), rows, vocabulary.size(), n_labels);
  descent.Run();
  std::vector<float> bias = descent.Bias();
  return std::make_unique<const LexicalModel>(std::move(vocabulary), descent.TakeWeights(),
                                              std::move(bias));
}

}  // namespace coterie
