// Rows of floats: norms, softmax, activations, rotations, rounding.

namespace coterie {
namespace {

void RmsNorm(const float* x, const float* weight, int64_t n, float epsilon, float* y) {
  const Vec squares = Fold(x, n, Set1(0.0f), [](Vec acc, Vec v) { return Fma(v, v, acc); });
  const float mean = Sum(squares) / static_cast<float>(n);
  const Vec scale = Set1(1.0f / ::sqrtf(mean + epsilon));
  Map2(x, weight, n, y, [scale](Vec v, Vec w) { return Mul(Mul(v, scale), w); });
}

void LayerNorm(const float* x, const float* weight, const float* bias, int64_t n, float epsilon,
               float* y) {
  const float inverse_n = 1.0f / static_cast<float>(n);
  const Vec total = Fold(x, n, Set1(0.0f), [](Vec acc, Vec v) { return Add(acc, v); });
  const Vec mean = Set1(Sum(total) * inverse_n);
  float squares = 0.0f;
  int64_t i = 0;
  Vec acc = Set1(0.0f);
  for (; i + kLanes <= n; i += kLanes) {
    const Vec v = Sub(Load(x + i), mean);
    acc = Fma(v, v, acc);
  }
  const float mean_value = Sum(total) * inverse_n;
  for (; i < n; ++i) squares += (x[i] - mean_value) * (x[i] - mean_value);
  const float variance = (squares + Sum(acc)) * inverse_n;
  const Vec scale = Set1(1.0f / ::sqrtf(variance + epsilon));
  Map2(x, weight, n, y, [=](Vec v, Vec w) { return Mul(Mul(Sub(v, mean), scale), w); });
  Map2(y, bias, n, y, [](Vec v, Vec b) { return Add(v, b); });
}

void Softmax(float* x, int64_t n) {
  const Vec shift = Set1(MaxOfRow(x, n));
  Map(x, n, x, [shift](Vec v) { return Exp(Sub(v, shift)); });
  const float sum = Sum(Fold(x, n, Set1(0.0f), [](Vec acc, Vec v) { return Add(acc, v); }));
  const Vec scale = Set1(1.0f / sum);
  Map(x, n, x, [scale](Vec v) { return Mul(v, scale); });
}

void SiluMul(const float* gate, const float* up, int64_t n, float* y) {
  Map2(gate, up, n, y, [](Vec g, Vec u) { return Mul(Silu(g), u); });
}

void GeluErfRow(const float* x, int64_t n, float* y) {
  Map(x, n, y, [](Vec v) { return GeluErf(v); });
}

void GeluTanhMul(const float* gate, const float* up, int64_t n, float* y) {
  Map2(gate, up, n, y, [](Vec g, Vec u) { return Mul(GeluTanh(g), u); });
}

void AddRow(const float* x, int64_t n, float* y) {
  Map2(x, y, n, y, [](Vec a, Vec b) { return Add(a, b); });
}

void RopeAdjacent(float* __restrict x, int64_t n_pairs, const float* __restrict cos,
                  const float* __restrict sin) {
  for (int64_t i = 0; i < n_pairs; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1];
    x[2 * i] = a * cos[i] - b * sin[i];
    x[2 * i + 1] = a * sin[i] + b * cos[i];
  }
}

void RopeHalves(float* __restrict x, int64_t n_pairs, const float* __restrict cos,
                const float* __restrict sin) {
  for (int64_t i = 0; i < n_pairs; ++i) {
    const float a = x[i], b = x[i + n_pairs];
    x[i] = a * cos[i] - b * sin[i];
    x[i + n_pairs] = a * sin[i] + b * cos[i];
  }
}

void F32ToF16(const float* x, int64_t n, uint16_t* y) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) StoreF16(y + i, Load(x + i));
  if (i < n) StoreF16N(y + i, LoadN(x + i, n - i), n - i);
}

// One block of 32 values to int8. Blocks below 1e-30 everywhere become zeros, and so do values that
// are not finite.
inline void QuantizeBlock(const float* x, const QuantizedActivations& out, int64_t token,
                          int64_t block) {
  constexpr int kParts = 32 / kLanes;
  int8_t* values = out.values + token * out.stride + block * kActivationBlock;
  Vec v[kParts];
  Vec magnitude = Set1(0.0f);
  for (int i = 0; i < kParts; ++i) {
    v[i] = FiniteOrZero(Load(x + i * kLanes));
    magnitude = Max(magnitude, Abs(v[i]));
  }
  const float max = MaxOf(magnitude);
  const float scale = max < 1e-30f ? 0.0f : max / 127.0f;
  const Vec inverse = Set1(max < 1e-30f ? 0.0f : 127.0f / max);
  int32_t totals[2] = {0, 0};
  for (int i = 0; i < kParts; ++i) {
    totals[2 * i / kParts] += StoreInt8(values + i * kLanes, Mul(v[i], inverse));
  }
  *out.At(out.scales, token, block) = scale;
  *out.At(out.sums, token, block) = scale * static_cast<float>(totals[0] + totals[1]);
  *out.At(out.offsets, token, block) = -(totals[0] + totals[1]);
  *out.At(out.first_offsets, token, block) = -totals[0];
}

// A chunk of blocks as QuantizeBlock does one, their scales and sums together. Does nothing and
// returns false if a value is not finite.
inline bool QuantizeChunk(const float* x, const QuantizedActivations& out, int64_t token,
                          int64_t block) {
  alignas(64) float maxima[kMaxLanes] = {}, inverses[kMaxLanes];
  for (int b = 0; b < kChunkBlocks; ++b) {
    Vec magnitude = Abs(Load(x + b * kActivationBlock));
    for (int i = kLanes; i < kActivationBlock; i += kLanes) {
      magnitude = MaxBits(magnitude, Abs(Load(x + b * kActivationBlock + i)));
    }
    maxima[b] = MaxBitsOf(magnitude);
    if (!(maxima[b] <= FLT_MAX)) return false;
  }
  const Vec max = Load(maxima);
  float* scales = out.At(out.scales, token, block);
  StoreN(scales, ZeroBelow(Div(max, Set1(127.0f)), max, 1e-30f), kChunkBlocks);
  Store(inverses, ZeroBelow(Div(Set1(127.0f), max), max, 1e-30f));
  int8_t* values = out.values + token * out.stride + block * kActivationBlock;
  for (int b = 0; b < kChunkBlocks; ++b) {
    const Vec inverse = Set1(inverses[b]);
    for (int i = b * kActivationBlock; i < (b + 1) * kActivationBlock; i += kLanes) {
      StoreInt8(values + i, Mul(Load(x + i), inverse));
    }
  }
  int32_t* offsets = out.At(out.offsets, token, block);
  MinusChunkSums(values, offsets, out.At(out.first_offsets, token, block));
  float* sums = out.At(out.sums, token, block);
  for (int b = 0; b < kChunkBlocks; ++b) sums[b] = scales[b] * static_cast<float>(-offsets[b]);
  return true;
}

void QuantizeActivations(const float* x, int64_t x_stride, const QuantizedActivations& out) {
  const int64_t n_blocks = out.n_cols / kActivationBlock;
  for (int64_t t = 0; t < out.n_tokens; ++t) {
    for (int64_t b = 0; b < n_blocks;) {
      const float* from = x + t * x_stride + b * kActivationBlock;
      if (n_blocks - b >= kChunkBlocks && QuantizeChunk(from, out, t, b)) {
        b += kChunkBlocks;
      } else {
        QuantizeBlock(from, out, t, b++);
      }
    }
  }
}

}  // namespace
}  // namespace coterie
