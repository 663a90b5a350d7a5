#pragma once

// The one definition of the decoder architectures: a sequence of coarse operations. Inference walks
// it forward on a back end (experts/cpu_decoder.h); training walks the same sequence forward and
// back (lora/training_decoder.h).

#include <cstdint>
#include <stop_token>

#include "experts/arch_spec.h"
#include "experts/decoder_weights.h"

namespace coterie {

// Runs a pre-norm decoder with gated feed-forward layers over the rows that the back end holds.
// What differs between architectures (llama, qwen2, gemma3) is data in ArchSpec and norms that are
// there or not. A back end implements, on its hidden state x [n_rows, d_model]:
//   Embed(embedding)                  x = embedding_scale * rows of the embedding
//   NormQkvRopeAppend(layer, w)       q, k, v = W norm(x) + b; norm the heads of q and k where they
//                                     have norms; rotate q, k by the layer's angles; append k, v
//   Attend(layer)                     a = softmax(query_scale * q k^T) v over the keys that the
//                                     layer sees
//   ProjectResidual(layer, w)         x += post_attention_norm(W_o a); no norm: x += W_o a
//   NormGateUpActivate(layer, w)      g = gating(W_gate norm(x)) * W_up norm(x)
//   DownResidual(layer, w)            x += post_ffn_norm(W_down g); no norm: x += W_down g
//   NormHead(norm, head)              logits of the wanted rows
// where W x of a layer is W x + scale * B (A x) for rows whose sequence has an adapter with a delta
// for it (experts/linear_delta.h).
// Returns false if `cancel` ended it between two layers: the sequences are as before, for their
// tokens are counted last. `first_layer` above 0 leaves out the embedding and the layers before it:
// the back end holds the stream as it enters that layer.
template <typename Backend>
bool RunDecoder(const ArchSpec& spec, const DecoderWeights& weights, Backend& backend,
                const std::stop_token& cancel, int64_t first_layer = 0) {
  if (first_layer == 0) backend.Embed(weights.embedding);
  for (int64_t layer = first_layer; layer < spec.n_layers; ++layer) {
    if (cancel.stop_requested()) return false;
    const LayerWeights& w = weights.layers[static_cast<size_t>(layer)];
    backend.NormQkvRopeAppend(layer, w);
    backend.Attend(layer);
    backend.ProjectResidual(layer, w);
    backend.NormGateUpActivate(layer, w);
    backend.DownResidual(layer, w);
  }
  backend.NormHead(weights.output_norm, weights.head);
  return true;
}

// The same sequence from its end to last_layer, each operation's own backward: the back end holds
// the gradient of the stream, beginning with that of its last rows, and takes it through
//   BackwardDownResidual, BackwardNormGateUpActivate, BackwardProjectResidual, BackwardAttend,
//   BackwardNormQkvRope
// of each layer; frozen weights get no gradient. BeginBackward comes before, for a back end that
// computes forward results again. Returns false if `cancel` ended it between two layers.
template <typename Backend>
bool RunDecoderBackward(const ArchSpec& spec, const DecoderWeights& weights, Backend& backend,
                        const std::stop_token& cancel, int64_t last_layer) {
  for (int64_t layer = spec.n_layers - 1; layer >= last_layer; --layer) {
    if (cancel.stop_requested()) return false;
    const LayerWeights& w = weights.layers[static_cast<size_t>(layer)];
    backend.BeginBackward(layer, w);
    backend.BackwardDownResidual(layer, w);
    backend.BackwardNormGateUpActivate(layer, w);
    backend.BackwardProjectResidual(layer, w);
    backend.BackwardAttend(layer);
    backend.BackwardNormQkvRope(layer, w);
  }
  return true;
}

}  // namespace coterie
