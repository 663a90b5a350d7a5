// The product with 8-bit activations, over the readers and dot products of one instruction set.
//
// Every result is a sum over blocks of 32 columns: per block the exact whole-number dot product,
// rounded to float, times (d_w * d_x), plus m_w * sum of x. Blocks go to lane (block mod 8): first
// one of the chunk that the row ends within, if it has such a chunk, then those of whole chunks in
// rising order; the lanes are added from 0 to 7. Both forms do the same operations in the same
// order, so that they agree bit for bit:
//   rows     few tokens: matmul_q8_rows.inl;
//   panels   many tokens: kLanes rows unpacked once, then vectors across rows, lane after lane.
//   What
//            a lane reads of the panels stays in the L1 cache while a group of tokens goes by.

namespace coterie {
namespace {

// Tokens that go by a lane of the panels.
constexpr int64_t kGroupTokens = 32;

// Panels of kLanes unpacked rows each. Blocks of one are stored lane after lane in LaneOrder, with
// room for one of every chunk: lanes without a block in the last chunk begin one later.
template <class Type>
struct Panels {
  using Block = PanelBlock<Type>;
  static_assert(sizeof(Block) <= PanelBlockBytes(kMaxLanes) && kPanelsAtOnce <= kMaxPanels);

  Panels(int64_t n_cols, uint8_t* scratch)
      : n_blocks(n_cols / 32),
        n_chunks((n_cols + kChunk - 1) / kChunk),
        order(n_blocks),
        rows(scratch),
        blocks(reinterpret_cast<Block*>(scratch + kLanes * n_chunks * kChunk)) {}

  Block* panel(int64_t p) const { return blocks + p * kChunkBlocks * n_chunks; }
  // Where in each lane of a panel the block of a chunk is.
  int64_t PlaceOf(int64_t chunk) const { return order.Step(0, chunk); }
  const Block* Lane(int64_t lane) const {
    return blocks + lane * n_chunks + (order.HasLast(0) && !order.HasLast(lane));
  }

  int64_t n_blocks;
  int64_t n_chunks;
  LaneOrder order;
  uint8_t* rows;  // [kLanes][n_chunks * 256], on their way to the blocks.
  Block* blocks;  // [kPanelsAtOnce][8 lanes][n_chunks]
};

// Spreads a chunk's scales and minima into lane r of a panel's blocks, n_chunks apart.
template <class Type>
inline void PlaceScales(const Chunk& c, int64_t r, PanelBlock<Type>* to, int64_t n_chunks) {
  alignas(32) float values[8];
  for (int half = 0; half < PanelBlock<Type>::kHalfCount; ++half) {
    Store8(values, c.d[half]);
    for (int i = 0; i < kChunkBlocks; ++i) to[i * n_chunks].d[half][r] = values[i];
  }
  if constexpr (Type::kHasMin) {
    Store8(values, c.m);
    for (int i = 0; i < kChunkBlocks; ++i) to[i * n_chunks].m[r] = values[i];
  }
}

template <class Type>
void UnpackRow(const Panels<Type>& panels, const uint8_t* row, int64_t r, PanelBlock<Type>* panel) {
  uint8_t* to = panels.rows + r * panels.n_chunks * kChunk;
  for (int64_t chunk = 0; chunk < panels.n_chunks; ++chunk, row += Type::kChunkBytes) {
    PrefetchLines(row, Type::kChunkBytes);
    Chunk c;
    ReadChunk<Type>(row, panels.n_blocks - chunk * kChunkBlocks, c);
    StoreBytes(c, to + chunk * kChunk);
    PlaceScales<Type>(c, r, panel + panels.PlaceOf(chunk), panels.n_chunks);
  }
}

// Unpacks rows [first, first + n_rows), n_rows <= kLanes. Lanes without a row keep stale bytes;
// their results are not stored.
template <class Type>
void UnpackPanel(const Panels<Type>& panels, const MatrixView& w, int64_t first, int64_t n_rows,
                 PanelBlock<Type>* panel) {
  const int64_t row_bytes = RowBytesOf<Type>(w.n_cols);
  for (int64_t r = 0; r < n_rows; ++r) {
    UnpackRow<Type>(panels, w.data + (first + r) * row_bytes, r, panel);
  }
  for (int64_t chunk = 0; chunk < panels.n_chunks; ++chunk) {
    PanelBlock<Type>* blocks = panel + panels.PlaceOf(chunk);
    for (int place = 0; place < kChunk / 4; place += kLanes) {
      uint8_t* to[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        const ChunkDword at = ChunkDwordAt(place + i);
        to[i] = blocks[at.block * panels.n_chunks].q + at.dword * 4 * kLanes;
      }
      TransposeDwords(panels.rows + kChunk * chunk + 4 * place, panels.n_chunks * kChunk, to);
    }
  }
}

// Sums of a group of tokens while lanes go by. y itself may have its rows where a cache has room
// for few of them.
template <int kPanels>
struct GroupSums {
  Vec* of(int64_t token) { return sums + token * kPanels; }
  Vec sums[kGroupTokens * kPanels];
};

// The blocks of one lane of kPanels panels times a tile of tokens: put into sums for the first
// lane, added for the others.
template <class Type, int kPanels, int kTokens>
inline void LaneTimesTile(const Panels<Type>& panels, int64_t lane, const QuantizedActivations& x,
                          int64_t token, Vec* sums) {
  Vec acc[kPanels][kTokens];
#pragma GCC unroll 2
  for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) acc[p][t] = Set1(0.0f);
  }
  const PanelBlock<Type>* block = panels.Lane(lane);
  const ActivationBlock* values = x.At(token, panels.order.Begin(lane));
  for (int64_t left = panels.order.Length(lane); left > 0; --left) {
    AddBlock<Type>(block++, kChunkBlocks * panels.n_chunks, values++, x.stride, acc);
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (int p = 0; p < kPanels; ++p) {
      Vec& sum = sums[t * kPanels + p];
      sum = lane == 0 ? acc[p][t] : Add(sum, acc[p][t]);
    }
  }
}

