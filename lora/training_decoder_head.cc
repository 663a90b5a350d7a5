// The head of TrainingDecoder: from the stream to likelihoods and the gradients of those.

#include <algorithm>
#include <cstring>

#include "lora/training_decoder.h"

namespace coterie {

// Gradients of logits take the place of the logits, in the precision of products: what is rounded
// fills the beginning of a row.
TrainingDecoder::LogitGradients TrainingDecoder::GradientsInPlace(const LinearWeights& head,
                                                                  int64_t n) const {
  const int64_t n_vocab = spec_.n_vocab;
  LogitGradients gradients;
  gradients.rows = {at_.logits, shape_.is_bf16 ? 2 * n_vocab : n_vocab, shape_.is_bf16};
  if (IsBackwardQ8(head)) {
    gradients.quantized =
        QuantizedActivations::In(reinterpret_cast<uint8_t*>(at_.logits), n, n_vocab,
                                 n_vocab * static_cast<int64_t>(sizeof(float)));
  }
  return gradients;
}

// Rounds row i, which holds f32. buffer: room for it rounded.
void TrainingDecoder::PutLogitGradient(const LogitGradients& gradients, int64_t i,
                                       float* buffer) const {
  float* logits = at_.logits + i * spec_.n_vocab;
  if (!gradients.quantized) {
    if (shape_.is_bf16) {
      training_.f32_to_bf16(logits, spec_.n_vocab, reinterpret_cast<uint16_t*>(logits));
    }
    return;
  }
  // Blocks are not written in the order in which their values are read.
  auto* blocks = reinterpret_cast<uint8_t*>(buffer);
  kernels_.quantize_activations(logits, spec_.n_vocab,
                                QuantizedActivations::In(blocks, 1, spec_.n_vocab));
  std::memcpy(gradients.quantized->At(i, 0), blocks,
              static_cast<size_t>(QuantizedActivations::RowBytes(spec_.n_vocab)));
}

// Logits of a few rows at a time: their likelihoods, and the gradients of those, which need no
// backward pass of their own later.
void TrainingDecoder::HeadChunk(const float* norm, const LinearWeights& head, int64_t first,
                                int64_t n) {
  const int64_t d = spec_.d_model, n_vocab = spec_.n_vocab;
  float* hidden = at_.hidden + first * d;
  ActivationRows in = at_.in;
  in.n_cols = d;
  const bool as_served = IsAsServed(head);
  QuantizedActivations quantized;
  if (as_served) quantized = QuantizedActivations::In(at_.quantized, n, d);
  for (int64_t i = 0; i < n; ++i) {
    float* normed = RowScratch(0);
    kernels_.rms_norm(hidden + i * d, norm, d, spec_.norm_epsilon, normed);
    if (as_served) {
      kernels_.quantize_activations(normed, d, quantized.Rows(i, i + 1));
    } else {
      in.Put(i, 0, normed, d);
    }
  }
  constexpr int64_t kHeadOutputs = 1024;
  Run({Job{(n_vocab + kHeadOutputs - 1) / kHeadOutputs, [&](int64_t piece, int worker) {
             const int64_t begin = piece * kHeadOutputs;
             const int64_t end = std::min(n_vocab, begin + kHeadOutputs);
             if (as_served) {
               kernels_.matmul_q8(head.w, begin, end, quantized, at_.logits, n_vocab,
                                  ProductScratch(worker));
             } else {
               Multiply(Direction::kForward, head.w, begin, end, in, 0, n,
                        {at_.logits, n_vocab, false}, ProductScratch(worker));
             }
           }}});
  const LogitGradients gradients = GradientsInPlace(head, n);
  Run({Job{n, [&](int64_t i, int worker) {
             float* logits = at_.logits + i * n_vocab;
             const size_t row = static_cast<size_t>(first + i);
             const TokenId label = rows_.loss_labels[row];
             const float wanted = logits[label];
             nll_[row] = training_.softmax_lse(logits, n_vocab) - wanted;
             if (!shape_.backward) return;
             logits[label] -= 1;
             PutLogitGradient(gradients, i, RowScratch(worker));
           }}});
  if (!shape_.backward) return;
  const bool long_blocks = Traits(head.w.type).block_values > kTrainingAlign;
  const int64_t cols = long_blocks ? kBlockColumns : kTrainingAlign;
  Run({Job{(d + cols - 1) / cols, [&](int64_t piece, int worker) {
             const int64_t begin = piece * cols, end = std::min(d, begin + cols);
             const ProductOutput to{at_.dy + first * d, d, false};
             if (gradients.quantized) {
               training_.backward_q8(head.w, begin, end, *gradients.quantized, to,
                                     ProductScratch(worker));
             } else {
               Multiply(Direction::kBackward, head.w, begin, end, gradients.rows, 0, n, to,
                        ProductScratch(worker));
             }
           }}});
  Run({Job{n, [&](int64_t i, int worker) {
             float* x = RowScratch(worker);
             std::memcpy(x, hidden + i * d, static_cast<size_t>(d) * sizeof(float));
             std::memset(hidden + i * d, 0, static_cast<size_t>(d) * sizeof(float));
             training_.rms_norm_backward(x, norm, at_.dy + (first + i) * d, d, spec_.norm_epsilon,
                                         hidden + i * d);
           }}});
}

void TrainingDecoder::NormHead(const float* norm, const LinearWeights& head) {
  const int64_t d = spec_.d_model, n_loss = rows_.n_loss_rows();
  nll_.assign(static_cast<size_t>(n_loss), 0.0f);
  const float* x = at_.x[static_cast<size_t>(spec_.n_layers)];
  if (IsCut(spec_.n_layers - 1)) {
    std::memcpy(at_.hidden, x, static_cast<size_t>(n_loss * d) * sizeof(float));
  } else {
    GatherLossRows(x, at_.hidden);
  }
  for (int64_t first = 0; first < n_loss && !stopped_; first += at_.head_rows) {
    HeadChunk(norm, head, first, std::min(at_.head_rows, n_loss - first));
  }
}

}  // namespace coterie
