// Vectors of 16 floats in AVX-512 (F, BW, DQ, VL), for the kernels written over Vec. The contracts
// of the functions stand in vector_scalar.inl.

namespace coterie {
namespace {

constexpr int kLanes = 16;
using Vec = __m512;
using Vec8 = __m256;
using IntVec = __m512i;

inline __mmask16 FirstLanes(int64_t n) {
  return n >= 16 ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << n) - 1);
}

inline Vec Set1(float x) { return _mm512_set1_ps(x); }
inline Vec8 Set8(float x) { return _mm256_set1_ps(x); }
inline Vec Load(const float* p) { return _mm512_loadu_ps(p); }
inline Vec8 Load8(const float* p) { return _mm256_loadu_ps(p); }
inline Vec LoadN(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(FirstLanes(n), p); }
inline Vec8 Load8N(const float* p, int64_t n) {
  return _mm256_maskz_loadu_ps(static_cast<__mmask8>(FirstLanes(n)), p);
}
inline void Store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
inline void Store8(float* p, Vec8 v) { _mm256_storeu_ps(p, v); }
inline void StoreN(float* p, Vec v, int64_t n) { _mm512_mask_storeu_ps(p, FirstLanes(n), v); }

inline Vec Add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
inline Vec Sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
inline Vec Mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
inline Vec Div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
inline Vec Max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
inline Vec Min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
inline Vec Abs(Vec a) { return _mm512_abs_ps(a); }
inline Vec Fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
inline Vec Fnma(Vec a, Vec b, Vec c) { return _mm512_fnmadd_ps(a, b, c); }
inline Vec8 Add(Vec8 a, Vec8 b) { return _mm256_add_ps(a, b); }
inline Vec8 Mul(Vec8 a, Vec8 b) { return _mm256_mul_ps(a, b); }
inline Vec8 Fma(Vec8 a, Vec8 b, Vec8 c) { return _mm256_fmadd_ps(a, b, c); }
inline Vec Round(Vec a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline Vec WithSign(Vec x, Vec s) {
  const Vec sign = _mm512_set1_ps(-0.0f);
  return _mm512_or_ps(_mm512_andnot_ps(sign, x), _mm512_and_ps(sign, s));
}
inline Vec ZeroBelow(Vec x, Vec at, float bound) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(at, Set1(bound), _CMP_NLT_UQ), x);
}
inline Vec FiniteOrZero(Vec x) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(Abs(x), Set1(FLT_MAX), _CMP_LE_OQ), x);
}
inline Vec Scale2(Vec x, Vec n) { return _mm512_scalef_ps(x, n); }
inline float Sum(Vec a) { return _mm512_reduce_add_ps(a); }
inline float MaxOf(Vec a) { return _mm512_reduce_max_ps(a); }
inline Vec MaxBits(Vec a, Vec b) {
  return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}
inline float MaxBitsOf(Vec a) {
  return _mm_cvtss_f32(
      _mm_castsi128_ps(_mm_cvtsi32_si128(_mm512_reduce_max_epi32(_mm512_castps_si512(a)))));
}
inline float HalfToFloat(uint16_t half) { return _cvtsh_ss(half); }
inline Vec LoadF16(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline Vec LoadF16N(const uint16_t* p, int64_t n) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(FirstLanes(n), p));
}
inline void StoreF16(uint16_t* p, Vec v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
inline void StoreF16N(uint16_t* p, Vec v, int64_t n) {
  _mm256_mask_storeu_epi16(p, FirstLanes(n), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

inline Vec LoadBF16N(const uint16_t* p, int64_t n) {
  const __m256i halves = _mm256_maskz_loadu_epi16(FirstLanes(n), p);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}
inline void StoreBF16N(uint16_t* p, Vec v, int64_t n) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __m512i kept =
      _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), quiet);
  _mm256_mask_storeu_epi16(p, FirstLanes(n), _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16)));
}

