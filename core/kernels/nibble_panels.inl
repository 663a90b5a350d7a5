// Weights in 4 bits, a panel of kLanes rows side by side, for products with one token: vectors
// across rows, so that all that such a product does is read.

namespace coterie {
namespace {

// 32 columns of a panel's rows: value = d * (nibble - 8).
struct NibbleBlock {
  // [4][kLanes][4]: byte i of dword j has column 4 j + i low and column 16 + 4 j + i high.
  uint8_t nibbles[16 * kLanes];
  uint16_t d[kLanes];  // f16
};

inline NibbleBlock* PanelOf(const NibblePanels& panels, int64_t row) {
  return reinterpret_cast<NibbleBlock*>(panels.data) + row / kLanes * (panels.n_cols / 32);
}

inline Vec NearestStep(Vec value, Vec inverse) {
  return Max(Min(Round(Mul(value, inverse)), Set1(7.0f)), Set1(-8.0f));
}

// A block's value of largest magnitude.
inline float ExtremeOf(const float* x) {
  Vec high = Set1(-FLT_MAX), minus_low = Set1(-FLT_MAX);
  for (int i = 0; i < 32; i += kLanes) {
    high = Max(high, Load(x + i));
    minus_low = Max(minus_low, Sub(Set1(0.0f), Load(x + i)));
  }
  const float largest = MaxOf(high), smallest = -MaxOf(minus_low);
  return largest > -smallest ? largest : smallest;
}

// The scale at which the steps of a block that `inverse` gives lie nearest to its values.
inline float BestScale(const float* x, const float* metric, float inverse) {
  Vec by_values = Set1(0.0f), by_steps = Set1(0.0f);
  for (int i = 0; i < 32; i += kLanes) {
    const Vec value = Load(x + i), weight = Load(metric + i);
    const Vec step = NearestStep(value, Set1(inverse));
    const Vec weighed = Mul(Mul(weight, weight), step);
    by_values = Fma(weighed, value, by_values);
    by_steps = Fma(weighed, step, by_steps);
  }
  return Sum(by_values) / Sum(by_steps);
}

// Writes a block of one row, and adds the squares of what rounding changes, and of the values.
inline void RoundBlock(const float* x, const float* metric, float d, float inverse, int64_t lane,
                       NibbleBlock& block, Vec& errors, Vec& norms) {
  alignas(64) int8_t steps[32];
  for (int i = 0; i < 32; i += kLanes) {
    const Vec value = Load(x + i), weight = Load(metric + i);
    const Vec step = NearestStep(value, Set1(inverse));
    StoreInt8(steps + i, step);
    const Vec error = Mul(weight, Fnma(Set1(d), step, value));
    errors = Fma(error, error, errors);
    const Vec size = Mul(weight, value);
    norms = Fma(size, size, norms);
  }
  alignas(16) uint8_t packed[16];
  for (int i = 0; i < 16; ++i) {
    packed[i] = static_cast<uint8_t>((steps[i] + 8) | (steps[i + 16] + 8) << 4);
  }
  for (int j = 0; j < 4; ++j) memcpy(block.nibbles + 4 * (j * kLanes + lane), packed + 4 * j, 4);
}

// Step after step over several blocks, each of which is one long chain of operations. The first
// scale is that of Q4_0, of which the extreme value is step -8.
RowRounding RoundToNibbles(const float* x, const float* metric, int64_t row,
                           const NibblePanels& panels) {
  Vec errors = Set1(0.0f), norms = Set1(0.0f);
  NibbleBlock* block = PanelOf(panels, row);
  const int64_t lane = row % kLanes, n_blocks = panels.n_cols / 32;
  for (int64_t first = 0; first < n_blocks; first += kChunkBlocks) {
    const int64_t n = n_blocks - first < kChunkBlocks ? n_blocks - first : kChunkBlocks;
    const float* values = x + 32 * first;
    const float* weights = metric + 32 * first;
    float inverse[kChunkBlocks], d[kChunkBlocks];
    for (int64_t b = 0; b < n; ++b) {
      const float extreme = ExtremeOf(values + 32 * b);
      inverse[b] = extreme == 0 ? 0.0f : -8.0f / extreme;
    }
    for (int64_t b = 0; b < n; ++b) {
      const float best = BestScale(values + 32 * b, weights + 32 * b, inverse[b]);
      StoreF16N(&block[first + b].d[lane], Set1(inverse[b] == 0 ? 0.0f : best), 1);
    }
    for (int64_t b = 0; b < n; ++b) {
      d[b] = HalfToFloat(block[first + b].d[lane]);
      inverse[b] = d[b] == 0 ? 0.0f : 1.0f / d[b];
    }
    for (int64_t b = 0; b < n; ++b) {
      RoundBlock(values + 32 * b, weights + 32 * b, d[b], inverse[b], lane, block[first + b],
                 errors, norms);
    }
  }
  return {::sqrtf(Sum(errors)), ::sqrtf(Sum(norms))};
}

inline Vec NibbleDots(const NibbleBlock& block, const ActivationBlock& x) {
  alignas(64) uint8_t bytes[32 * kLanes];
  for (int i = 0; i < 16 * kLanes; ++i) bytes[i] = block.nibbles[i] & 15;
  for (int i = 0; i < 16 * kLanes; ++i) bytes[16 * kLanes + i] = block.nibbles[i] >> 4;
  IntVec dots[1][1] = {{FirstDots<Q4_0>(x, 0)}};
  PanelDots<Q4_0, 8, 1, 1>(bytes, 0, x.values, 0, dots);
  return ToFloat(dots[0][0]);
}

// Sums run over eight lanes, each a stream of the activations, and are added up in their order.
void MultiplyNibbles(const NibblePanels& panels, int64_t row_begin, int64_t row_end,
                     const QuantizedActivations& x, float* y) {
  const LaneOrder order(panels.n_cols / 32);
  for (int64_t row = row_begin; row < row_end; row += kLanes) {
    const NibbleBlock* block = PanelOf(panels, row);
    Vec acc[kChunkBlocks];
#pragma GCC unroll 8
    for (int lane = 0; lane < kChunkBlocks; ++lane) acc[lane] = Set1(0.0f);
    for (int64_t chunk = 0; chunk <= order.n_whole; ++chunk) {
      const int64_t n_lanes = chunk < order.n_whole ? kChunkBlocks : order.n_last;
#pragma GCC unroll 8
      for (int lane = 0; lane < kChunkBlocks; ++lane) {
        if (lane >= n_lanes) break;
        PrefetchLines(reinterpret_cast<const uint8_t*>(block), sizeof(NibbleBlock));
        const ActivationBlock& values = *x.At(0, order.Place(lane, chunk));
        acc[lane] = Fma(NibbleDots(*block, values), Mul(LoadF16(block->d), Set1(values.scale)),
                        acc[lane]);
        ++block;
      }
    }
    Vec sum = acc[0];
    for (int lane = 1; lane < kChunkBlocks; ++lane) sum = Add(sum, acc[lane]);
    StoreN(y + row, sum, row_end - row < kLanes ? row_end - row : kLanes);
  }
}

}  // namespace
}  // namespace coterie
