// The product with 8-bit activations for few tokens: one row after another in the file's order, one
// lane per block of a chunk.

namespace coterie {
namespace {

// Up to so many tokens rows are read in place.
constexpr int64_t kRowTokens = 8;

// How far ahead of the arithmetic weights are asked for, into the L2 cache: reading a chunk takes
// too many instructions for the core to see the next lines by itself, and its own prefetching ends
// with every page. Of 0.5 to 32 KiB and all levels this was best from memory on a Zen 4 (a fifth
// more than 2 KiB into L1, whose misses are few at a time); from caches nothing is lost. May point
// past the tensor, which a prefetch does not mind.
constexpr int64_t kPrefetchBytes = 8192;

inline void PrefetchLines(const uint8_t* weights, int64_t n_bytes) {
  constexpr int kIntoL2 = 2;
#pragma GCC unroll 8
  for (int64_t i = 0; i < n_bytes; i += 64) {
    __builtin_prefetch(weights + kPrefetchBytes + i, 0, kIntoL2);
  }
}

template <class Type>
inline int64_t RowBytesOf(int64_t n_cols) {
  return n_cols / Type::kBlockValues * Type::kBlockBytes;
}

// Activations in the order that a reader gives weights in. Views into scratch. Where rows end
// within a chunk, the last chunk of several rows is read as one: that of the activations holds the
// blocks at the rows' ends as often as it has room for them, and zeros.
struct RowActivations {
  int64_t n_tokens;
  int64_t n_whole;   // Chunks.
  int n_last;        // Blocks of the last chunk, if it is not whole; else 0.
  int log_rows;      // 2^log_rows rows share a last chunk.
  int8_t* values;    // [n_whole + 1][n_tokens][256]
  float* scales;     // [n_whole + 1][n_tokens][8]
  float* sums;       // the same; of types with a minimum
  int32_t* offsets;  // [n_whole + 1][n_tokens][2 halves][8]: what dot products begin with
};

template <class Type>
inline void PlaceForRows(const ActivationBlock& x, int lane, const RowActivations& to,
                         int64_t place) {
  for (int half = 0; half < 2; ++half) {
    memcpy(to.values + place * kChunk + ChunkPlace(lane, half), x.values + 16 * half, 16);
  }
  to.scales[place * kChunkBlocks + lane] = x.scale;
  if constexpr (Type::kHasMin) to.sums[place * kChunkBlocks + lane] = x.sum;
  if constexpr (Type::kOffset != 0) {
    int32_t* offsets = to.offsets + place * 2 * kChunkBlocks + lane;
    const int32_t whole = x.offset * Type::kOffset;
    const int32_t first = x.first_offset * Type::kOffset;
    offsets[0] = Type::kHalves ? first : whole;
    offsets[kChunkBlocks] = whole - first;
  }
}

template <class Type>
RowActivations ForRows(const QuantizedActivations& x, uint8_t* scratch) {
  const LaneOrder order(x.n_blocks());
  RowActivations rows;
  rows.n_tokens = x.n_tokens;
  rows.n_whole = order.n_whole;
  rows.n_last = static_cast<int>(order.n_last);
  rows.log_rows = rows.n_last > 4 ? 0 : rows.n_last > 2 ? 1 : rows.n_last == 2 ? 2 : 3;
  const int64_t n_places = (rows.n_whole + 1) * x.n_tokens;
  rows.values = reinterpret_cast<int8_t*>(scratch);
  rows.scales = reinterpret_cast<float*>(scratch + n_places * kChunk);
  rows.sums = rows.scales + n_places * kChunkBlocks;
  rows.offsets = reinterpret_cast<int32_t*>(rows.sums + n_places * kChunkBlocks);
  for (int64_t token = 0; token < x.n_tokens; ++token) {
    for (int lane = 0; lane < kChunkBlocks; ++lane) {
      const ActivationBlock* block = x.At(token, order.Begin(lane) + order.HasLast(lane));
      for (int64_t chunk = 0; chunk < rows.n_whole; ++chunk) {
        PlaceForRows<Type>(*block++, lane, rows, chunk * x.n_tokens + token);
      }
    }
    if (rows.n_last == 0) continue;
    const int64_t last = rows.n_whole * x.n_tokens + token;
    memset(rows.values + last * kChunk, 0, kChunk);
    memset(rows.scales + last * kChunkBlocks, 0, 4 * kChunkBlocks);
    memset(rows.sums + last * kChunkBlocks, 0, 4 * kChunkBlocks);
    memset(rows.offsets + last * 2 * kChunkBlocks, 0, 8 * kChunkBlocks);
    for (int lane = 0; lane < rows.n_last << rows.log_rows; ++lane) {
      PlaceForRows<Type>(*x.At(token, order.Begin(lane % rows.n_last)), lane, rows, last);
    }
  }
  return rows;
}

// Adds a chunk to the lanes of kTokens tokens.
template <class Type, int kTokens, class Blocks>
inline void AddChunk(const Blocks& blocks, const RowActivations& x, int64_t chunk, Vec8* acc) {
  Chunk c;
  Reader<Type>::Read(blocks, c);
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
    const int64_t place = chunk * kTokens + t;
    const Vec8 scale = Load8(x.scales + place * kChunkBlocks);
    Vec8 dots[2];
    ChunkDots<Type>(c, x.values + place * kChunk, x.offsets + place * 2 * kChunkBlocks, dots);
    for (int i = 0; i < (Type::kHalves ? 2 : 1); ++i) {
      acc[t] = Fma(dots[i], Mul(c.d[i], scale), acc[t]);
    }
    if constexpr (Type::kHasMin) {
      acc[t] = Fma(c.m, Load8(x.sums + place * kChunkBlocks), acc[t]);
    }
  }
}

// Rows one after another: what follows them in memory is wanted next.
struct NeighbourRows {
  static constexpr bool kGoesOn = true;
  const uint8_t* at(int64_t r) const { return first + r * row_bytes; }

