// The product with 8-bit activations for one token or very few: one row after another in the file's
// order, one lane per block of a chunk.

namespace coterie {
namespace {

// How far ahead of the arithmetic weights are asked for. Reading a chunk takes too many
// instructions for the core to see the next cache lines by itself: +40 % from memory measured with
// AVX-512, nothing lost from cache. May point past the tensor, which a prefetch does not mind.
constexpr int64_t kPrefetchBytes = 2048;

template <class Type>
inline void PrefetchChunk(const uint8_t* chunk, int64_t ahead = kPrefetchBytes) {
#pragma GCC unroll 8
  for (int i = 0; i < Type::kChunkBytes; i += 64) __builtin_prefetch(chunk + ahead + i);
}

template <class Type>
inline int64_t RowBytesOf(int64_t n_cols) {
  return n_cols / Type::kBlockValues * Type::kBlockBytes;
}

// Adds one chunk of one row to the lanes of one token.
template <class Type, bool kFull>
inline Vec8 AddChunk(const Chunk& c, const QuantizedActivations& x, int64_t token,
                     int64_t first_block, int64_t n_blocks, Vec8 acc) {
  const auto load = [n_blocks](const float* p) { return kFull ? Load8(p) : Load8N(p, n_blocks); };
  const Vec8 x_scale = load(x.At(x.scales, token, first_block));
  Vec8 dots[2];
  ChunkDots<Type>(c, x, token, first_block, dots);
  for (int i = 0; i < (Type::kHalves ? 2 : 1); ++i) acc = Fma(dots[i], Mul(c.d[i], x_scale), acc);
  if constexpr (Type::kHasMin) acc = Fma(c.m, load(x.At(x.sums, token, first_block)), acc);
  return acc;
}

template <class Type, bool kFull, int kTokens>
inline void AddChunkToTokens(const uint8_t* chunk, const QuantizedActivations& x, int64_t token,
                             int64_t first_block, int n_blocks, Vec8* acc) {
  Chunk c;
  Reader<Type>::template Read<kFull>(chunk, n_blocks, c);
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
    acc[t] = AddChunk<Type, kFull>(c, x, token + t, first_block, n_blocks, acc[t]);
  }
}

// One row times kTokens tokens; lanes of token t at lanes + t * 64.
template <class Type, int kTokens>
inline void RowTimesTokens(const uint8_t* row, const QuantizedActivations& x, int64_t token,
                           float* lanes) {
  const int64_t n_blocks = x.n_cols / 32;
  Vec8 acc[kTokens];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) acc[t] = Set8(0.0f);
  int64_t block = 0;
  for (; block + kChunkBlocks <= n_blocks; block += kChunkBlocks, row += Type::kChunkBytes) {
    PrefetchChunk<Type>(row);
    AddChunkToTokens<Type, true, kTokens>(row, x, token, block, kChunkBlocks, acc);
  }
  if (Type::kBlockValues == 32 && block < n_blocks) {
    AddChunkToTokens<Type, false, kTokens>(row, x, token, block, static_cast<int>(n_blocks - block),
                                           acc);
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) Store8(lanes + 64 * t, acc[t]);
}

template <class Type, int kTokens>
void RowsForm(const MatrixView& w, int64_t row_begin, int64_t row_end,
              const QuantizedActivations& x, int64_t token, float* y, int64_t y_stride) {
  alignas(64) float lanes[kTokens * 64];
  const int64_t row_bytes = RowBytesOf<Type>(w.n_cols);
  for (int64_t first = row_begin; first < row_end; first += 8) {
    const int64_t n_rows = row_end - first < 8 ? row_end - first : 8;
    for (int64_t r = 0; r < 8 && r < n_rows; ++r) {
      RowTimesTokens<Type, kTokens>(w.data + (first + r) * row_bytes, x, token, lanes + 8 * r);
    }
    for (int t = 0; t < kTokens; ++t) {
      alignas(32) float sums[8];
      Store8(sums, SumLanes(lanes + 64 * t));
      memcpy(y + (token + t) * y_stride + first, sums, static_cast<size_t>(n_rows) * 4);
    }
  }
}

}  // namespace
}  // namespace coterie
