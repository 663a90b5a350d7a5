// The two halves of a low-rank product B (A x). Every result is one sum in one order, whatever the
// tile of rows and tokens it fell into.

namespace coterie {
namespace {

constexpr int kNarrowRows = 4;
constexpr int kLowRankTokens = kLanes == 16 ? 4 : 2;  // As many sums as there are registers for.

template <int kRows, int kTokens>
void NarrowTile(const uint16_t* a, int64_t n_cols, const float* x, int64_t x_stride, float scale,
                float* u, int64_t u_stride) {
  Vec acc[kTokens][kRows];
  for (int t = 0; t < kTokens; ++t) {
    for (int r = 0; r < kRows; ++r) acc[t][r] = Set1(0.0f);
  }
  const auto step = [&](auto load_x, auto load_a) {
    Vec columns[kTokens];
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) columns[t] = load_x(x + t * x_stride);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const Vec weights = load_a(a + r * n_cols);
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) acc[t][r] = Fma(weights, columns[t], acc[t][r]);
    }
  };
  int64_t c = 0;
  for (; c + kLanes <= n_cols; c += kLanes) {
    step([c](const float* p) { return Load(p + c); },
         [c](const uint16_t* p) { return LoadF16(p + c); });
  }
  if (const int64_t left = n_cols - c; left > 0) {
    step([c, left](const float* p) { return LoadN(p + c, left); },
         [c, left](const uint16_t* p) { return LoadF16N(p + c, left); });
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int r = 0; r < kRows; ++r) u[t * u_stride + r] = scale * Sum(acc[t][r]);
  }
}

template <int kTokens>
void NarrowTokens(const MatrixView& a, const float* x, int64_t x_stride, float scale, float* u,
                  int64_t u_stride) {
  const uint16_t* rows = reinterpret_cast<const uint16_t*>(a.data);
  int64_t r = 0;
  for (; r + kNarrowRows <= a.n_rows; r += kNarrowRows) {
    NarrowTile<kNarrowRows, kTokens>(rows + r * a.n_cols, a.n_cols, x, x_stride, scale, u + r,
                                     u_stride);
  }
  for (; r < a.n_rows; ++r) {
    NarrowTile<1, kTokens>(rows + r * a.n_cols, a.n_cols, x, x_stride, scale, u + r, u_stride);
  }
}

void LowRankNarrow(const MatrixView& a, const float* x, int64_t n_tokens, int64_t x_stride,
                   float scale, float* u, int64_t u_stride) {
  int64_t t = 0;
  for (; t + kLowRankTokens <= n_tokens; t += kLowRankTokens) {
    NarrowTokens<kLowRankTokens>(a, x + t * x_stride, x_stride, scale, u + t * u_stride, u_stride);
  }
  for (; t < n_tokens; ++t) {
    NarrowTokens<1>(a, x + t * x_stride, x_stride, scale, u + t * u_stride, u_stride);
  }
}

template <int kTokens>
void WidenTokens(const MatrixView& b, int64_t row_begin, int64_t row_end, const float* u,
                 int64_t u_stride, float* y, int64_t y_stride) {
  const uint16_t* columns = reinterpret_cast<const uint16_t*>(b.data);
  const auto add = [&](int64_t row, auto load, auto load_f16, auto store) {
    Vec acc[kTokens];
    for (int t = 0; t < kTokens; ++t) acc[t] = load(y + t * y_stride + row);
    for (int64_t k = 0; k < b.n_rows; ++k) {
      const Vec weights = load_f16(columns + k * b.n_cols + row);
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) acc[t] = Fma(weights, Set1(u[t * u_stride + k]), acc[t]);
    }
    for (int t = 0; t < kTokens; ++t) store(y + t * y_stride + row, acc[t]);
  };
  int64_t row = row_begin;
  for (; row + kLanes <= row_end; row += kLanes) {
    add(row, Load, LoadF16, Store);
  }
  if (const int64_t left = row_end - row; left > 0) {
    add(
        row, [left](const float* p) { return LoadN(p, left); },
        [left](const uint16_t* p) { return LoadF16N(p, left); },
        [left](float* p, Vec v) { StoreN(p, v, left); });
  }
}

void LowRankWiden(const MatrixView& b, int64_t row_begin, int64_t row_end, const float* u,
                  int64_t n_tokens, int64_t u_stride, float* y, int64_t y_stride) {
  int64_t t = 0;
  for (; t + kLowRankTokens <= n_tokens; t += kLowRankTokens) {
    WidenTokens<kLowRankTokens>(b, row_begin, row_end, u + t * u_stride, u_stride, y + t * y_stride,
                                y_stride);
  }
  for (; t < n_tokens; ++t) {
    WidenTokens<1>(b, row_begin, row_end, u + t * u_stride, u_stride, y + t * y_stride, y_stride);
  }
}

}  // namespace
}  // namespace coterie