// n_rows: of the last panel.
template <class Type, int kPanels>
void PanelsTimesTokens(const Panels<Type>& panels, const QuantizedActivations& x, float* y,
                       int64_t y_stride, int64_t n_rows) {
  GroupSums<kPanels> group;
  for (int64_t begin = 0; begin < x.n_tokens; begin += kGroupTokens) {
    const int64_t end = x.n_tokens - begin < kGroupTokens ? x.n_tokens : begin + kGroupTokens;
    for (int64_t lane = 0; lane < kChunkBlocks; ++lane) {
      ForTiles<kPanelTile>(begin, end, [&](int64_t token, auto tile) {
        LaneTimesTile<Type, kPanels, tile.value>(panels, lane, x, token, group.of(token - begin));
      });
    }
    for (int64_t token = begin; token < end; ++token) {
      for (int p = 0; p < kPanels; ++p) {
        StoreN(y + token * y_stride + p * kLanes, group.of(token - begin)[p],
               p + 1 < kPanels ? kLanes : n_rows);
      }
    }
  }
}

template <class Type>
void PanelForm(const MatrixView& w, int64_t row_begin, int64_t row_end,
               const QuantizedActivations& x, float* y, int64_t y_stride, uint8_t* scratch) {
  const Panels<Type> panels(w.n_cols, scratch);
  for (int64_t row = row_begin; row < row_end; row += kPanelsAtOnce * kLanes) {
    int64_t n_rows = 0;
    int n_panels = 0;
    for (int64_t first = row; n_panels < kPanelsAtOnce && first < row_end; first += kLanes) {
      n_rows = row_end - first < kLanes ? row_end - first : kLanes;
      UnpackPanel<Type>(panels, w, first, n_rows, panels.panel(n_panels++));
    }
    if (n_panels == kPanelsAtOnce) {
      PanelsTimesTokens<Type, kPanelsAtOnce>(panels, x, y + row, y_stride, n_rows);
    } else {
      PanelsTimesTokens<Type, 1>(panels, x, y + row, y_stride, n_rows);
    }
  }
}

template <class Type>
void MatmulQ8(const MatrixView& w, int64_t row_begin, int64_t row_end,
              const QuantizedActivations& x, float* y, int64_t y_stride, uint8_t* scratch) {
  if (x.n_tokens > kRowTokens) {
    return PanelForm<Type>(w, row_begin, row_end, x, y, y_stride, scratch);
  }
  const RowActivations rows = ForRows<Type>(x, scratch);
  switch (x.n_tokens) {
    case 1:
      return RowsForm<Type, 1>(w, row_begin, row_end, rows, y, y_stride);
    case 2:
      return RowsForm<Type, 2>(w, row_begin, row_end, rows, y, y_stride);
    case 3:
      return RowsForm<Type, 3>(w, row_begin, row_end, rows, y, y_stride);
    case 4:
      return RowsForm<Type, 4>(w, row_begin, row_end, rows, y, y_stride);
    case 5:
      return RowsForm<Type, 5>(w, row_begin, row_end, rows, y, y_stride);
    case 6:
      return RowsForm<Type, 6>(w, row_begin, row_end, rows, y, y_stride);
    case 7:
      return RowsForm<Type, 7>(w, row_begin, row_end, rows, y, y_stride);
    case 8:
      return RowsForm<Type, 8>(w, row_begin, row_end, rows, y, y_stride);
    default:
      return;
  }
}

// Calls body with the quantised type; does nothing for others, which are matmul_f32's work.
template <typename Body>
inline void WithQuantizedType(TensorType type, Body body) {
  switch (type) {
    case TensorType::kQ4_0:
      return body(Q4_0());
    case TensorType::kQ4_1:
      return body(Q4_1());
    case TensorType::kQ5_0:
      return body(Q5_0());
    case TensorType::kQ5_1:
      return body(Q5_1());
    case TensorType::kQ8_0:
      return body(Q8_0());
    case TensorType::kQ4_K:
      return body(Q4_K());
    case TensorType::kQ5_K:
      return body(Q5_K());
    case TensorType::kQ6_K:
      return body(Q6_K());
    case TensorType::kF32:
    case TensorType::kF16:
    case TensorType::kBF16:
      return;
  }
}

void MatmulQ8Any(const MatrixView& w, int64_t row_begin, int64_t row_end,
                 const QuantizedActivations& x, float* y, int64_t y_stride, uint8_t* scratch) {
  WithQuantizedType(w.type, [&](auto type) {
    MatmulQ8<decltype(type)>(w, row_begin, row_end, x, y, y_stride, scratch);
  });
}

void MatmulQ8Rows(const MatrixView& w, const int32_t* rows, int64_t n_rows,
                  const QuantizedActivations& x, float* y, uint8_t* scratch) {
  WithQuantizedType(w.type, [&](auto type) {
    using Type = decltype(type);
    ListedRowsForm<Type>(w, rows, n_rows, ForRows<Type>(x, scratch), y);
  });
}

}  // namespace
}  // namespace coterie
