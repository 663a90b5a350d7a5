// A block of a panel, for matmul_q8.inl and matmul_training_q8.inl: 32 summed values of kLanes
// outputs, as bytes with a scale and, where the bytes have an offset or a minimum, a bias.

namespace coterie {
namespace {

template <class Type>
struct PanelBlock {
  static constexpr int kHalfCount = Type::kHalves ? 2 : 1;
  uint8_t q[32 * kLanes];  // [8][kLanes][4]
  float d[kHalfCount][kLanes];
  float m[kHalfCount][kLanes];
};

// Adds one block to the running sums of a tile of tokens. tile_sums: of each token, sums_stride
// apart, the sum of the block's 32 activations; not read for types of half blocks.
template <class Type, int kTokens>
inline void AddBlock(const PanelBlock<Type>& w, const QuantizedActivations& x, int64_t token,
                     int64_t block, const float* tile_sums, int64_t sums_stride, Vec* acc) {
  constexpr int kHalfCount = PanelBlock<Type>::kHalfCount;
  constexpr int kDwords = 8 / kHalfCount;
  const int8_t* values = x.values + token * x.n_cols + 32 * block;
  const float* scales = x.scales + token * (x.n_cols / 32) + block;
  const float* sums = x.sums + token * (x.n_cols / 16) + 2 * block;
#pragma GCC unroll 2
  for (int half = 0; half < kHalfCount; ++half) {
    IntVec dots[kTokens];
    PanelDots<Type, kDwords, kTokens>(w.q + 16 * kLanes * half, values + 16 * half, x.n_cols, dots);
    const Vec d = Load(w.d[half]), m = Load(w.m[half]);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      acc[t] = Fma(ToFloat(dots[t]), Mul(d, Set1(scales[t * (x.n_cols / 32)])), acc[t]);
      if constexpr (Type::kHasBias) {
        const float sum =
            Type::kHalves ? sums[t * (x.n_cols / 16) + half] : tile_sums[t * sums_stride];
        acc[t] = Fma(m, Set1(sum), acc[t]);
      }
    }
  }
}

// tile_sums of n_blocks blocks and kTokens tokens, for AddBlock; sums_stride is a multiple of 8.
template <class Type, int kTokens>
inline void SumBlocks(const QuantizedActivations& x, int64_t token, int64_t n_blocks,
                      float* tile_sums, int64_t sums_stride) {
  for (int t = 0; t < kTokens; ++t) {
    const float* sums = x.sums + (token + t) * (x.n_cols / 16);
    for (int64_t b = 0; b < n_blocks; b += kChunkBlocks) {
      const int64_t left = n_blocks - b;
      Vec8 eight[2];
      ChunkSums<Type>(sums + 2 * b, left < kChunkBlocks ? left : kChunkBlocks, eight);
      Store8(tile_sums + t * sums_stride + b, eight[0]);
    }
  }
}

}  // namespace
}  // namespace coterie
