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

  // Rounds a row to bf16 in place.
  static void Narrow(float* row, int64_t n) {
    uint16_t* to = reinterpret_cast<uint16_t*>(row);
    for (int64_t i = 0; i < n; i += kLanes) {
      const __m256bh half = _mm512_cvtneps_pbh(LoadN(row + i, n - i));
      _mm256_mask_storeu_epi16(to + i, FirstLanes(n - i), (__m256i)half);
    }
  }

  // For each 64 columns of the slice, panel[r / 2][c] = rows r and r + 1 of column c.
  static void PackColumns(const MatrixView& w, int64_t first_row, int64_t n_rows, int64_t first_col,
                          int64_t n_cols, int64_t rows_per_panel, float* rows, float* panel) {
    alignas(64) static constexpr uint16_t kInterleave[32] = {
        0, 16, 1, 17, 2, 18, 3, 19, 4,  20, 5,  21, 6,  22, 7,  23,
        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i order = _mm512_load_si512(kInterleave);
    for (int64_t r = 0; r < n_rows; r += 2) {
      DequantizeRow(w.type, RowFrom(w, first_row + r, first_col), n_cols, rows);
      const bool both = r + 1 < n_rows;
      if (both) {
        DequantizeRow(w.type, RowFrom(w, first_row + r + 1, first_col), n_cols, rows + kChunk);
      }
      for (int64_t c = 0; c < n_cols; c += kLanes) {
        const Vec even = LoadN(rows + c, n_cols - c);
        const Vec odd = both ? LoadN(rows + kChunk + c, n_cols - c) : Set1(0.0f);
        const __m512i pairs =
            _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(odd, even));
        float* to = panel + (c / kPanelColumns * (rows_per_panel / 2) + r / 2) * kPanelColumns;
        Store(to + c % kPanelColumns, _mm512_castsi512_ps(pairs));
      }
    }
  }
};

}  // namespace
}  // namespace coterie
