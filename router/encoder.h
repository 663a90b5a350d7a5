#pragma once

// The encoder tier: a small BERT, mean pooled, with a linear head, on core's 8-bit kernels.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "core/formats/gguf_file.h"
#include "core/formats/tokenizer.h"
#include "core/kernels/kernels.h"
#include "core/memory/aligned_buffer.h"
#include "core/threads/mutex.h"
#include "core/threads/worker_pool.h"
#include "router/domain_model.h"

namespace coterie {

// Dimensions of an encoder, as its file states them.
struct EncoderShape {
  int64_t n_layers = 0;
  int64_t n_heads = 0;
  int64_t d_model = 0;
  int64_t d_ff = 0;
  int64_t max_tokens = 0;   // Tokens read of a prompt, [CLS] and [SEP] among them.
  int64_t tail_tokens = 0;  // Of a longer prompt, how many of these are its last.
  float epsilon = 0.0f;

  int64_t head_dim() const { return d_model / n_heads; }
};

// Post-norm BERT (Devlin et al. 2018, arXiv 1810.04805) with exact GELU: per layer
//
//   x = norm(x + W_o attention(W_qkv x));   x = norm(x + W_down gelu(W_up x))
//
// then the mean over the tokens and a linear head. Weights are read in place from the mapped file;
// the memory for activations is allocated once, so that prompts are read one at a time.
class Encoder final : public DomainModel {
 public:
  // Takes the file. The pool may be null and otherwise outlives the encoder. kDataLoss naming file
  // and key or tensor if anything is missing, out of range or of the wrong shape.
  static absl::StatusOr<std::unique_ptr<const Encoder>> Open(std::unique_ptr<const GgufFile> file,
                                                             int64_t n_domains, WorkerPool* pool);

  // At least what memory_bytes() will be.
  static absl::StatusOr<int64_t> EstimateBytes(const GgufFile& file, int64_t n_workers);

  absl::StatusOr<ModelReading> Read(absl::string_view cut, bool want_vector) const override;
  std::vector<DecidingFeature> Decide(absl::string_view, int, int) const override { return {}; }
  absl::string_view tier() const override { return "encoder"; }
  void AppendTo(GgufWriter& file) const override;
  int64_t n_domains() const override { return n_domains_; }
  int64_t vector_size() const override { return shape_.d_model; }
  bool vector_is_dense() const override { return true; }
  double correction_reach() const override { return 0.2; }
  int64_t memory_bytes() const override;

  const EncoderShape& shape() const { return shape_; }

 private:
  struct Linear {
    MatrixView weight;        // [n_out, n_in], in the mapped file.
    std::vector<float> bias;  // [n_out]
  };
  struct Norm {
    std::vector<float> weight, bias;  // [d_model]
  };
  struct Layer {
    Linear qkv, attention_out, up, down;
    Norm attention_norm, out_norm;
  };
  struct Scratch;
  class WeightReader;

  Encoder(std::unique_ptr<const GgufFile> file, int64_t n_domains, WorkerPool* pool);

  absl::StatusOr<std::vector<TokenId>> Tokens(absl::string_view cut) const;
  void Embed(absl::Span<const TokenId> tokens, const Scratch& s) const;
  void RunLayer(const Layer& layer, int64_t n_tokens, const Scratch& s) const;
  void Attend(const Layer& layer, int64_t n_tokens, const Scratch& s) const;
  // y = x W^T + b for n_tokens rows.
  void Apply(const Linear& linear, int64_t n_tokens, const float* x, float* y,
             const Scratch& s) const;
  // x = norm(x + y), row by row.
  void AddAndNormalise(const Norm& norm, int64_t n_tokens, const float* y, float* x) const;
  std::vector<float> MeanOf(int64_t n_tokens, const float* x) const;
  void ForEach(int64_t n_pieces, absl::FunctionRef<void(int64_t piece, int worker)> body) const;

  const std::unique_ptr<const GgufFile> file_;
  const int64_t n_domains_;
  WorkerPool* const pool_;
  const KernelTable& kernels_;

  // Const after Open.
  EncoderShape shape_;
  std::unique_ptr<const Tokenizer> tokenizer_;
  TokenId cls_ = 0, sep_ = 0;
  MatrixView words_;              // [n_vocab, d_model]
  std::vector<float> positions_;  // [max_tokens, d_model]
  Norm norm_;
  std::vector<Layer> layers_;
  std::vector<float> head_;       // [n_domains, d_model]
  std::vector<float> head_bias_;  // [n_domains]

  mutable Mutex mutex_;
  mutable AlignedBuffer scratch_ ABSL_GUARDED_BY(mutex_);
  int64_t scratch_bytes_ = 0;
};

}  // namespace coterie