  const uint8_t* first;
  int64_t row_bytes;
};

// Rows from here and there.
struct ListedRows {
  static constexpr bool kGoesOn = false;
  const uint8_t* at(int64_t r) const { return data + list[r] * row_bytes; }

  const uint8_t* data;
  int64_t row_bytes;
  const int32_t* list;
};

// The ends of the rows from `first` on that share a last chunk: to[t][n_last * row + block].
template <class Type, int kTokens, class Rows>
inline void AddEndsOfRows(const Rows& rows, int64_t first, int64_t n_rows, const RowActivations& x,
                          float (*to)[2 * kChunkBlocks]) {
  ScatteredChunk blocks;
  int lane = 0;
  for (int64_t r = first; r < first + (1 << x.log_rows); ++r) {
    const uint8_t* end = r < n_rows ? rows.at(r) + x.n_whole * Type::kChunkBytes : nullptr;
    for (int b = 0; b < x.n_last; ++b) {
      blocks.block[lane++] = end != nullptr ? end + b * Type::kBlockBytes : kZeroBlock;
    }
  }
  while (lane < kChunkBlocks) blocks.block[lane++] = kZeroBlock;
  Vec8 acc[kTokens];
  for (int t = 0; t < kTokens; ++t) acc[t] = Set8(0.0f);
  AddChunk<Type, kTokens>(blocks, x, x.n_whole, acc);
  for (int t = 0; t < kTokens; ++t) Store8(to[t], acc[t]);
}

// Lanes of up to 8 rows: lanes[t][8 * r + lane].
template <class Type, int kTokens, class Rows>
inline void RowsTimesTokens(const Rows& rows, int64_t n_rows, const RowActivations& x,
                            float (*lanes)[64]) {
  // Loads of the last ones run over what was stored.
  alignas(32) float ends[kTokens][2 * kChunkBlocks];
  const bool has_ends = Type::kBlockValues == 32 && x.n_last > 0;
  for (int64_t r = 0; r < n_rows; ++r) {
    const int64_t in_group = r & ((1 << x.log_rows) - 1);
    if (has_ends && in_group == 0) AddEndsOfRows<Type, kTokens>(rows, r, n_rows, x, ends);
    Vec8 acc[kTokens];
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      acc[t] = has_ends ? Load8N(ends[t] + x.n_last * in_group, x.n_last) : Set8(0.0f);
    }
    const uint8_t* row = rows.at(r);
    for (int64_t chunk = 0; chunk < x.n_whole; ++chunk, row += Type::kChunkBytes) {
      if constexpr (Rows::kGoesOn) PrefetchLines(row, Type::kChunkBytes);
      AddChunk<Type, kTokens>(WholeChunk<Type>{row}, x, chunk, acc);
    }
    if (Rows::kGoesOn && has_ends) PrefetchLines(row, x.n_last * Type::kBlockBytes);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) Store8(lanes[t] + 8 * r, acc[t]);
  }
}

template <class Type, int kTokens>
void RowsForm(const MatrixView& w, int64_t row_begin, int64_t row_end, const RowActivations& x,
              float* y, int64_t y_stride) {
  alignas(64) float lanes[kTokens][64];
  const int64_t row_bytes = RowBytesOf<Type>(w.n_cols);
  for (int64_t first = row_begin; first < row_end; first += 8) {
    const int64_t n_rows = row_end - first < 8 ? row_end - first : 8;
    const NeighbourRows rows{w.data + first * row_bytes, row_bytes};
    RowsTimesTokens<Type, kTokens>(rows, n_rows, x, lanes);
    for (int t = 0; t < kTokens; ++t) {
      alignas(32) float sums[8];
      Store8(sums, SumLanes(lanes[t]));
      memcpy(y + t * y_stride + first, sums, static_cast<size_t>(n_rows) * 4);
    }
  }
}

// For one token: the rows of the next step are asked for a step ahead.
template <class Type>
void ListedRowsForm(const MatrixView& w, const int32_t* list, int64_t n_rows,
                    const RowActivations& x, float* y) {
  constexpr int kIntoL2 = 2;
  alignas(64) float lanes[1][64];
  const int64_t row_bytes = RowBytesOf<Type>(w.n_cols);
  for (int64_t first = 0; first < n_rows; first += 8) {
    const ListedRows rows{w.data, row_bytes, list + first};
    const int64_t left = n_rows - first;
    for (int64_t r = 8; r < 16 && r < left; ++r) {
      for (int64_t i = 0; i < row_bytes; i += 64) __builtin_prefetch(rows.at(r) + i, 0, kIntoL2);
    }
    const int64_t n_here = left < 8 ? left : 8;
    RowsTimesTokens<Type, 1>(rows, n_here, x, lanes);
    alignas(32) float sums[8];
    Store8(sums, SumLanes(lanes[0]));
    memcpy(y + first, sums, static_cast<size_t>(n_here) * 4);
  }
}

}  // namespace
}  // namespace coterie
