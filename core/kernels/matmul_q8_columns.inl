// The product with 8-bit activations for a few tokens, where vectors hold two rows of a chunk:
// weights are read in place and turned in registers, so that a vector has one dword of each of 16
// blocks. Multiplying it by the same dwords of a token gives the blocks' sums lane by lane; the
// shuffles are paid once for all tokens, and nothing goes through memory. Operations on a block, and
// their order, are those of matmul_q8.inl.

namespace coterie {
namespace {

template <int kCount>
struct Count {
  static constexpr int kValue = kCount;
};

// Activations with the dwords of a chunk turned as the weights are; blocks in kTurnedOrder. Views
// into scratch. What is beyond the end of a row is zero.
struct TurnedActivations {
  int64_t n_tokens;
  int64_t n_chunks;
  int8_t* values;    // [n_chunks][n_tokens][8 dwords][8 blocks], dwords
  float* scales;     // [n_chunks][n_tokens][8 blocks]
  float* sums;       // the same; of types with a minimum
  int32_t* offsets;  // [n_chunks][n_tokens][1 or 2 halves][8 blocks]: what dot products begin with
};

template <class Type>
TurnedActivations TurnActivations(const QuantizedActivations& x, uint8_t* scratch) {
  constexpr int kHalfCount = Type::kHalves ? 2 : 1;
  const int64_t n_blocks = x.n_cols / kActivationBlock;
  TurnedActivations turned;
  turned.n_tokens = x.n_tokens;
  turned.n_chunks = (x.n_cols + kChunk - 1) / kChunk;
  const int64_t n = turned.n_chunks * x.n_tokens;
  turned.values = reinterpret_cast<int8_t*>(scratch);
  turned.scales = reinterpret_cast<float*>(scratch + n * kChunk);
  turned.sums = turned.scales + n * kChunkBlocks;
  turned.offsets = reinterpret_cast<int32_t*>(turned.sums + n * kChunkBlocks);
  for (int64_t at = 0; at < n; ++at) {
    const int64_t token = at % x.n_tokens;
    const int64_t first = at / x.n_tokens * kChunkBlocks;
    const int64_t n_here = n_blocks - first < kChunkBlocks ? n_blocks - first : kChunkBlocks;
    alignas(64) int8_t values[kChunk] = {};
    memcpy(values, x.values + token * x.stride + first * kActivationBlock,
           static_cast<size_t>(n_here * kActivationBlock));
    TurnChunk(values, turned.values + at * kChunk);
    for (int i = 0; i < kChunkBlocks; ++i) {
      const int64_t block = first + kTurnedOrder[i];
      const int64_t to = at * kChunkBlocks + i;
      const bool is_there = kTurnedOrder[i] < n_here;
      turned.scales[to] = is_there ? *x.At(x.scales, token, block) : 0.0f;
      if constexpr (Type::kHasMin) turned.sums[to] = is_there ? *x.At(x.sums, token, block) : 0.0f;
      if constexpr (Type::kOffset != 0) {
        int32_t* offsets = turned.offsets + at * kHalfCount * kChunkBlocks + i;
        const int32_t whole = is_there ? *x.At(x.offsets, token, block) : 0;
        const int32_t half = Type::kHalves && is_there ? *x.At(x.first_offsets, token, block) : 0;
        offsets[0] = (Type::kHalves ? half : whole) * Type::kOffset;
        if constexpr (Type::kHalves) offsets[kChunkBlocks] = (whole - half) * Type::kOffset;
      }
    }
  }
  return turned;
}

// Adds one chunk of two rows to the lanes of kTokens tokens.
template <class Type, bool kFull, int kTokens>
inline void AddColumns(const uint8_t* chunk_a, const uint8_t* chunk_b, int n_blocks,
                       const TurnedActivations& x, int64_t at, Vec* acc) {
  constexpr int kHalfCount = Type::kHalves ? 2 : 1;
  IntVec q[8];
  Vec d[2], m;
  {
    Chunk a, b;
    Reader<Type>::template Read<kFull>(chunk_a, n_blocks, a);
    Reader<Type>::template Read<kFull>(chunk_b, n_blocks, b);
    TurnRows(a, b, q);
    for (int i = 0; i < kHalfCount; ++i) d[i] = TurnLanes(a.d[i], b.d[i]);
    if constexpr (Type::kHasMin) m = TurnLanes(a.m, b.m);
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
    const int64_t place = at + t;
    const int8_t* values = x.values + place * kChunk;
    const Vec scale = LoadTwice(x.scales + place * kChunkBlocks);
#pragma GCC unroll 2
    for (int i = 0; i < kHalfCount; ++i) {
      IntVec dots = SetInt(0);
      if constexpr (Type::kOffset != 0) {
        dots = LoadTwice(x.offsets + (place * kHalfCount + i) * kChunkBlocks);
      }
      dots = AddColumnDots<8 / kHalfCount>(q + 4 * i, values + 128 * i, dots);
      acc[t] = Fma(ToFloat(dots), Mul(d[i], scale), acc[t]);
    }
    if constexpr (Type::kHasMin) acc[t] = Fma(m, LoadTwice(x.sums + place * kChunkBlocks), acc[t]);
  }
}

// Two rows times kTokens tokens; lanes of token t at lanes + t * 64, and 8 further for row b.
template <class Type, int kTokens>
inline void TwoRowsTimesTokens(const uint8_t* a, const uint8_t* b, int64_t n_blocks,
                               int64_t prefetch_bytes, const TurnedActivations& x, float* lanes) {
  Vec acc[kTokens];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) acc[t] = Set1(0.0f);
  int64_t block = 0;
  int64_t at = 0;
  for (; block + kChunkBlocks <= n_blocks; block += kChunkBlocks, at += x.n_tokens) {
    PrefetchChunk<Type>(a, prefetch_bytes);
    PrefetchChunk<Type>(b, prefetch_bytes);
    AddColumns<Type, true, kTokens>(a, b, kChunkBlocks, x, at, acc);
    a += Type::kChunkBytes;
    b += Type::kChunkBytes;
  }
  if (Type::kBlockValues == 32 && block < n_blocks) {
    AddColumns<Type, false, kTokens>(a, b, static_cast<int>(n_blocks - block), x, at, acc);
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) StoreTurnedBack(lanes + 64 * t, acc[t]);
}

template <class Type, int kTokens>
inline void EightRowsTimesTokens(const uint8_t* rows, int64_t row_bytes, int64_t n_rows,
                                 int64_t n_blocks, const TurnedActivations& x, float* y,
                                 int64_t y_stride) {
  alignas(64) float lanes[kTokens * 64];
  // The same place of a later pair of rows: what lies between is asked for by the pairs before it.
  const int64_t pair_bytes = 2 * row_bytes;
  const int64_t prefetch_bytes = (kPrefetchBytes + pair_bytes - 1) / pair_bytes * pair_bytes;
  for (int64_t r = 0; r < n_rows; r += 2) {
    const uint8_t* a = rows + r * row_bytes;
    const uint8_t* b = r + 1 < n_rows ? a + row_bytes : a;
    TwoRowsTimesTokens<Type, kTokens>(a, b, n_blocks, prefetch_bytes, x, lanes + 8 * r);
  }
  for (int t = 0; t < kTokens; ++t) {
    alignas(32) float sums[8];
    Store8(sums, SumLanes(lanes + 64 * t));
    memcpy(y + t * y_stride, sums, static_cast<size_t>(n_rows) * 4);
  }
}

// For more than kRowTokens tokens, and kColumnTokens at most.
template <class Type>
void ColumnsForm(const MatrixView& w, int64_t row_begin, int64_t row_end,
                 const QuantizedActivations& x, float* y, int64_t y_stride, uint8_t* scratch) {
  const TurnedActivations turned = TurnActivations<Type>(x, scratch);
  const int64_t n_blocks = w.n_cols / 32;
  const int64_t row_bytes = RowBytesOf<Type>(w.n_cols);
  for (int64_t first = row_begin; first < row_end; first += 8) {
    const int64_t n_rows = row_end - first < 8 ? row_end - first : 8;
    const uint8_t* rows = w.data + first * row_bytes;
    const auto run = [&](auto n_tokens) {
      EightRowsTimesTokens<Type, decltype(n_tokens)::kValue>(rows, row_bytes, n_rows, n_blocks,
                                                             turned, y + first, y_stride);
    };
    switch (x.n_tokens) {
      case 5:
        run(Count<5>());
        break;
      case 6:
        run(Count<6>());
        break;
      case 7:
        run(Count<7>());
        break;
      case 8:
        run(Count<8>());
        break;
      default:
        break;
    }
  }
}

}  // namespace
}  // namespace coterie
