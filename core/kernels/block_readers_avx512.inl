// What block_readers_x86.inl is written over, and the products of panels, in AVX-512 with VNNI.

namespace coterie {
namespace {

inline __m128i Load128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
inline __m256i Load256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

// Adds 16 to byte j of the lower lane where bit j of a is set, and of the upper one by b.
inline __m256i AddFifthBits(__m256i q, uint16_t a, uint16_t b) {
  return _mm256_mask_add_epi8(q, a | static_cast<uint32_t>(b) << 16, q, _mm256_set1_epi8(16));
}

// Where the scales of a chunk's blocks, and their minima after them, stand among the chunk's words:
// per 64 bytes which words of them go to which place.
template <class Type>
struct ScaleWords {
  static constexpr int kCount = Type::kHasMin ? 16 : 8;
  static constexpr int kVectors = (7 * Type::kBlockBytes + 4 + 63) / 64;
  // The last vector ends with the chunk, so that nothing beyond it is read.
  static constexpr int Begin(int v) {
    return 64 * v + 64 > Type::kChunkBytes ? Type::kChunkBytes - 64 : 64 * v;
  }
  constexpr ScaleWords() {
    for (int i = 0; i < kCount; ++i) {
      const int at = i % 8 * Type::kBlockBytes + i / 8 * 2;
      const int v = at / 64;
      place[v][i] = static_cast<uint16_t>((at - Begin(v)) / 2);
      is_here[v] |= 1u << i;
    }
  }
  alignas(64) uint16_t place[kVectors][32] = {};
  uint32_t is_here[kVectors] = {};
};

// Scales, and minima, of a whole chunk by a few shuffles instead of word by word.
template <class Type>
inline void ReadScales(const WholeChunk<Type>& chunk, Vec8& d, Vec8& m) {
  static constexpr ScaleWords<Type> kWords;
  static_assert(ScaleWords<Type>::kVectors >= 2);
  const auto bytes = [&](int v) { return _mm512_loadu_si512(chunk.begin + kWords.Begin(v)); };
  const auto places = [](int v) { return _mm512_load_si512(kWords.place[v]); };
  __m512i words = _mm512_permutexvar_epi16(places(0), bytes(0));
#pragma GCC unroll 4
  for (int v = 1; v < ScaleWords<Type>::kVectors; ++v) {
    words = _mm512_mask_permutexvar_epi16(words, kWords.is_here[v], places(v), bytes(v));
  }
  const __m256i halves = _mm512_castsi512_si256(words);
  if constexpr (Type::kHasMin) {
    const __m512 both = _mm512_cvtph_ps(halves);
    d = _mm512_castps512_ps256(both);
    m = _mm512_extractf32x8_ps(both, 1);
  } else {
    d = _mm256_cvtph_ps(_mm256_castsi256_si128(halves));
  }
}

// Scales and minima of a Q4_K or Q5_K block.
inline void ReadSixBitScales(const uint8_t* block, Vec8& d, Vec8& m) {
  const SixBitScales s = UnpackScales(block + 4);
  const __m128i bytes =
      _mm_set_epi64x(static_cast<int64_t>(s.mins), static_cast<int64_t>(s.scales));
  const __m128i halves = _mm_cvtsi32_si128(static_cast<int>(ReadU32(block)));
  const __m128 factors = _mm_xor_ps(_mm_cvtph_ps(halves), _mm_setr_ps(0.0f, -0.0f, 0.0f, 0.0f));
  const __m512i each = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
  const __m512 both = _mm512_mul_ps(_mm512_permutexvar_ps(each, _mm512_castps128_ps512(factors)),
                                    _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)));
  d = _mm512_castps512_ps256(both);
  m = _mm512_extractf32x8_ps(both, 1);
}

// The dot products of the dwords of weights and activations, and of two such pairs together.
template <class Type>
inline __m256i DotsOf(__m256i q, __m256i x) {
  return _mm256_dpbusd_epi32(_mm256_setzero_si256(), q, x);
}
template <class Type>
inline __m256i DotsOf(__m256i q, __m256i x, __m256i r, __m256i y) {
  return _mm256_dpbusd_epi32(DotsOf<Type>(q, x), r, y);
}

constexpr int kPanelsAtOnce = 2;
constexpr int kPanelTile = 4;

template <class Type, int kDwords, int kPanels, int kTokens>
inline void PanelDots(const uint8_t* w, int64_t w_stride, const int8_t* x, int64_t x_stride,
                      IntVec (&dots)[kPanels][kTokens]) {
#pragma GCC unroll 8
  for (int k = 0; k < kDwords; ++k) {
    __m512i q[kPanels];
#pragma GCC unroll 2
    for (int p = 0; p < kPanels; ++p) q[p] = _mm512_loadu_si512(w + p * w_stride + 64 * k);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const uint8_t* xt = reinterpret_cast<const uint8_t*>(x + t * x_stride + 4 * k);
      const __m512i four = _mm512_set1_epi32(static_cast<int>(ReadU32(xt)));
#pragma GCC unroll 2
      for (int p = 0; p < kPanels; ++p) dots[p][t] = _mm512_dpbusd_epi32(dots[p][t], q[p], four);
    }
  }
}

}  // namespace
}  // namespace coterie
