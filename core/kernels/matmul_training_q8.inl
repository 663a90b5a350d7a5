// The backward product of training with 8-bit operands and whole-number dot products: weights are
// unpacked and rounded again, each column of 32 rows with a scale of its own. For
// matmul_training.inl.

namespace coterie {
namespace {

constexpr int64_t kPanelsPerSlice = kChunk / kLanes;
constexpr int64_t kBlocksPerPanel = 16;  // Of 32 rows each: panels of a slice stay in the L2 cache.

using RoundedBlock = PanelBlock<Q8_0>;

// What scratch is cut into.
struct RoundedScratch {
  explicit RoundedScratch(uint8_t* scratch)
      : panels(reinterpret_cast<RoundedBlock*>(scratch)),
        rows(reinterpret_cast<float*>(panels + kPanelsPerSlice * kBlocksPerPanel)),
        sums(rows + 32 * kChunk) {}
  RoundedBlock* panels;  // [kPanelsPerSlice][kBlocksPerPanel]
  float* rows;           // [32][kChunk]
  float* sums;           // [kTokenTile][kBlocksPerPanel]
};

// kLanes columns of 32 rows, kChunk floats apart.
inline void RoundColumns(const float* rows, RoundedBlock& to) {
  Vec largest = Set1(1e-30f);
  for (int r = 0; r < 32; ++r) largest = Max(largest, Abs(FiniteOrZero(Load(rows + r * kChunk))));
  const Vec scale = Mul(largest, Set1(1.0f / 127));
  const Vec inverse = Div(Set1(127.0f), largest);
  Store(to.d[0], scale);
  Store(to.m[0], Mul(scale, Set1(-static_cast<float>(Q8_0::kOffset))));
  for (int k = 0; k < 8; ++k) {
    Vec quad[4];
    for (int i = 0; i < 4; ++i) {
      quad[i] = Mul(FiniteOrZero(Load(rows + (4 * k + i) * kChunk)), inverse);
    }
    StoreQuads(to.q + 4 * kLanes * k, quad, Q8_0::kOffset);
  }
}

// Rows from first_row on of n_cols columns, into all panels of a slice.
void RoundSlice(const MatrixView& w, int64_t first_row, int64_t n_blocks, int64_t first_col,
                int64_t n_cols, const RoundedScratch& at) {
  for (int64_t b = 0; b < n_blocks; ++b) {
    for (int64_t r = 0; r < 32; ++r) {
      UnpackSlice(w, first_row + 32 * b + r, first_col, n_cols, at.rows + r * kChunk);
    }
    for (int64_t c = 0; c < n_cols; c += kLanes) {
      RoundColumns(at.rows + c, at.panels[c / kLanes * kBlocksPerPanel + b]);
    }
  }
}

template <int kTokens>
void RoundedTimesTokens(const RoundedScratch& at, int64_t n_blocks, int64_t n_cols,
                        const QuantizedActivations& x, int64_t token, const ProductOutput& y,
                        int64_t first_col, bool first) {
  if constexpr (Q8_0::kHasBias)
    SumBlocks<Q8_0, kTokens>(x, token, n_blocks, at.sums, kBlocksPerPanel);
  for (int64_t c = 0; c < n_cols; c += kLanes) {
    const RoundedBlock* panel = at.panels + c / kLanes * kBlocksPerPanel;
    Vec acc[kTokens];
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) acc[t] = Set1(0.0f);
    for (int64_t b = 0; b < n_blocks; ++b) {
      AddBlock<Q8_0, kTokens>(panel[b], x, token, b, at.sums + b, kBlocksPerPanel, acc);
    }
    const int64_t left = n_cols - c;
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      float* to = y.y + (token + t) * y.stride + first_col + c;
      StoreN(to, first ? acc[t] : Add(LoadN(to, left), acc[t]), left);
    }
  }
}

void BackwardQ8(const MatrixView& w, int64_t col_begin, int64_t col_end,
                const QuantizedActivations& x, const ProductOutput& y, uint8_t* scratch) {
  const RoundedScratch at(scratch);
  for (int64_t col = col_begin; col < col_end; col += kChunk) {
    const int64_t n_cols = col_end - col < kChunk ? col_end - col : kChunk;
    for (int64_t row = 0; row < w.n_rows; row += 32 * kBlocksPerPanel) {
      const int64_t left = (w.n_rows - row) / 32;
      const int64_t n_blocks = left < kBlocksPerPanel ? left : kBlocksPerPanel;
      RoundSlice(w, row, n_blocks, col, n_cols, at);
      QuantizedActivations part = x;
      part.values += row;
      part.scales += row / 32;
      part.sums += row / 16;
      const bool first = row == 0 && !y.add;
      int64_t t = 0;
      for (; t + 8 <= x.n_tokens; t += 8) {
        RoundedTimesTokens<8>(at, n_blocks, n_cols, part, t, y, col, first);
      }
      for (; t < x.n_tokens; ++t) {
        RoundedTimesTokens<1>(at, n_blocks, n_cols, part, t, y, col, first);
      }
    }
  }
}

}  // namespace
}  // namespace coterie
