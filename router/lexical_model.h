#pragma once

// The lexical tier: TF-IDF of words and letters with one linear classifier per domain.

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "core/formats/gguf_file.h"
#include "router/domain_model.h"
#include "router/lexical_features.h"

namespace coterie {

// The features a model knows, found by hash. Features it never saw are not part of a prompt's
// vector, so that they take no weight from those it knows.
class LexicalVocabulary {
 public:
  LexicalVocabulary() = default;
  // hashes rise; idf goes with them. is_crowded() afterwards: so many hashes belong in one place
  // that they were made to slow searches down; the vocabulary is incomplete then.
  LexicalVocabulary(std::vector<uint32_t> hashes, std::vector<float> idf);

  // Index of a feature, or -1.
  int64_t Find(uint32_t hash) const;

  // (1 + log count) * idf of the features known, each block scaled to the same length, together of
  // length 1; empty if none is known.
  PromptVector Vector(absl::string_view cut) const;

  int64_t size() const { return static_cast<int64_t>(hashes_.size()); }
  absl::Span<const uint32_t> hashes() const { return hashes_; }
  absl::Span<const float> idf() const { return idf_; }
  int64_t memory_bytes() const;
  bool is_crowded() const { return is_crowded_; }

 private:
  std::vector<uint32_t> hashes_;  // Rising.
  std::vector<float> idf_;
  std::vector<uint64_t> slots_;  // Open addressing: hash << 32 | index + 1; 0 is empty.
  int shift_ = 32;               // Slot of a hash: its product with a constant >> shift_.
  bool is_crowded_ = false;
};

// Const after construction, thread-safe.
class LexicalModel final : public DomainModel {
 public:
  // weights: [vocabulary.size(), n_domains]; bias: [n_domains].
  LexicalModel(LexicalVocabulary vocabulary, std::vector<float> weights, std::vector<float> bias);

  // kDataLoss naming file and key for anything damaged.
  static absl::StatusOr<std::unique_ptr<const LexicalModel>> Open(const GgufFile& file,
                                                                  int64_t n_domains);
  static absl::StatusOr<int64_t> EstimateBytes(const GgufFile& file);

  absl::StatusOr<ModelReading> Read(absl::string_view cut, bool want_vector) const override;
  std::vector<DecidingFeature> Decide(absl::string_view cut, int domain,
                                      int runner_up) const override;
  absl::string_view tier() const override { return "lexical"; }
  void AppendTo(GgufWriter& file) const override;
  int64_t n_domains() const override { return static_cast<int64_t>(bias_.size()); }
  int64_t vector_size() const override { return vocabulary_.size(); }
  bool vector_is_dense() const override { return false; }
  double correction_reach() const override { return 0.6; }
  int64_t memory_bytes() const override;

 private:
  LexicalVocabulary vocabulary_;
  std::vector<float> weights_;
  std::vector<float> bias_;
};

}  // namespace coterie