template <bool kSigned>
inline Vec LoadBytes(const uint8_t* p, int offset) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  const __m512i wide = kSigned ? _mm512_cvtepi8_epi32(bytes) : _mm512_cvtepu8_epi32(bytes);
  return _mm512_cvtepi32_ps(_mm512_sub_epi32(wide, _mm512_set1_epi32(offset)));
}

inline int32_t StoreInt8(int8_t* p, Vec v) {
  const __m512i rounded = _mm512_cvtps_epi32(v);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(rounded));
  return _mm512_reduce_add_epi32(rounded);
}

inline void StoreQuads(uint8_t* p, const Vec* quad, int offset) {
  // Added to 1.5 * 2^23, a whole number stands in the low bits.
  const __m512 shift = _mm512_set1_ps(12582912.0f + static_cast<float>(offset));
  const auto bits = [=](int i) { return _mm512_castps_si512(_mm512_add_ps(quad[i], shift)); };
  constexpr int kFromSecond = 0xca;  // Bits of the second where the first has them set, or else of
  const __m512i low8 = _mm512_set1_epi32(0xff), low16 = _mm512_set1_epi32(0xffff);  // the third.
  const __m512i a =
      _mm512_ternarylogic_epi32(low8, bits(0), _mm512_slli_epi32(bits(1), 8), kFromSecond);
  const __m512i b =
      _mm512_ternarylogic_epi32(low8, bits(2), _mm512_slli_epi32(bits(3), 8), kFromSecond);
  _mm512_storeu_si512(p,
                      _mm512_ternarylogic_epi32(low16, a, _mm512_slli_epi32(b, 16), kFromSecond));
}

inline IntVec SetInt(int32_t x) { return _mm512_set1_epi32(x); }
inline IntVec SubInt(IntVec a, IntVec b) { return _mm512_sub_epi32(a, b); }
template <int kFactor>
inline IntVec SetTimes(const int32_t* x) {
  return _mm512_slli_epi32(_mm512_set1_epi32(*x), Log2(kFactor));
}
inline Vec ToFloat(IntVec a) { return _mm512_cvtepi32_ps(a); }

// Transposes 4 x 4 dwords in every 128-bit lane of four vectors.
inline void TransposeInLanes(__m512i* v) {
  const __m512i a = _mm512_unpacklo_epi32(v[0], v[1]), b = _mm512_unpackhi_epi32(v[0], v[1]);
  const __m512i c = _mm512_unpacklo_epi32(v[2], v[3]), d = _mm512_unpackhi_epi32(v[2], v[3]);
  v[0] = _mm512_unpacklo_epi64(a, c);
  v[1] = _mm512_unpackhi_epi64(a, c);
  v[2] = _mm512_unpacklo_epi64(b, d);
  v[3] = _mm512_unpackhi_epi64(b, d);
}

inline void TransposeDwords(const uint8_t* from, int64_t from_stride, uint8_t* const* to) {
  __m512i v[16];
  for (int i = 0; i < 16; ++i) v[i] = _mm512_loadu_si512(from + i * from_stride);
  for (int i = 0; i < 16; i += 4) TransposeInLanes(v + i);
  // Now v[4 i + c] holds, in lane l, dword 4 l + c of rows 4 i .. 4 i + 3.
  for (int c = 0; c < 4; ++c) {
    const __m512i a = _mm512_shuffle_i32x4(v[c], v[4 + c], 0x88);
    const __m512i b = _mm512_shuffle_i32x4(v[c], v[4 + c], 0xdd);
    const __m512i d = _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0x88);
    const __m512i e = _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0xdd);
    _mm512_storeu_si512(to[c], _mm512_shuffle_i32x4(a, d, 0x88));
    _mm512_storeu_si512(to[4 + c], _mm512_shuffle_i32x4(b, e, 0x88));
    _mm512_storeu_si512(to[8 + c], _mm512_shuffle_i32x4(a, d, 0xdd));
    _mm512_storeu_si512(to[12 + c], _mm512_shuffle_i32x4(b, e, 0xdd));
  }
}

}  // namespace
}  // namespace coterie
