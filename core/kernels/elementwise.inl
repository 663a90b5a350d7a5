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
inline void QuantizeBlock(const float* x, ActivationBlock& to) {
  constexpr int kParts = 32 / kLanes;
  Vec v[kParts];
  Vec magnitude = Set1(0.0f);
  for (int i = 0; i < kParts; ++i) {
    v[i] = FiniteOrZero(Load(x + i * kLanes));
    magnitude = Max(magnitude, Abs(v[i]));
  }
  const float max = MaxOf(magnitude);
  const Vec inverse = Set1(max < 1e-30f ? 0.0f : 127.0f / max);
  int32_t totals[2] = {0, 0};
  for (int i = 0; i < kParts; ++i) {
    totals[2 * i / kParts] += StoreInt8(to.values + i * kLanes, Mul(v[i], inverse));
  }
  to.scale = max < 1e-30f ? 0.0f : max / 127.0f;
  to.offset = -(totals[0] + totals[1]);
  to.first_offset = -totals[0];
  to.sum = to.scale * static_cast<float>(-to.offset);
}

// A chunk of blocks as QuantizeBlock does one, their scales and sums together. Does nothing and
// returns false if a value is not finite.
inline bool QuantizeChunk(const float* x, ActivationBlock* const* to) {
  alignas(64) float maxima[kMaxLanes] = {}, scales[kMaxLanes], inverses[kMaxLanes];
  for (int b = 0; b < kChunkBlocks; ++b) {
    Vec magnitude = Abs(Load(x + b * kActivationBlock));
    for (int i = kLanes; i < kActivationBlock; i += kLanes) {
      magnitude = MaxBits(magnitude, Abs(Load(x + b * kActivationBlock + i)));
    }
    maxima[b] = MaxBitsOf(magnitude);
    if (!(maxima[b] <= FLT_MAX)) return false;
  }
  const Vec max = Load(maxima);
  Store(scales, ZeroBelow(Div(max, Set1(127.0f)), max, 1e-30f));
  Store(inverses, ZeroBelow(Div(Set1(127.0f), max), max, 1e-30f));
  alignas(64) int8_t values[kChunk];
  for (int b = 0; b < kChunkBlocks; ++b) {
    const Vec inverse = Set1(inverses[b]);
    for (int i = b * kActivationBlock; i < (b + 1) * kActivationBlock; i += kLanes) {
      StoreInt8(values + i, Mul(Load(x + i), inverse));
    }
  }
  alignas(32) int32_t offsets[kChunkBlocks], first_offsets[kChunkBlocks];
  MinusChunkSums(values, offsets, first_offsets);
  for (int b = 0; b < kChunkBlocks; ++b) {
    memcpy(to[b]->values, values + b * kActivationBlock, kActivationBlock);
    to[b]->scale = scales[b];
    to[b]->sum = scales[b] * static_cast<float>(-offsets[b]);
    to[b]->offset = offsets[b];
    to[b]->first_offset = first_offsets[b];
  }
  return true;
}

void QuantizeActivations(const float* x, int64_t x_stride, const QuantizedActivations& out) {
  const LaneOrder order(out.n_blocks());
  for (int64_t t = 0; t < out.n_tokens; ++t, x += x_stride) {
    const float* from = x;
    for (int64_t chunk = 0; chunk <= order.n_whole; ++chunk, from += kChunk) {
      const bool is_whole = chunk < order.n_whole;
      const int64_t n_blocks = is_whole ? kChunkBlocks : order.n_last;
      ActivationBlock* to[kChunkBlocks];
      for (int64_t lane = 0; lane < n_blocks; ++lane) {
        to[lane] = out.At(t, order.Place(lane, chunk));
      }
      if (is_whole && QuantizeChunk(from, to)) continue;
      for (int64_t lane = 0; lane < n_blocks; ++lane) {
        QuantizeBlock(from + lane * kActivationBlock, *to[lane]);
      }
    }
  }
}

}  // namespace
}  // namespace coterie
