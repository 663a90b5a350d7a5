// Vectors of 8 floats in portable C++, for the kernels written over Vec. Included once per source
// file, so everything lives in an anonymous namespace: no instruction leaks into another file.

namespace coterie {
namespace {

constexpr int kLanes = 8;

struct Vec {
  float lane[kLanes];
};
using Vec8 = Vec;
struct IntVec {
  int32_t lane[kLanes];
};

template <typename Op>
inline Vec Each(Op op) {
  Vec r;
  for (int i = 0; i < kLanes; ++i) r.lane[i] = op(i);
  return r;
}

inline Vec Set1(float x) {
  return Each([&](int) { return x; });
}
inline Vec8 Set8(float x) { return Set1(x); }
inline Vec Load(const float* p) {
  return Each([&](int i) { return p[i]; });
}
inline Vec8 Load8(const float* p) { return Load(p); }
inline Vec LoadN(const float* p, int64_t n) {
  return Each([&](int i) { return i < n ? p[i] : 0.0f; });
}
inline Vec8 Load8N(const float* p, int64_t n) { return LoadN(p, n); }
inline void Store(float* p, Vec v) { memcpy(p, v.lane, sizeof(v.lane)); }
inline void Store8(float* p, Vec8 v) { Store(p, v); }
inline void StoreN(float* p, Vec v, int64_t n) {
  for (int i = 0; i < kLanes && i < n; ++i) p[i] = v.lane[i];
}

inline Vec Add(Vec a, Vec b) {
  return Each([&](int i) { return a.lane[i] + b.lane[i]; });
}
inline Vec Sub(Vec a, Vec b) {
  return Each([&](int i) { return a.lane[i] - b.lane[i]; });
}
inline Vec Mul(Vec a, Vec b) {
  return Each([&](int i) { return a.lane[i] * b.lane[i]; });
}
inline Vec Div(Vec a, Vec b) {
  return Each([&](int i) { return a.lane[i] / b.lane[i]; });
}
// A NaN in b comes through.
inline Vec Max(Vec a, Vec b) {
  return Each([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
inline Vec Min(Vec a, Vec b) {
  return Each([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
}
inline Vec Abs(Vec a) {
  return Each([&](int i) { return __builtin_fabsf(a.lane[i]); });
}
// a * b + c and c - a * b; rounded once where the instruction set can.
inline Vec Fma(Vec a, Vec b, Vec c) { return Add(Mul(a, b), c); }
inline Vec Fnma(Vec a, Vec b, Vec c) { return Sub(c, Mul(a, b)); }
inline Vec Round(Vec a) {
  return Each([&](int i) { return ::rintf(a.lane[i]); });
}
// x with the sign of s.
inline Vec WithSign(Vec x, Vec s) {
  return Each([&](int i) { return __builtin_copysignf(x.lane[i], s.lane[i]); });
}
// x where `at` >= bound or `at` is NaN, else 0.
inline Vec ZeroBelow(Vec x, Vec at, float bound) {
  return Each([&](int i) { return at.lane[i] < bound ? 0.0f : x.lane[i]; });
}
// x where it is finite, else 0.
inline Vec FiniteOrZero(Vec x) {
  return Each([&](int i) { return __builtin_fabsf(x.lane[i]) <= FLT_MAX ? x.lane[i] : 0.0f; });
}
// x * 2^n for whole n in [-126, 127].
inline Vec Scale2(Vec x, Vec n) {
  return Each([&](int i) {
    const uint32_t bits = static_cast<uint32_t>(static_cast<int32_t>(n.lane[i]) + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return x.lane[i] * power;
  });
}
inline float Sum(Vec a) {
  float sum = a.lane[0];
  for (int i = 1; i < kLanes; ++i) sum += a.lane[i];
  return sum;
}
inline float MaxOf(Vec a) {
  float max = a.lane[0];
  for (int i = 1; i < kLanes; ++i) max = a.lane[i] > max ? a.lane[i] : max;
  return max;
}
inline uint32_t BitsOf(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits;
}
// The larger in bits of values that are not negative: NaN is above Inf.
inline Vec MaxBits(Vec a, Vec b) {
  return Each([&](int i) { return BitsOf(b.lane[i]) > BitsOf(a.lane[i]) ? b.lane[i] : a.lane[i]; });
}
inline float MaxBitsOf(Vec a) {
  float max = a.lane[0];
  for (int i = 1; i < kLanes; ++i) max = BitsOf(a.lane[i]) > BitsOf(max) ? a.lane[i] : max;
  return max;
}
// Finds 2^n by counting leading zeros, so that subnormals, Inf and NaN come out as hardware does.
inline float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = (half >> 10) & 31;
  uint32_t mantissa = half & 1023;
  uint32_t bits = sign;
  if (exponent == 31) {
    bits |= 0x7f800000u | mantissa << 13 | (mantissa != 0 ? 0x400000u : 0u);
  } else if (exponent != 0) {
    bits |= (exponent + 112) << 23 | mantissa << 13;
  } else if (mantissa != 0) {
    const int shift = __builtin_clz(mantissa) - 21;
    bits |= static_cast<uint32_t>(113 - shift) << 23 | (mantissa << shift & 1023) << 13;
  }
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

inline uint16_t FloatToHalf(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  bits &= 0x7fffffff;
  if (bits > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00 | (bits >> 13 & 0x3ff));
  if (bits >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00);  // Rounds past 65504.
  if (bits < 0x38800000u) {  // Below 2^-14: adding 0.5 aligns the mantissa and rounds it.
    float magnitude;
    memcpy(&magnitude, &bits, 4);
    magnitude += 0.5f;
    memcpy(&bits, &magnitude, 4);
    return static_cast<uint16_t>(sign | (bits - 0x3f000000u));
  }
  const uint32_t odd = bits >> 13 & 1;
  return static_cast<uint16_t>(sign | ((bits - 0x38000000u + 0xfff + odd) >> 13));
}

inline Vec LoadF16(const uint16_t* p) {
  return Each([&](int i) { return HalfToFloat(p[i]); });
}
inline Vec LoadF16N(const uint16_t* p, int64_t n) {
  return Each([&](int i) { return i < n ? HalfToFloat(p[i]) : 0.0f; });
}
inline void StoreF16N(uint16_t* p, Vec v, int64_t n) {
  for (int i = 0; i < kLanes && i < n; ++i) p[i] = FloatToHalf(v.lane[i]);
}
inline void StoreF16(uint16_t* p, Vec v) { StoreF16N(p, v, kLanes); }

// bf16 is the upper half of an f32; rounded to nearest even.
inline Vec LoadBF16N(const uint16_t* p, int64_t n) {
  return Each([&](int i) {
    const uint32_t bits = i < n ? static_cast<uint32_t>(p[i]) << 16 : 0;
    float value;
    memcpy(&value, &bits, 4);
    return value;
  });
}
inline void StoreBF16N(uint16_t* p, Vec v, int64_t n) {
  for (int i = 0; i < kLanes && i < n; ++i) {
    uint32_t bits;
    memcpy(&bits, &v.lane[i], 4);
    const bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
    bits = is_nan ? bits | 0x400000 : bits + 0x7fff + ((bits >> 16) & 1);
    p[i] = static_cast<uint16_t>(bits >> 16);
  }
}

// kLanes bytes less offset, as floats.
template <bool kSigned>
inline Vec LoadBytes(const uint8_t* p, int offset) {
  return Each([&](int i) {
    const int byte = kSigned ? static_cast<int8_t>(p[i]) : p[i];
    return static_cast<float>(byte - offset);
  });
}

// Rounds to int8, stores kLanes bytes, returns their sum.
inline int32_t StoreInt8(int8_t* p, Vec v) {
  int32_t sum = 0;
  for (int i = 0; i < kLanes; ++i) {
    p[i] = static_cast<int8_t>(::rintf(v.lane[i]));
    sum += p[i];
  }
  return sum;
}

// Four vectors rounded to whole numbers, plus offset, as bytes side by side: p [kLanes][4].
inline void StoreQuads(uint8_t* p, const Vec* quad, int offset) {
  for (int r = 0; r < kLanes; ++r) {
    for (int i = 0; i < 4; ++i) {
      p[4 * r + i] = static_cast<uint8_t>(static_cast<int32_t>(::rintf(quad[i].lane[r])) + offset);
    }
  }
}

inline IntVec SetInt(int32_t x) {
  IntVec r;
  for (int i = 0; i < kLanes; ++i) r.lane[i] = x;
  return r;
}
inline IntVec SubInt(IntVec a, IntVec b) {
  for (int i = 0; i < kLanes; ++i) a.lane[i] -= b.lane[i];
  return a;
}
// *x times a power of two.
template <int kFactor>
inline IntVec SetTimes(const int32_t* x) {
  return SetInt(*x * kFactor);
}
inline Vec ToFloat(IntVec a) {
  return Each([&](int i) { return static_cast<float>(a.lane[i]); });
}

// Transposes kLanes x kLanes 4-byte values: to[c] is 4 * kLanes bytes holding value c of every row.
inline void TransposeDwords(const uint8_t* from, int64_t from_stride, uint8_t* const* to) {
  for (int c = 0; c < kLanes; ++c) {
    for (int r = 0; r < kLanes; ++r) memcpy(to[c] + 4 * r, from + r * from_stride + 4 * c, 4);
  }
}

}  // namespace
}  // namespace coterie
