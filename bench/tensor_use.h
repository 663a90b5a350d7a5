#pragma once

// What a forward pass takes of a model's tensors, to set speed and memory beside.

#include <cstdint>

#include "experts/expert.h"

namespace coterie {

// Bytes of tensors read by passes over n_rows tokens: all, but of an embedding that is not the head
// too only the rows of those tokens.
inline int64_t TouchedTensorBytes(const Expert& expert, int64_t n_rows) {
  const MatrixView& embedding = expert.weights().embedding;
  if (embedding.data == expert.weights().head.w.data) return expert.weight_bytes();
  const int64_t row_bytes = RowBytes(embedding.type, embedding.n_cols);
  return expert.weight_bytes() - (embedding.n_rows - n_rows) * row_bytes;
}

// Multiply-adds of a prompt's token with the weights of the layers.
inline int64_t MacsPerToken(const Expert& expert) {
  int64_t macs = 0;
  for (const LayerWeights& layer : expert.weights().layers) {
    for (const LinearWeights* linear :
         {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) {
      macs += linear->w.n_rows * linear->w.n_cols;
    }
  }
  return macs;
}

}  // namespace coterie
