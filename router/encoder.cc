#include "router/encoder.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "router/encoder_scratch.h"

namespace coterie {
namespace {

// Rows of one piece of a matmul: several pieces per worker, each long enough to unpack its panel
// once for many tokens.
constexpr int64_t kRowsPerPiece = 4 * kMatmulRowAlign;
constexpr int64_t kTokensPerPiece = 8;

int64_t Pieces(int64_t n, int64_t per_piece) { return (n + per_piece - 1) / per_piece; }

}  // namespace

void Encoder::ForEach(int64_t n_pieces,
                      absl::FunctionRef<void(int64_t piece, int worker)> body) const {
  if (pool_ != nullptr) return pool_->Run(n_pieces, body);
  for (int64_t piece = 0; piece < n_pieces; ++piece) body(piece, 0);
}

absl::StatusOr<std::vector<TokenId>> Encoder::Tokens(absl::string_view cut) const {
  COTERIE_ASSIGN_OR_RETURN(std::vector<TokenId> ids,
                           tokenizer_->Encode(cut, /*add_special=*/false, /*parse_special=*/false));
  const int64_t n_most = shape_.max_tokens - 2;
  if (static_cast<int64_t>(ids.size()) > n_most) {
    const int64_t n_head = n_most - shape_.tail_tokens;
    ids.erase(ids.begin() + n_head, ids.end() - shape_.tail_tokens);
  }
  ids.insert(ids.begin(), cls_);
  ids.push_back(sep_);
  return ids;
}

void Encoder::Embed(absl::Span<const TokenId> tokens, const Scratch& s) const {
  const int64_t d = shape_.d_model;
  ForEach(Pieces(tokens.size(), kTokensPerPiece), [&](int64_t piece, int) {
    const int64_t end =
        std::min<int64_t>((piece + 1) * kTokensPerPiece, static_cast<int64_t>(tokens.size()));
    for (int64_t t = piece * kTokensPerPiece; t < end; ++t) {
      float* x = s.x + t * d;
      kernels_.dequantize_row(words_.type, words_.row(tokens[t]), d, x);
      kernels_.add(positions_.data() + t * d, d, x);
      kernels_.layer_norm(x, norm_.weight.data(), norm_.bias.data(), d, shape_.epsilon, x);
    }
  });
}

void Encoder::Apply(const Linear& linear, int64_t n_tokens, const float* x, float* y,
                    const Scratch& s) const {
  const MatrixView& w = linear.weight;
  const QuantizedActivations quantized = QuantizedActivations::In(s.quantized, n_tokens, w.n_cols);
  kernels_.quantize_activations(x, w.n_cols, quantized);
  ForEach(Pieces(w.n_rows, kRowsPerPiece), [&](int64_t piece, int worker) {
    const int64_t begin = piece * kRowsPerPiece;
    const int64_t end = std::min(w.n_rows, begin + kRowsPerPiece);
    kernels_.matmul_q8(w, begin, end, quantized, y, w.n_rows, s.matmul_of(worker));
    for (int64_t t = 0; t < n_tokens; ++t) {
      kernels_.add(linear.bias.data() + begin, end - begin, y + t * w.n_rows + begin);
    }
  });
}

void Encoder::Attend(const Layer& layer, int64_t n_tokens, const Scratch& s) const {
  Apply(layer.qkv, n_tokens, s.x, s.qkv, s);
  const int64_t d = shape_.d_model, head_dim = shape_.head_dim();
  ForEach(shape_.n_heads, [&](int64_t head, int worker) {
    const float* q = s.qkv + head * head_dim;
    uint16_t* k = s.keys + head * WholeKeyTiles(n_tokens) * head_dim;
    uint16_t* v = s.values + head * n_tokens * head_dim;
    for (int64_t t = 0; t < n_tokens; ++t) {
      kernels_.put_key(q + t * 3 * d + d, head_dim, t, k);
      kernels_.f32_to_f16(q + t * 3 * d + 2 * d, head_dim, v + t * head_dim);
    }
    AttentionArgs args;
    args.q = q;
    args.q_stride = 3 * d;
    args.n_tokens = n_tokens;
    args.n_heads = 1;
    args.head_dim = head_dim;
    args.k = k;
    args.v = v;
    args.n_kv = n_tokens;
    args.causal = false;
    args.scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
    args.out = s.attended + head * head_dim;
    args.out_stride = d;
    args.scratch = s.attention_of(worker);
    kernels_.attend(args);
  });
}

void Encoder::AddAndNormalise(const Norm& norm, int64_t n_tokens, const float* y, float* x) const {
  const int64_t d = shape_.d_model;
  for (int64_t t = 0; t < n_tokens; ++t) {
    kernels_.add(y + t * d, d, x + t * d);
    kernels_.layer_norm(x + t * d, norm.weight.data(), norm.bias.data(), d, shape_.epsilon,
                        x + t * d);
  }
}

void Encoder::RunLayer(const Layer& layer, int64_t n_tokens, const Scratch& s) const {
  Attend(layer, n_tokens, s);
  Apply(layer.attention_out, n_tokens, s.attended, s.y, s);
  AddAndNormalise(layer.attention_norm, n_tokens, s.y, s.x);
  Apply(layer.up, n_tokens, s.x, s.hidden, s);
  ForEach(Pieces(n_tokens, kTokensPerPiece), [&](int64_t piece, int) {
    float* begin = s.hidden + piece * kTokensPerPiece * shape_.d_ff;
    const int64_t n = std::min(kTokensPerPiece, n_tokens - piece * kTokensPerPiece);
    kernels_.gelu_erf(begin, n * shape_.d_ff, begin);
  });
  Apply(layer.down, n_tokens, s.hidden, s.y, s);
  AddAndNormalise(layer.out_norm, n_tokens, s.y, s.x);
}

std::vector<float> Encoder::MeanOf(int64_t n_tokens, const float* x) const {
  std::vector<float> mean(shape_.d_model, 0.0f);
  for (int64_t t = 0; t < n_tokens; ++t) {
    kernels_.add(x + t * shape_.d_model, shape_.d_model, mean.data());
  }
  for (float& value : mean) value /= static_cast<float>(n_tokens);
  return mean;
}

absl::StatusOr<ModelReading> Encoder::Read(absl::string_view cut, bool want_vector) const {
  COTERIE_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, Tokens(cut));
  const auto n_tokens = static_cast<int64_t>(tokens.size());
  ModelReading reading;
  {
    MutexLock lock(mutex_);
    const Scratch s = Scratch::In(scratch_.data(), shape_);
    Embed(tokens, s);
    for (const Layer& layer : layers_) RunLayer(layer, n_tokens, s);
    reading.vector.values = MeanOf(n_tokens, s.x);
  }
  std::vector<float>& mean = reading.vector.values;
  double norm = 0.0;
  for (const float value : mean) norm += static_cast<double>(value) * value;
  for (int64_t i = 0; i < n_domains_; ++i) {
    double logit = head_bias_[i];
    for (int64_t j = 0; j < shape_.d_model; ++j) {
      logit += static_cast<double>(head_[i * shape_.d_model + j]) * mean[j];
    }
    if (!std::isfinite(logit)) {
      return absl::DataLossError(absl::StrCat(
          "damaged router file: the weights give no finite result: file=", file_->path()));
    }
    reading.logits.push_back(logit);
  }
  const auto scale = static_cast<float>(1.0 / std::sqrt(std::max(norm, 1e-30)));
  for (float& value : mean) value *= scale;
  if (!want_vector) reading.vector = {};
  return reading;
}

}  // namespace coterie
