// The product with f32 activations: a panel of kLanes rows and up to 512 columns is dequantised and
// turned once, then multiplied with all tokens. Every result is one sum over columns in rising
// order, in one float, whatever the batch and the split of the rows.

namespace coterie {
namespace {

constexpr int kF32Tokens = 12;

// panel: [n_cols][kLanes] for columns [first_col, first_col + n_cols) of n_rows rows.
void DequantizePanel(const MatrixView& w, int64_t first_row, int64_t n_rows, int64_t first_col,
                     int64_t n_cols, float* rows, float* panel) {
  const BlockShape shape = ShapeOf(w.type);
  for (int64_t r = 0; r < n_rows; ++r) {
    const uint8_t* from =
        w.data + ((first_row + r) * w.n_cols + first_col) / shape.values * shape.bytes;
    DequantizeRow(w.type, from, n_cols, rows + r * kF32PanelColumns);
  }
  const int64_t padded = (n_cols + kLanes - 1) / kLanes * kLanes;
  for (int64_t col = 0; col < padded; col += kLanes) {
    uint8_t* to[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      to[i] = reinterpret_cast<uint8_t*>(panel + (col + i) * kLanes);
    }
    TransposeDwords(reinterpret_cast<const uint8_t*>(rows + col), kF32PanelColumns * 4, to);
  }
}

// y (kLanes rows of kTokens tokens) = panel * x, added to y unless this is the first panel.
template <int kTokens>
void F32PanelTimesTokens(const float* panel, int64_t n_cols, const float* x, int64_t x_stride,
                         float* y, int64_t y_stride, int64_t n_rows, bool is_first) {
  Vec acc[kTokens];
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
    acc[t] = is_first ? Set1(0.0f) : LoadN(y + t * y_stride, n_rows);
  }
  for (int64_t k = 0; k < n_cols; ++k) {
    const Vec w = Load(panel + k * kLanes);
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) acc[t] = Fma(w, Set1(x[t * x_stride + k]), acc[t]);
  }
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) StoreN(y + t * y_stride, acc[t], n_rows);
}

void F32PanelTimesAll(const float* panel, int64_t n_cols, const float* x, int64_t n_tokens,
                      int64_t x_stride, float* y, int64_t y_stride, int64_t n_rows, bool is_first) {
  int64_t t = 0;
  const auto run = [&](auto multiply, int n) {
    for (; n_tokens - t >= n; t += n) {
      multiply(panel, n_cols, x + t * x_stride, x_stride, y + t * y_stride, y_stride, n_rows,
               is_first);
    }
  };
  run(F32PanelTimesTokens<kF32Tokens>, kF32Tokens);
  run(F32PanelTimesTokens<4>, 4);
  run(F32PanelTimesTokens<1>, 1);
}

void MatmulF32(const MatrixView& w, int64_t row_begin, int64_t row_end, const float* x,
               int64_t n_tokens, int64_t x_stride, float* y, int64_t y_stride, uint8_t* scratch) {
  float* rows = reinterpret_cast<float*>(scratch);  // [kLanes][kF32PanelColumns]
  float* panel = rows + kLanes * kF32PanelColumns;  // [kF32PanelColumns][kLanes]
  for (int64_t row = row_begin; row < row_end; row += kLanes) {
    const int64_t n_rows = row_end - row < kLanes ? row_end - row : kLanes;
    for (int64_t col = 0; col < w.n_cols; col += kF32PanelColumns) {
      const int64_t left = w.n_cols - col;
      const int64_t n_cols = left < kF32PanelColumns ? left : kF32PanelColumns;
      DequantizePanel(w, row, n_rows, col, n_cols, rows, panel);
      F32PanelTimesAll(panel, n_cols, x + col, n_tokens, x_stride, y + row, y_stride, n_rows,
                       col == 0);
    }
  }
}

}  // namespace
}  // namespace coterie
