// The products of training: a panel of weights is unpacked once, [sum][kPanelColumns], and used by
// all tokens, kTileTokens of them at a time. Sums run over rising indices in f32, so that neither
// the batch nor the split shows in the bits.

namespace coterie {
namespace {

constexpr int kPanelColumns = 64;
constexpr int kTileVectors = kLanes == 16 ? 4 : 2;  // Vectors of outputs in a tile,
constexpr int kTileTokens = kLanes == 16 ? 6 : 4;   // and tokens: what the registers hold.
constexpr int kPanelSums = 512;                     // Elements that a panel sums over,
constexpr int kMaxRowValues = 1024;                 // and values, bf16 being two in an element.

// Outputs from vector v on that a tile may touch.
inline int64_t LeftOf(int64_t n_outputs, int v) {
  const int64_t left = n_outputs - v * kLanes;
  return left > 0 ? left : 0;
}

// What multiplies: one float, or two bf16 values that stand side by side.
struct OneF32 {
  using Value = float;
  using Element = float;
  static constexpr int kWidth = 1;
  static Vec LoadPanel(const Element* p) { return Load(p); }
  static Vec MulAdd(Vec acc, const Value* x, Vec w) { return Fma(Set1(*x), w, acc); }
};

// y (n_outputs columns of kTokens tokens) += panel * x, or = if `first`.
template <class Product, int kTokens, int kVectors>
void Tile(const typename Product::Element* panel, int64_t n_sums, const typename Product::Value* x,
          int64_t x_stride, float* y, int64_t y_stride, int64_t n_outputs, bool first) {
  Vec acc[kTokens][kVectors];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      acc[t][v] = Set1(0.0f);
    }
  }
  for (int64_t k = 0; k < n_sums; ++k) {
    Vec w[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      w[v] = Product::LoadPanel(panel + k * kPanelColumns + v * kLanes);
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        acc[t][v] = Product::MulAdd(acc[t][v], x + t * x_stride + k * Product::kWidth, w[v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      // Panels are summed apart: in one long sum over a vocabulary, rounding adds up.
      const int64_t left = LeftOf(n_outputs, v);
      float* to = y + t * y_stride + v * kLanes;
      PutOrAdd(acc[t][v], first, left, to);
    }
  }
}

// All tokens of up to kVectors * kLanes outputs.
template <class Product, int kVectors>
void TileAll(const typename Product::Element* panel, int64_t n_sums,
             const ProductInput<typename Product::Value>& x, int64_t first_sum, float* y,
             int64_t y_stride, int64_t n_outputs, bool first) {
  int64_t t = 0;
  const auto run = [&](auto tile, int n) {
    for (; x.n_tokens - t >= n; t += n) {
      tile(panel, n_sums, x.x + t * x.stride + first_sum, x.stride, y + t * y_stride, y_stride,
           n_outputs, first);
    }
  };
  run(Tile<Product, kTileTokens, kVectors>, kTileTokens);
  run(Tile<Product, 2, kVectors>, 2);
  run(Tile<Product, 1, kVectors>, 1);
}

// The product of a panel with all tokens, in tiles as wide as there are outputs.
template <class Product>
void PanelTimesTokens(const typename Product::Element* panel, int64_t n_sums,
                      const ProductInput<typename Product::Value>& x, int64_t first_sum, float* y,
                      int64_t y_stride, int64_t n_outputs, bool first) {
  for (int64_t c = 0; c < n_outputs;) {
    const int64_t left = n_outputs - c;
    if (left > kLanes) {
      TileAll<Product, kTileVectors>(panel + c, n_sums, x, first_sum, y + c, y_stride, left, first);
      c += kTileVectors * kLanes;
    } else {
      TileAll<Product, 1>(panel + c, n_sums, x, first_sum, y + c, y_stride, left, first);
      c += kLanes;
    }
  }
}

// Where the values of a row from `col` on lie; col stands between blocks.
inline const uint8_t* RowFrom(const MatrixView& w, int64_t row, int64_t col) {
  const BlockShape shape = ShapeOf(w.type);
  return w.data + (row * w.n_cols + col) / shape.values * shape.bytes;
}

// How many rows ahead of the one that is unpacked a slice of n_cols columns is asked for: the rows
// of a slice lie too far apart for the hardware to foresee.
inline int64_t RowsAhead(TensorType type, int64_t n_cols) {
  constexpr int64_t kBytesAhead = 2048, kMostRowsAhead = 32;
  const BlockShape shape = ShapeOf(type);
  const int64_t n_bytes = n_cols / shape.values * shape.bytes;
  return n_bytes * kMostRowsAhead < kBytesAhead ? kMostRowsAhead
                                                : (kBytesAhead + n_bytes - 1) / n_bytes;
}

// n_cols weights of a row from first_col on, the same of row_ahead, which need not be one of w's,
// on their way to the cache.
inline void UnpackSlice(const MatrixView& w, int64_t row, int64_t row_ahead, int64_t first_col,
                        int64_t n_cols, float* to) {
  const BlockShape shape = ShapeOf(w.type);
  const int64_t n_bytes = n_cols / shape.values * shape.bytes;
  const uint8_t* ahead = RowFrom(w, row_ahead, first_col);
  for (int64_t i = 0; i < n_bytes; i += 64) __builtin_prefetch(ahead + i);
  __builtin_prefetch(ahead + n_bytes - 1);
  DequantizeRow(w.type, RowFrom(w, row, first_col), n_cols, to);
}

// What scratch is cut into.
struct TrainingScratch {
  explicit TrainingScratch(uint8_t* scratch)
      : panel(reinterpret_cast<float*>(scratch)), rows(panel + kPanelSums * kPanelColumns) {}
  float* panel;  // [kPanelSums][kPanelColumns]
  float* rows;   // [kLanes][kMaxRowValues], or two slices of a row
};

// panel[k][r] = w[first_row + r, first_col + k].
struct PackRows {
  template <class Product>
  static void Pack(const MatrixView& w, int64_t first_row, int64_t n_rows, int64_t first_col,
                   int64_t n_cols, float* rows, typename Product::Element* panel) {
    for (int64_t r0 = 0; r0 < n_rows; r0 += kLanes) {
      const int64_t n = n_rows - r0 < kLanes ? n_rows - r0 : kLanes;
      for (int64_t r = 0; r < n; ++r) {
        Product::UnpackRow(w, first_row + r0 + r, first_col, n_cols, rows + r * kMaxRowValues);
      }
      const int64_t n_dwords = n_cols / Product::kWidth;
      for (int64_t k = 0; k < n_dwords; k += kLanes) {
        uint8_t* to[kLanes];
        for (int i = 0; i < kLanes; ++i) {
          to[i] = reinterpret_cast<uint8_t*>(panel + (k + i) * kPanelColumns + r0);
        }
        TransposeDwords(reinterpret_cast<const uint8_t*>(rows + k), kMaxRowValues * 4, to);
      }
    }
  }
};

template <class Product>
void Forward(const MatrixView& w, int64_t row_begin, int64_t row_end,
             const ProductInput<typename Product::Value>& x, const ProductOutput& y,
             uint8_t* scratch) {
  const TrainingScratch at(scratch);
  auto* panel = reinterpret_cast<typename Product::Element*>(at.panel);
  constexpr int64_t kSums = kPanelSums * Product::kWidth;
  for (int64_t row = row_begin; row < row_end; row += kPanelColumns) {
    const int64_t n_rows = row_end - row < kPanelColumns ? row_end - row : kPanelColumns;
    for (int64_t col = 0; col < w.n_cols; col += kSums) {
      const int64_t n_cols = w.n_cols - col < kSums ? w.n_cols - col : kSums;
      PackRows::Pack<Product>(w, row, n_rows, col, n_cols, at.rows, panel);
      PanelTimesTokens<Product>(panel, n_cols / Product::kWidth, x, col, y.y + row, y.stride,
                                n_rows, col == 0 && !y.add);
    }
  }
}

template <class Product>
void Backward(const MatrixView& w, int64_t col_begin, int64_t col_end,
              const ProductInput<typename Product::Value>& x, const ProductOutput& y,
              uint8_t* scratch) {
  const TrainingScratch at(scratch);
  auto* panel = reinterpret_cast<typename Product::Element*>(at.panel);
  // Whole blocks of a row are unpacked at a time, and leave room for fewer rows.
  const int64_t slice = ShapeOf(w.type).values > 1 ? kChunk : kPanelColumns;
  const int64_t rows_per_panel = kPanelSums * Product::kWidth * kPanelColumns / slice;
  for (int64_t col = col_begin; col < col_end; col += slice) {
    const int64_t n_cols = col_end - col < slice ? col_end - col : slice;
    for (int64_t row = 0; row < w.n_rows; row += rows_per_panel) {
      const int64_t n_rows = w.n_rows - row < rows_per_panel ? w.n_rows - row : rows_per_panel;
      Product::PackColumns(w, row, n_rows, col, n_cols, rows_per_panel, at.rows, panel);
      const int64_t n_sums = (n_rows + Product::kWidth - 1) / Product::kWidth;
      for (int64_t c = 0; c < n_cols; c += kPanelColumns) {
        const int64_t n = n_cols - c < kPanelColumns ? n_cols - c : kPanelColumns;
        PanelTimesTokens<Product>(
            panel + c / kPanelColumns * (rows_per_panel / Product::kWidth) * kPanelColumns, n_sums,
            x, row, y.y + col + c, y.stride, n, row == 0 && !y.add);
      }
    }
  }
}

struct F32Product : OneF32 {
  static void UnpackRow(const MatrixView& w, int64_t row, int64_t first_col, int64_t n_cols,
                        float* to) {
    DequantizeRow(w.type, RowFrom(w, row, first_col), n_cols, to);
  }

  // For each 64 columns of the slice, panel[r][c] = w[first_row + r, first_col + c].
  static void PackColumns(const MatrixView& w, int64_t first_row, int64_t n_rows, int64_t first_col,
                          int64_t n_cols, int64_t rows_per_panel, float* rows, float* panel) {
    const int64_t n_ahead = RowsAhead(w.type, n_cols);
    for (int64_t r = first_row; r < first_row + n_rows; ++r) {
      UnpackSlice(w, r, r + n_ahead, first_col, n_cols, rows);
      for (int64_t c = 0; c < n_cols; c += kLanes) {
        float* to = panel + (c / kPanelColumns * rows_per_panel + r - first_row) * kPanelColumns;
        Store(to + c % kPanelColumns, LoadN(rows + c, n_cols - c));
      }
    }
  }
};

}  // namespace
}  // namespace coterie
