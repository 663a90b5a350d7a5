// The backward product of training with 8-bit operands and whole-number dot products: weights are
// unpacked and rounded again, each column of 32 rows with a scale of its own. For
// matmul_training.inl.

namespace coterie {
namespace {

constexpr int64_t kPanelsPerSlice = kChunk / kLanes;
constexpr int64_t kBlocksPerPanel = 16;  // Of 32 rows each: panels of a slice stay in the L2 cache.

using RoundedBlock = PanelBlock<Q8_0>;
static_assert(kPanelsPerSlice % kPanelsAtOnce == 0);

// What scratch is cut into.
struct RoundedScratch {
  explicit RoundedScratch(uint8_t* scratch)
      : panels(reinterpret_cast<RoundedBlock*>(scratch)),
        rows(reinterpret_cast<float*>(panels + kPanelsPerSlice * kBlocksPerPanel)) {}
  RoundedBlock* panels;  // [kPanelsPerSlice][kBlocksPerPanel]
  float* rows;           // [32][kChunk]
};

// kLanes columns of 32 rows, kChunk floats apart.
inline void RoundColumns(float* rows, RoundedBlock& to) {
  const auto largest_of = [rows] {
    Vec largest = Set1(1e-30f);
    for (int r = 0; r < 32; ++r) largest = MaxBits(largest, Abs(Load(rows + r * kChunk)));
    return largest;
  };
  Vec largest = largest_of();
  if (!(MaxBitsOf(largest) <= FLT_MAX)) {
    for (int r = 0; r < 32; ++r) {
      Store(rows + r * kChunk, FiniteOrZero(Load(rows + r * kChunk)));
    }
    largest = largest_of();
  }
  const Vec scale = Mul(largest, Set1(1.0f / 127));
  const Vec inverse = Div(Set1(127.0f), largest);
  Store(to.d[0], scale);
  for (int k = 0; k < 8; ++k) {
    Vec quad[4];
    for (int i = 0; i < 4; ++i) quad[i] = Mul(Load(rows + (4 * k + i) * kChunk), inverse);
    StoreQuads(to.q + 4 * kLanes * k, quad, Q8_0::kOffset);
  }
}

// n_cols columns of the rows that meet n_blocks blocks of x, from `place` on, into all panels of a
// slice.
void RoundSlice(const MatrixView& w, const QuantizedActivations& x, int64_t place, int64_t n_blocks,
                int64_t first_col, int64_t n_cols, const RoundedScratch& at) {
  const int64_t n_ahead = RowsAhead(w.type, n_cols);
  int64_t first_row = 32 * x.BlockAt(place);
  for (int64_t b = 0; b < n_blocks; ++b) {
    const int64_t next_row = b + 1 < n_blocks ? 32 * x.BlockAt(place + b + 1) : first_row;
    for (int64_t r = 0; r < 32; ++r) {
      const int64_t ahead = r + n_ahead < 32 ? first_row + r : next_row + r - 32;
      UnpackSlice(w, first_row + r, ahead + n_ahead, first_col, n_cols, at.rows + r * kChunk);
    }
    first_row = next_row;
    for (int64_t c = 0; c < n_cols; c += kLanes) {
      RoundColumns(at.rows + c, at.panels[c / kLanes * kBlocksPerPanel + b]);
    }
  }
}

// n_cols columns, of kPanelsAtOnce panels or fewer, times a tile of tokens.
template <int kTokens>
inline void RoundedTimesTile(const RoundedBlock* panels, int64_t n_blocks, int64_t n_cols,
                             const ActivationBlock* x, int64_t x_stride, float* y, int64_t y_stride,
                             bool first) {
  Vec acc[kPanelsAtOnce][kTokens];
#pragma GCC unroll 2
  for (int p = 0; p < kPanelsAtOnce; ++p) {
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) acc[p][t] = Set1(0.0f);
  }
  for (int64_t b = 0; b < n_blocks; ++b) {
    AddBlock<Q8_0>(panels + b, kBlocksPerPanel, x + b, x_stride, acc);
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (int p = 0; p < kPanelsAtOnce; ++p) {
      const int64_t left = n_cols - p * kLanes;
      if (left <= 0) continue;
      PutOrAdd(acc[p][t], first, left, y + t * y_stride + p * kLanes);
    }
  }
}

void BackwardQ8(const MatrixView& w, int64_t col_begin, int64_t col_end,
                const QuantizedActivations& x, const ProductOutput& y, uint8_t* scratch) {
  const RoundedScratch at(scratch);
  for (int64_t col = col_begin; col < col_end; col += kChunk) {
    const int64_t n_cols = col_end - col < kChunk ? col_end - col : kChunk;
    for (int64_t place = 0; place < x.n_blocks(); place += kBlocksPerPanel) {
      const int64_t left = x.n_blocks() - place;
      const int64_t n_blocks = left < kBlocksPerPanel ? left : kBlocksPerPanel;
      RoundSlice(w, x, place, n_blocks, col, n_cols, at);
      const bool first = place == 0 && !y.add;
      // Panels outside: what is read of them stays in the L1 cache while all tokens go by.
      for (int64_t c = 0; c < n_cols; c += kPanelsAtOnce * kLanes) {
        const RoundedBlock* panels = at.panels + c / kLanes * kBlocksPerPanel;
        ForTiles<kPanelTile>(0, x.n_tokens, [&](int64_t token, auto tile) {
          RoundedTimesTile<tile.value>(panels, n_blocks, n_cols - c, x.At(token, place), x.stride,
                                       y.y + token * y.stride + col + c, y.stride, first);
        });
      }
    }
  }
}

}  // namespace
}  // namespace coterie
