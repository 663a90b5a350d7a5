// Vectors of 8 floats in AVX2, FMA and F16C, for the kernels written over Vec. The contracts of the
// functions stand in vector_scalar.inl.

namespace coterie {
namespace {

constexpr int kLanes = 8;
using Vec = __m256;
using Vec8 = __m256;
using IntVec = __m256i;

inline __m256i FirstLanes(int64_t n) {
  const int count = static_cast<int>(n < 8 ? n : 8);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

inline Vec Set1(float x) { return _mm256_set1_ps(x); }
inline Vec8 Set8(float x) { return _mm256_set1_ps(x); }
inline Vec Load(const float* p) { return _mm256_loadu_ps(p); }
inline Vec8 Load8(const float* p) { return _mm256_loadu_ps(p); }
inline Vec LoadN(const float* p, int64_t n) { return _mm256_maskload_ps(p, FirstLanes(n)); }
inline Vec8 Load8N(const float* p, int64_t n) { return LoadN(p, n); }
inline void Store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
inline void Store8(float* p, Vec8 v) { _mm256_storeu_ps(p, v); }
inline void StoreN(float* p, Vec v, int64_t n) { _mm256_maskstore_ps(p, FirstLanes(n), v); }

inline Vec Add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
inline Vec Sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
inline Vec Mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
inline Vec Div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
inline Vec Max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
inline Vec Min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
inline Vec Abs(Vec a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
inline Vec Fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
inline Vec Fnma(Vec a, Vec b, Vec c) { return _mm256_fnmadd_ps(a, b, c); }
inline Vec Round(Vec a) {
  return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline Vec WithSign(Vec x, Vec s) {
  const Vec sign = _mm256_set1_ps(-0.0f);
  return _mm256_or_ps(_mm256_andnot_ps(sign, x), _mm256_and_ps(sign, s));
}
inline Vec ZeroBelow(Vec x, Vec at, float bound) {
  return _mm256_and_ps(x, _mm256_cmp_ps(at, Set1(bound), _CMP_NLT_UQ));
}
inline Vec FiniteOrZero(Vec x) {
  return _mm256_and_ps(x, _mm256_cmp_ps(Abs(x), Set1(FLT_MAX), _CMP_LE_OQ));
}
inline Vec Scale2(Vec x, Vec n) {
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return Mul(x, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}
inline float Sum(Vec a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
inline float MaxOf(Vec a) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}
inline Vec MaxBits(Vec a, Vec b) {
  return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
}
inline float MaxBitsOf(Vec a) {
  const __m256i bits = _mm256_castps_si256(a);
  __m128i m = _mm_max_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1))));
}
inline float HalfToFloat(uint16_t half) { return _cvtsh_ss(half); }
inline Vec LoadF16(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Vec LoadF16N(const uint16_t* p, int64_t n) {
  uint16_t padded[8] = {};
  memcpy(padded, p, static_cast<size_t>(n < 8 ? n : 8) * 2);
  return LoadF16(padded);
}
inline void StoreF16(uint16_t* p, Vec v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
inline void StoreF16N(uint16_t* p, Vec v, int64_t n) {
  uint16_t padded[8];
  StoreF16(padded, v);
  memcpy(p, padded, static_cast<size_t>(n < 8 ? n : 8) * 2);
}

inline Vec LoadBF16N(const uint16_t* p, int64_t n) {
  __m128i halves;
  if (n >= 8) {
    halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  } else {
    uint16_t padded[8] = {};
    memcpy(padded, p, static_cast<size_t>(n) * 2);
    halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(padded));
  }
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}
inline void StoreBF16N(uint16_t* p, Vec v, int64_t n) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256 is_nan = _mm256_cmp_ps(v, v, _CMP_UNORD_Q);
  const __m256i kept =
      _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(is_nan)), 16);
  const __m128i halves =
      _mm_packus_epi32(_mm256_castsi256_si128(kept), _mm256_extracti128_si256(kept, 1));
  if (n >= 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), halves);
    return;
  }
  uint16_t padded[8];
  _mm_storeu_si128(reinterpret_cast<__m128i*>(padded), halves);
  memcpy(p, padded, static_cast<size_t>(n) * 2);
}

template <bool kSigned>
inline Vec LoadBytes(const uint8_t* p, int offset) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  const __m256i wide = kSigned ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes);
  return _mm256_cvtepi32_ps(_mm256_sub_epi32(wide, _mm256_set1_epi32(offset)));
}

inline int32_t SumOfInts(__m256i v) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  s = _mm_add_epi32(s, _mm_unpackhi_epi64(s, s));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 1)));
}

inline int32_t StoreInt8(int8_t* p, Vec v) {
  const __m256i rounded = _mm256_cvtps_epi32(v);
  const __m128i words =
      _mm_packs_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
  return SumOfInts(rounded);
}

inline void StoreQuads(uint8_t* p, const Vec* quad, int offset) {
  // Added to 1.5 * 2^23, a whole number stands in the low bits.
  const __m256 shift = _mm256_set1_ps(12582912.0f + static_cast<float>(offset));
  const auto bits = [=](int i) { return _mm256_castps_si256(_mm256_add_ps(quad[i], shift)); };
  const __m256i low8 = _mm256_set1_epi32(0xff);
  const auto two = [=](int i) {
    return _mm256_or_si256(_mm256_and_si256(bits(i), low8), _mm256_slli_epi32(bits(i + 1), 8));
  };
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm256_blend_epi16(two(0), _mm256_slli_epi32(two(2), 16), 0xaa));
}

inline IntVec SetInt(int32_t x) { return _mm256_set1_epi32(x); }
inline IntVec SubInt(IntVec a, IntVec b) { return _mm256_sub_epi32(a, b); }
template <int kFactor>
inline IntVec SetTimes(const int32_t* x) {
  return _mm256_slli_epi32(_mm256_set1_epi32(*x), Log2(kFactor));
}
inline Vec ToFloat(IntVec a) { return _mm256_cvtepi32_ps(a); }

inline void TransposeDwords(const uint8_t* from, int64_t from_stride, uint8_t* const* to) {
  __m256 r[8], t[8];
  for (int i = 0; i < 8; ++i) {
    r[i] = _mm256_loadu_ps(reinterpret_cast<const float*>(from + i * from_stride));
  }
  for (int i = 0; i < 4; ++i) {
    t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 2; ++i) {
    r[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
    r[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
    r[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
    r[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(reinterpret_cast<float*>(to[i]), _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
    _mm256_storeu_ps(reinterpret_cast<float*>(to[i + 4]),
                     _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
  }
}

}  // namespace
}  // namespace coterie
