// The product with 8-bit activations, over the readers and dot products of one instruction set.
//
// Every result is a sum over blocks of 32 columns: per block the exact whole-number dot product,
// rounded to float, times (d_w * d_x), plus m_w * sum of x. Blocks go to lane (block mod 8) in
// rising order; the lanes are added from 0 to 7. Both forms below do the same operations in the
// same order, so that they agree bit for bit:
//   rows    few tokens: one row after another in the file's order, one lane per block of a chunk;
//   panel   many tokens: kLanes rows unpacked once, then vectors across rows, lane after lane.

namespace coterie {
namespace {

// From this many tokens on a panel is unpacked.
constexpr int64_t kPanelTokens = 5;

// How far ahead of the arithmetic weights are asked for. Reading a chunk takes too many
// instructions for the core to see the next cache lines by itself: +40 % from memory measured with
// AVX-512, nothing lost from cache. May point past the tensor, which a prefetch does not mind.
constexpr int64_t kPrefetchBytes = 2048;

template <class Type>
inline void PrefetchChunk(const uint8_t* chunk) {
#pragma GCC unroll 8
  for (int i = 0; i < Type::kChunkBytes; i += 64) __builtin_prefetch(chunk + kPrefetchBytes + i);
}

template <class Type>
inline Vec8 Bias(const Chunk& c, int half) {
  if constexpr (Type::kHasMin) return c.m[half];
  return Mul(c.d[half], Set8(-static_cast<float>(Type::kOffset)));
}

template <class Type>
inline int64_t RowBytesOf(int64_t n_cols) {
  return n_cols / Type::kBlockValues * Type::kBlockBytes;
}

// Adds one chunk of one row to the lanes of one token.
template <class Type, bool kFull>
inline Vec8 AddChunk(const Chunk& c, const Vec8* bias, const QuantizedActivations& x, int64_t token,
                     int64_t first_block, int64_t n_blocks, Vec8 acc) {
  constexpr int kParts = Type::kHalves ? 2 : 1;
  const float* scales = x.scales + token * (x.n_cols / 32) + first_block;
  const float* sums = x.sums + token * (x.n_cols / 16) + 2 * first_block;
  const Vec8 x_scale = kFull ? Load8(scales) : Load8N(scales, n_blocks);
  Vec8 dots[2], block_sums[2];
  ChunkDots<Type>(c, x.values + token * x.n_cols + 32 * first_block, dots);
  if constexpr (Type::kHasBias) ChunkSums<Type>(sums, kFull ? 8 : n_blocks, block_sums);
  for (int i = 0; i < kParts; ++i) {
    acc = Fma(dots[i], Mul(c.d[i], x_scale), acc);
    if constexpr (Type::kHasBias) acc = Fma(bias[i], block_sums[i], acc);
  }
  return acc;
}

template <class Type, bool kFull, int kTokens>
inline void AddChunkToTokens(const uint8_t* chunk, const QuantizedActivations& x, int64_t token,
                             int64_t first_block, int n_blocks, Vec8* acc) {
  Chunk c;
  Reader<Type>::template Read<kFull>(chunk, n_blocks, c);
  Vec8 bias[2];
  if constexpr (Type::kHasBias) {
    for (int i = 0; i < (Type::kHalves ? 2 : 1); ++i) bias[i] = Bias<Type>(c, i);
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
    acc[t] = AddChunk<Type, kFull>(c, bias, x, token + t, first_block, n_blocks, acc[t]);
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

// A panel: kLanes rows unpacked. Blocks are stored lane after lane, each block in rising order.
template <class Type>
struct Panel {
  static constexpr int kHalfCount = PanelBlock<Type>::kHalfCount;
  using Block = PanelBlock<Type>;
  static_assert(sizeof(Block) <= PanelBlockBytes(kMaxLanes, Type::kHalves));

  int64_t n_blocks;
  int64_t n_chunks;
  uint8_t* rows;  // [kLanes][n_chunks * 256], on their way to the blocks.
  Block* blocks;  // [8 lanes][n_chunks]
  float* sums;    // [kTokenTile][8 * n_chunks], of the tokens of one tile.

  Block& at(int64_t block) const { return blocks[(block & 7) * n_chunks + (block >> 3)]; }
};

template <class Type>
inline Panel<Type> PlacePanel(int64_t n_cols, uint8_t* scratch) {
  Panel<Type> panel;
  panel.n_blocks = n_cols / 32;
  panel.n_chunks = (n_cols + kChunk - 1) / kChunk;
  panel.rows = scratch;
  panel.blocks =
      reinterpret_cast<typename Panel<Type>::Block*>(scratch + kLanes * panel.n_chunks * kChunk);
  panel.sums = reinterpret_cast<float*>(panel.blocks + panel.n_chunks * kChunkBlocks);
  return panel;
}

// Spreads a chunk's scales and biases into lane r of the panel's blocks.
template <class Type>
inline void PlaceScales(const Panel<Type>& panel, const Chunk& c, int64_t chunk, int64_t r) {
  alignas(32) float d[8], m[8] = {};
  for (int half = 0; half < Panel<Type>::kHalfCount; ++half) {
    Store8(d, c.d[half]);
    if constexpr (Type::kHasBias) Store8(m, Bias<Type>(c, half));
    for (int i = 0; i < kChunkBlocks; ++i) {
      typename Panel<Type>::Block& block = panel.blocks[i * panel.n_chunks + chunk];
      block.d[half][r] = d[i];
      block.m[half][r] = m[i];
    }
  }
}

template <class Type>
void UnpackRow(const Panel<Type>& panel, const uint8_t* row, int64_t r) {
  uint8_t* to = panel.rows + r * panel.n_chunks * kChunk;
  for (int64_t chunk = 0; chunk < panel.n_chunks; ++chunk, row += Type::kChunkBytes) {
    const int64_t n_blocks = panel.n_blocks - chunk * kChunkBlocks;
    PrefetchChunk<Type>(row);
    Chunk c;
    if (n_blocks >= kChunkBlocks || Type::kBlockValues != 32) {
      Reader<Type>::template Read<true>(row, kChunkBlocks, c);
    } else {
      Reader<Type>::template Read<false>(row, static_cast<int>(n_blocks), c);
    }
    StoreBytes(c, to + chunk * kChunk);
    PlaceScales(panel, c, chunk, r);
  }
}

// Unpacks rows [first, first + n_rows), n_rows <= kLanes. Lanes without a row keep stale bytes;
// their results are not stored.
template <class Type>
void UnpackPanel(const Panel<Type>& panel, const MatrixView& w, int64_t first, int64_t n_rows) {
  constexpr int kDwords = 8;
  constexpr int kBlocksAtOnce = kLanes / kDwords;
  const int64_t row_bytes = RowBytesOf<Type>(w.n_cols);
  for (int64_t r = 0; r < n_rows; ++r) UnpackRow(panel, w.data + (first + r) * row_bytes, r);
  for (int64_t block = 0; block < panel.n_chunks * kChunkBlocks; block += kBlocksAtOnce) {
    uint8_t* to[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      to[i] = panel.at(block + i / kDwords).q + i % kDwords * 4 * kLanes;
    }
    TransposeDwords(panel.rows + 32 * block, panel.n_chunks * kChunk, to);
  }
}

template <class Type, int kTokens>
void PanelTimesTokens(const Panel<Type>& panel, const QuantizedActivations& x, int64_t token,
                      float* y, int64_t y_stride, int64_t n_rows) {
  if constexpr (Type::kHasBias && !Type::kHalves) {
    SumBlocks<Type, kTokens>(x, token, panel.n_blocks, panel.sums, 8 * panel.n_chunks);
  }
  alignas(64) float totals[kTokens][kLanes];
  for (int64_t lane = 0; lane < kChunkBlocks; ++lane) {
    Vec acc[kTokens];
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) acc[t] = Set1(0.0f);
    const typename Panel<Type>::Block* block = panel.blocks + lane * panel.n_chunks;
    for (int64_t b = lane; b < panel.n_blocks; b += kChunkBlocks, ++block) {
      AddBlock<Type, kTokens>(*block, x, token, b, panel.sums + b, 8 * panel.n_chunks, acc);
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      Store(totals[t], lane == 0 ? acc[t] : Add(Load(totals[t]), acc[t]));
    }
  }
  for (int t = 0; t < kTokens; ++t) StoreN(y + (token + t) * y_stride, Load(totals[t]), n_rows);
}

template <class Type>
void PanelForm(const MatrixView& w, int64_t row_begin, int64_t row_end,
               const QuantizedActivations& x, float* y, int64_t y_stride, uint8_t* scratch) {
  const Panel<Type> panel = PlacePanel<Type>(w.n_cols, scratch);
  for (int64_t row = row_begin; row < row_end; row += kLanes) {
    const int64_t n_rows = row_end - row < kLanes ? row_end - row : kLanes;
    UnpackPanel(panel, w, row, n_rows);
    int64_t t = 0;
    for (; t + 8 <= x.n_tokens; t += 8) {
      PanelTimesTokens<Type, 8>(panel, x, t, y + row, y_stride, n_rows);
    }
    if (x.n_tokens - t >= 4) {
      PanelTimesTokens<Type, 4>(panel, x, t, y + row, y_stride, n_rows);
      t += 4;
    }
    if (x.n_tokens - t >= 2) {
      PanelTimesTokens<Type, 2>(panel, x, t, y + row, y_stride, n_rows);
      t += 2;
    }
    if (t < x.n_tokens) PanelTimesTokens<Type, 1>(panel, x, t, y + row, y_stride, n_rows);
  }
}

template <class Type>
void MatmulQ8(const MatrixView& w, int64_t row_begin, int64_t row_end,
              const QuantizedActivations& x, float* y, int64_t y_stride, uint8_t* scratch) {
  if (x.n_tokens >= kPanelTokens) {
    PanelForm<Type>(w, row_begin, row_end, x, y, y_stride, scratch);
    return;
  }
  switch (x.n_tokens) {
    case 1:
      return RowsForm<Type, 1>(w, row_begin, row_end, x, 0, y, y_stride);
    case 2:
      return RowsForm<Type, 2>(w, row_begin, row_end, x, 0, y, y_stride);
    case 3:
      return RowsForm<Type, 3>(w, row_begin, row_end, x, 0, y, y_stride);
    case 4:
      return RowsForm<Type, 4>(w, row_begin, row_end, x, 0, y, y_stride);
    default:
      return;
  }
}

void MatmulQ8Any(const MatrixView& w, int64_t row_begin, int64_t row_end,
                 const QuantizedActivations& x, float* y, int64_t y_stride, uint8_t* scratch) {
  switch (w.type) {
    case TensorType::kQ4_0:
      return MatmulQ8<Q4_0>(w, row_begin, row_end, x, y, y_stride, scratch);
    case TensorType::kQ4_1:
      return MatmulQ8<Q4_1>(w, row_begin, row_end, x, y, y_stride, scratch);
    case TensorType::kQ5_0:
      return MatmulQ8<Q5_0>(w, row_begin, row_end, x, y, y_stride, scratch);
    case TensorType::kQ5_1:
      return MatmulQ8<Q5_1>(w, row_begin, row_end, x, y, y_stride, scratch);
    case TensorType::kQ8_0:
      return MatmulQ8<Q8_0>(w, row_begin, row_end, x, y, y_stride, scratch);
    case TensorType::kQ4_K:
      return MatmulQ8<Q4_K>(w, row_begin, row_end, x, y, y_stride, scratch);
    case TensorType::kQ5_K:
      return MatmulQ8<Q5_K>(w, row_begin, row_end, x, y, y_stride, scratch);
    case TensorType::kQ6_K:
      return MatmulQ8<Q6_K>(w, row_begin, row_end, x, y, y_stride, scratch);
    case TensorType::kF32:
    case TensorType::kF16:
    case TensorType::kBF16:
      return;  // Not quantised: matmul_f32's work.
  }
}

}  // namespace
}  // namespace coterie
