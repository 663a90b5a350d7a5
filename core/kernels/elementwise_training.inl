// Rows of floats in training: the backward sides of elementwise.inl, and bf16.

namespace coterie {
namespace {

void F32ToBF16(const float* x, int64_t n, uint16_t* y) {
  for (int64_t i = 0; i < n; i += kLanes) StoreBF16N(y + i, LoadN(x + i, n - i), n - i);
}

void BF16ToF32(const uint16_t* x, int64_t n, float* y) {
  for (int64_t i = 0; i < n; i += kLanes) StoreN(y + i, LoadBF16N(x + i, n - i), n - i);
}

// With r = 1 / sqrt(mean(x^2) + epsilon): dx += r (w dy) - x r^3 / n sum(w dy x).
void RmsNormBackward(const float* x, const float* weight, const float* dy, int64_t n, float epsilon,
                     float* dx) {
  const Vec squares = Fold(x, n, Set1(0.0f), [](Vec acc, Vec v) { return Fma(v, v, acc); });
  const float r = 1.0f / ::sqrtf(Sum(squares) / static_cast<float>(n) + epsilon);
  Vec dots = Set1(0.0f);
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i;
    dots = Fma(Mul(LoadN(weight + i, left), LoadN(dy + i, left)), LoadN(x + i, left), dots);
  }
  const Vec scale = Set1(r);
  const Vec pull = Set1(-r * r * r / static_cast<float>(n) * Sum(dots));
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i;
    const Vec straight = Mul(scale, Mul(LoadN(weight + i, left), LoadN(dy + i, left)));
    const Vec change = Fma(LoadN(x + i, left), pull, straight);
    StoreN(dx + i, Add(LoadN(dx + i, left), change), left);
  }
}

// Value and derivative of an activation.
struct Slope {
  Vec value, derivative;
};

// s = sigmoid(x): x s and s (1 + x (1 - s)).
inline Slope SiluSlope(Vec x) {
  const Vec one = Set1(1.0f);
  const Vec s = Div(one, Add(one, Exp(Sub(Set1(0.0f), x))));
  return {Mul(x, s), Mul(s, Fma(x, Sub(one, s), one))};
}

// t = tanh(u), u = c (x + k x^3): x (1 + t) / 2 and (1 + t) / 2 + x (1 - t^2) / 2 c (1 + 3 k x^2).
// With s = (1 + t) / 2 = 1 / (1 + e^-2u), (1 - t^2) / 2 is 2 s (1 - s).
inline Slope GeluTanhSlope(Vec x) {
  const Vec one = Set1(1.0f);
  const Vec square = Mul(x, x);
  const Vec u2 = Mul(Mul(x, Fma(square, Set1(0.044715f), one)), Set1(-2.0f * 0.79788456f));
  const Vec s = Div(one, Add(one, Exp(u2)));
  const Vec du = Mul(Set1(0.79788456f), Fma(square, Set1(3 * 0.044715f), one));
  const Vec tail = Mul(Mul(Mul(Set1(2.0f), x), Mul(s, Sub(one, s))), du);
  return {Mul(x, s), Add(s, tail)};
}

template <typename SlopeOf>
void GatedBackward(const float* gate, const float* up, const float* dy, int64_t n, float* dgate,
                   float* dup, float* y, SlopeOf slope_of) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i;
    const Slope slope = slope_of(LoadN(gate + i, left));
    const Vec u = LoadN(up + i, left), d = LoadN(dy + i, left);
    StoreN(dgate + i, Mul(Mul(d, u), slope.derivative), left);
    StoreN(dup + i, Mul(d, slope.value), left);
    StoreN(y + i, Mul(slope.value, u), left);
  }
}

void SiluMulBackward(const float* gate, const float* up, const float* dy, int64_t n, float* dgate,
                     float* dup, float* y) {
  GatedBackward(gate, up, dy, n, dgate, dup, y, SiluSlope);
}

void GeluTanhMulBackward(const float* gate, const float* up, const float* dy, int64_t n,
                         float* dgate, float* dup, float* y) {
  GatedBackward(gate, up, dy, n, dgate, dup, y, GeluTanhSlope);
}

float SoftmaxLse(float* x, int64_t n) {
  const float max = MaxOfRow(x, n);
  const Vec shift = Set1(max);
  Map(x, n, x, [shift](Vec v) { return Exp(Sub(v, shift)); });
  const float sum = Sum(Fold(x, n, Set1(0.0f), [](Vec acc, Vec v) { return Add(acc, v); }));
  const Vec scale = Set1(1.0f / sum);
  Map(x, n, x, [scale](Vec v) { return Mul(v, scale); });
  return max + ::logf(sum);
}

void ExpMinus(const float* x, const float* shift, int64_t n, float* y) {
  Map2(x, shift, n, y, [](Vec v, Vec s) { return Exp(Sub(v, s)); });
}

void SoftmaxBackward(const float* p, const float* dp, const float* shift, int64_t n, float* y) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i;
    const Vec d = Sub(LoadN(dp + i, left), LoadN(shift + i, left));
    StoreN(y + i, Mul(LoadN(p + i, left), d), left);
  }
}

void Transpose(const float* from, int64_t n_rows, int64_t n_cols, int64_t from_stride, float* to,
               int64_t to_stride) {
  int64_t r = 0;
  for (; r + kLanes <= n_rows; r += kLanes) {
    int64_t c = 0;
    for (; c + kLanes <= n_cols; c += kLanes) {
      uint8_t* out[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        out[i] = reinterpret_cast<uint8_t*>(to + (c + i) * to_stride + r);
      }
      TransposeDwords(reinterpret_cast<const uint8_t*>(from + r * from_stride + c), from_stride * 4,
                      out);
    }
    for (; c < n_cols; ++c) {
      for (int i = 0; i < kLanes; ++i) to[c * to_stride + r + i] = from[(r + i) * from_stride + c];
    }
  }
  for (; r < n_rows; ++r) {
    for (int64_t c = 0; c < n_cols; ++c) to[c * to_stride + r] = from[r * from_stride + c];
  }
}

}  // namespace
}  // namespace coterie
