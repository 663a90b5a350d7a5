#pragma once

#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "core/formats/chat_template.h"
#include "core/formats/tokenizer.h"
#include "core/threads/worker_pool.h"
#include "experts/arch_spec.h"
#include "experts/base_source.h"
#include "experts/cpu_decoder.h"
#include "experts/decoder_weights.h"
#include "experts/model_files.h"

namespace coterie {

// A loaded model: weights read in place from the mapping, tokenizer and chat template.
// Immutable, thread-safe: any number of sessions may run forward passes at once.
class Expert : public BaseModel, public std::enable_shared_from_this<Expert> {
 public:
  // Maps and validates a GGUF file, the first part of a split one, or a Hugging Face folder. Errors
  // name the file and what it lacks: kNotFound, kDataLoss for a damaged one, kUnimplemented for an
  // architecture, tensor type, tokenizer or template construct that is not supported.
  static absl::StatusOr<std::shared_ptr<const Expert>> Open(absl::string_view path);
  // The same of files that are mapped already.
  static absl::StatusOr<std::shared_ptr<const Expert>> Open(
      std::unique_ptr<const ModelFiles> files);

  const ArchSpec& spec() const { return spec_; }
  const ModelFiles& files() const { return *files_; }
  const DecoderWeights& weights() const { return weights_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  // Null for a base model, which continues text and knows no conversation.
  const ChatTemplate* chat_template() const { return chat_template_.get(); }

  // Bytes to charge while the expert is loaded.
  int64_t weight_bytes() const { return files_->tensor_bytes() + weights_.converted_bytes; }
  int64_t tokenizer_bytes() const { return tokenizer_->memory_bytes(); }

  // Appends the slices' tokens to their KV caches and computes the wanted logits, which then stand
  // in scratch.logits(), [n_logit_rows, n_vocab], in slice order. kInvalidArgument for an empty
  // slice, a token id outside the vocabulary or an adapter of another base, kResourceExhausted
  // where a KV cache or the scratch has no room, kCancelled soon after `cancel` was stopped;
  // nothing is changed then. A screen of this expert's head that no other pass has just now may
  // make it faster.
  absl::Status Forward(absl::Span<const SequenceSlice> slices, Activations activations,
                       WorkerPool& pool, DecoderScratch& scratch,
                       const std::stop_token& cancel = {}, HeadScreen* screen = nullptr) const;

 private:
  Expert() = default;

  std::unique_ptr<const ModelFiles> files_;
  ArchSpec spec_;
  DecoderWeights weights_;
  std::unique_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<const ChatTemplate> chat_template_;
};

}  // namespace coterie
