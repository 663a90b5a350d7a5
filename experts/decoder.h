#pragma once

// The one definition of the decoder architectures: a sequence of coarse operations. Inference walks
// it forward on a back end (experts/cpu_decoder.h); whoever trains walks the same sequence with
// each operation's own backward.

#include <cstdint>
#include <stop_token>

#include "experts/arch_spec.h"
#include "experts/decoder_weights.h"

namespace coterie {

// Runs a pre-norm decoder with gated feed-forward layers (llama, qwen2) over the rows that the back
// end holds. A back end implements, on its hidden state x [n_rows, d_model]:
//   Embed(embedding)                      x = rows of the embedding
//   NormQkvRopeAppend(layer, weights)     q, k, v = W norm(x) + b; rotate q, k; append k, v to KV
//   Attend(layer)                         a = softmax(q k^T / sqrt(head_dim)) v
//   ProjectResidual(o)                    x += W a
//   NormGateUpActivate(weights)           g = silu(W_gate norm(x)) * W_up norm(x)
//   DownResidual(down)                    x += W g
//   NormHead(norm, head)                  logits of the wanted rows
// Returns false if `cancel` ended it between two layers: the sequences are as before, for their
// tokens are counted last.
template <typename Backend>
bool RunDecoder(const ArchSpec& spec, const DecoderWeights& weights, Backend& backend,
                const std::stop_token& cancel) {
  backend.Embed(weights.embedding);
  for (int64_t layer = 0; layer < spec.n_layers; ++layer) {
    if (cancel.stop_requested()) return false;
    const LayerWeights& w = weights.layers[layer];
    backend.NormQkvRopeAppend(layer, w);
    backend.Attend(layer);
    backend.ProjectResidual(w.o);
    backend.NormGateUpActivate(w);
    backend.DownResidual(w.down);
  }
  backend.NormHead(weights.output_norm, weights.head);
  return true;
}

}  // namespace coterie
