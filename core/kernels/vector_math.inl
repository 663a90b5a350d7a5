// Functions of vectors, and loops that map and fold rows with them.

namespace coterie {
namespace {

// e^x for finite x, relative error < 3e-7; 0 below -87.3, about e^88.3 above 88.3; NaN stays NaN.
// x = n ln 2 + r, |r| <= ln(2) / 2, e^r by its Taylor series to r^7; ln 2 is split so that n times
// its upper part is exact.
inline Vec Exp(Vec x) {
  const Vec bounded = Max(Set1(-87.3f), Min(Set1(88.3f), x));
  const Vec n = Round(Mul(bounded, Set1(1.44269504f)));
  const Vec r = Fnma(n, Set1(-2.12194440e-4f), Fnma(n, Set1(0.693359375f), bounded));
  Vec sum = Set1(1.0f / 5040);
  sum = Fma(sum, r, Set1(1.0f / 720));
  sum = Fma(sum, r, Set1(1.0f / 120));
  sum = Fma(sum, r, Set1(1.0f / 24));
  sum = Fma(sum, r, Set1(1.0f / 6));
  sum = Fma(sum, r, Set1(0.5f));
  sum = Fma(sum, r, Set1(1.0f));
  sum = Fma(sum, r, Set1(1.0f));
  return ZeroBelow(Scale2(sum, n), x, -87.3f);
}

// x / (1 + e^-x)
inline Vec Silu(Vec x) { return Div(x, Add(Set1(1.0f), Exp(Sub(Set1(0.0f), x)))); }

// erf, absolute error < 5e-7 (Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26).
inline Vec Erf(Vec x) {
  const Vec a = Abs(x);
  const Vec t = Div(Set1(1.0f), Fma(Set1(0.3275911f), a, Set1(1.0f)));
  Vec p = Set1(1.061405429f);
  p = Fma(p, t, Set1(-1.453152027f));
  p = Fma(p, t, Set1(1.421413741f));
  p = Fma(p, t, Set1(-0.284496736f));
  p = Fma(p, t, Set1(0.254829592f));
  const Vec tail = Mul(Mul(p, t), Exp(Sub(Set1(0.0f), Mul(a, a))));
  return WithSign(Sub(Set1(1.0f), tail), x);
}

// 0.5 x (1 + erf(x / sqrt 2))
inline Vec GeluErf(Vec x) {
  return Mul(Mul(Set1(0.5f), x), Add(Set1(1.0f), Erf(Mul(x, Set1(0.70710678f)))));
}

// 0.5 x (1 + tanh(u)) = x / (1 + e^-2u) with u = sqrt(2 / pi) (x + 0.044715 x^3)
inline Vec GeluTanh(Vec x) {
  const Vec cubic = Mul(Mul(x, x), Mul(x, Set1(0.044715f)));
  const Vec u = Mul(Add(x, cubic), Set1(-2.0f * 0.79788456f));
  return Div(x, Add(Set1(1.0f), Exp(u)));
}

// Calls body(i, size) for tiles of kTile from `begin` on, and a last one of fewer; size.value is
// the tile's as a compile-time constant.
template <int kTile>
struct TileSize {
  static constexpr int value = kTile;
};
template <int kTile, typename Body>
inline void ForTiles(int64_t begin, int64_t end, Body body) {
  for (; end - begin >= kTile; begin += kTile) body(begin, TileSize<kTile>());
  if constexpr (kTile > 1) ForTiles<kTile - 1>(begin, end, body);
}

// y[i] = op(x[i]) and y[i] = op(a[i], b[i]); in place allowed.
template <typename Op>
inline void Map(const float* x, int64_t n, float* y, Op op) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) Store(y + i, op(Load(x + i)));
  if (i < n) StoreN(y + i, op(LoadN(x + i, n - i)), n - i);
}
template <typename Op>
inline void Map2(const float* a, const float* b, int64_t n, float* y, Op op) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) Store(y + i, op(Load(a + i), Load(b + i)));
  if (i < n) StoreN(y + i, op(LoadN(a + i, n - i), LoadN(b + i, n - i)), n - i);
}
// y = v, or y += v if not `first`; the first n lanes. Stores that mask lanes are slow in AVX2.
inline void PutOrAdd(Vec v, bool first, int64_t n, float* y) {
  if (n >= kLanes) {
    Store(y, first ? v : Add(Load(y), v));
  } else {
    StoreN(y, first ? v : Add(LoadN(y, n), v), n);
  }
}
// The largest of n >= 1 values.
inline float MaxOfRow(const float* x, int64_t n) {
  float max = x[0];
  int64_t i = 0;
  if (n >= kLanes) {
    Vec maxima = Load(x);
    for (; i + kLanes <= n; i += kLanes) maxima = Max(maxima, Load(x + i));
    max = MaxOf(maxima);
  }
  for (; i < n; ++i) max = x[i] > max ? x[i] : max;
  return max;
}
// Folds op(acc, x) over x; lanes beyond n see zeros.
template <typename Op>
inline Vec Fold(const float* x, int64_t n, Vec acc, Op op) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) acc = op(acc, Load(x + i));
  if (i < n) acc = op(acc, LoadN(x + i, n - i));
  return acc;
}

}  // namespace
}  // namespace coterie
