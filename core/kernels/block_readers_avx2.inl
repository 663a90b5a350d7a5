// What block_readers_x86.inl is written over, and the products of panels, in AVX2.
//
// vpmaddubsw adds pairs of products in 16 bits, which 255 * 127 * 2 would overflow: Q8_0 stays
// signed here and is multiplied as |w| * (x with the sign of w).

namespace coterie {
namespace {

inline __m128i Load128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
inline __m256i Load256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

// Adds 16 to byte j of the lower lane where bit j of a is set, and of the upper one by b.
inline __m256i AddFifthBits(__m256i q, uint16_t a, uint16_t b) {
  const __m256i bits = _mm256_set_m128i(_mm_set1_epi16(static_cast<int16_t>(b)),
                                        _mm_set1_epi16(static_cast<int16_t>(a)));
  const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0,
                                          0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
  const __m256i bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201u));
  const __m256i bytes = _mm256_and_si256(_mm256_shuffle_epi8(bits, spread), bit);
  const __m256i is_set = _mm256_cmpeq_epi8(bytes, bit);
  return _mm256_or_si256(q, _mm256_and_si256(is_set, _mm256_set1_epi8(16)));
}

// Scales and minima of a Q4_K or Q5_K block.
inline void ReadSixBitScales(const uint8_t* block, Vec8& d, Vec8& m) {
  const SixBitScales s = UnpackScales(block + 4);
  const __m256i scales = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(s.scales)));
  const __m256i mins = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(s.mins)));
  d = _mm256_mul_ps(Set8(HalfToFloat(ReadU16(block))), _mm256_cvtepi32_ps(scales));
  m = _mm256_mul_ps(Set8(-HalfToFloat(ReadU16(block + 2))), _mm256_cvtepi32_ps(mins));
}

template <bool kSigned>
inline __m256i PairDots(__m256i q, __m256i x) {
  if constexpr (kSigned) return _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(x, q));
  return _mm256_maddubs_epi16(q, x);
}

// The dot products of the dwords of weights and activations, and of two such pairs together.
template <class Type>
inline __m256i DotsOf(__m256i q, __m256i x) {
  return _mm256_madd_epi16(PairDots<Type::kSigned>(q, x), _mm256_set1_epi16(1));
}
template <class Type>
inline __m256i DotsOf(__m256i q, __m256i x, __m256i r, __m256i y) {
  if constexpr (4 * 127 * Type::kMaxByte > 32767) {
    return _mm256_add_epi32(DotsOf<Type>(q, x), DotsOf<Type>(r, y));
  }
  const __m256i pairs =
      _mm256_add_epi16(PairDots<Type::kSigned>(q, x), PairDots<Type::kSigned>(r, y));
  return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

constexpr int kPanelsAtOnce = 1;
constexpr int kPanelTile = 4;

template <class Type, int kDwords, int kPanels, int kTokens>
inline void PanelDots(const uint8_t* w, int64_t w_stride, const int8_t* x, int64_t x_stride,
                      IntVec (&dots)[kPanels][kTokens]) {
  constexpr int kFit = 32767 / (2 * 127 * Type::kMaxByte);  // Pair sums that 16 bits hold.
  constexpr int kRun = kFit < kDwords ? kFit : kDwords;
  const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 2
  for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 8
    for (int k = 0; k < kDwords; k += kRun) {
      __m256i q[kRun];
#pragma GCC unroll 8
      for (int i = 0; i < kRun; ++i) q[i] = Load256(w + p * w_stride + 4 * kLanes * (k + i));
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        const uint8_t* xt = reinterpret_cast<const uint8_t*>(x + t * x_stride + 4 * k);
        const auto four = [xt](int i) {
          return _mm256_set1_epi32(static_cast<int>(ReadU32(xt + 4 * i)));
        };
        __m256i sum = PairDots<Type::kSigned>(q[0], four(0));
#pragma GCC unroll 8
        for (int i = 1; i < kRun; ++i) {
          sum = _mm256_add_epi16(sum, PairDots<Type::kSigned>(q[i], four(i)));
        }
        dots[p][t] = _mm256_add_epi32(dots[p][t], _mm256_madd_epi16(sum, ones));
      }
    }
  }
}

}  // namespace
}  // namespace coterie
