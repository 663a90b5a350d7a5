// The products of training in bf16, two summed values at a time (VDPBF16PS: pairs of bf16, f32
// sums). For matmul_training.inl.

namespace coterie {
namespace {

struct PairBF16 {
  using Value = uint16_t;
  using Element = float;  // Two bf16 values.
  static constexpr int kWidth = 2;
  static Vec LoadPanel(const Element* p) { return Load(p); }
  static Vec MulAdd(Vec acc, const Value* x, Vec w) {
    int32_t pair;
    memcpy(&pair, x, sizeof(pair));
    return _mm512_dpbf16_ps(acc, (__m512bh)_mm512_set1_epi32(pair), (__m512bh)w);
  }

  // In place of the floats: pairs of bf16.
  static void UnpackRow(const MatrixView& w, int64_t row, int64_t first_col, int64_t n_cols,
                        float* to) {
    const uint8_t* from = RowFrom(w, row, first_col);
    if (w.type == TensorType::kBF16) {
      memcpy(to, from, static_cast<size_t>(n_cols) * 2);
      return;
    }
    DequantizeRow(w.type, from, n_cols, to);
    uint16_t* narrow = reinterpret_cast<uint16_t*>(to);
    for (int64_t i = 0; i < n_cols; i += kLanes) {
      const __m256bh half = _mm512_cvtneps_pbh(LoadN(to + i, n_cols - i));
      _mm256_mask_storeu_epi16(narrow + i, FirstLanes(n_cols - i), (__m256i)half);
    }
  }

  // Columns of two rows side by side, the upper row in the upper half of each dword.
  static Vec Interleave(__m512i two_rows) {
    alignas(64) static constexpr uint16_t kInterleave[32] = {
        0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return _mm512_castsi512_ps(_mm512_permutexvar_epi16(_mm512_load_si512(kInterleave), two_rows));
  }

  // For each 64 columns of the slice, panel[r / 2][c] = rows r and r + 1 of column c.
  static void PackColumns(const MatrixView& w, int64_t first_row, int64_t n_rows, int64_t first_col,
                          int64_t n_cols, int64_t rows_per_panel, float* rows, float* panel) {
    const bool as_stored = w.type == TensorType::kBF16;
    const int64_t n_ahead = RowsAhead(w.type, n_cols);
    for (int64_t r = 0; r < n_rows; r += 2) {
      const bool both = r + 1 < n_rows;
      if (!as_stored) {
        const int64_t row = first_row + r;
        UnpackSlice(w, row, row + n_ahead, first_col, n_cols, rows);
        if (both) UnpackSlice(w, row + 1, row + 1 + n_ahead, first_col, n_cols, rows + kChunk);
      }
      const auto* even = reinterpret_cast<const uint16_t*>(RowFrom(w, first_row + r, first_col));
      for (int64_t c = 0; c < n_cols; c += kLanes) {
        const int64_t left = n_cols - c;
        __m512i two_rows;
        if (as_stored) {
          const __m256i odd =
              _mm256_maskz_loadu_epi16(FirstLanes(both ? left : 0), even + w.n_cols + c);
          two_rows = _mm512_inserti64x4(
              _mm512_castsi256_si512(_mm256_maskz_loadu_epi16(FirstLanes(left), even + c)), odd, 1);
        } else {
          const Vec odd = both ? LoadN(rows + kChunk + c, left) : Set1(0.0f);
          two_rows = (__m512i)_mm512_cvtne2ps_pbh(odd, LoadN(rows + c, left));
        }
        float* to = panel + (c / kPanelColumns * (rows_per_panel / 2) + r / 2) * kPanelColumns;
        Store(to + c % kPanelColumns, Interleave(two_rows));
      }
    }
  }
};

}  // namespace
}  // namespace coterie
