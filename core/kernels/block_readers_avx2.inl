// Block readers and 8-bit dot products in AVX2. Contracts: block_readers_scalar.inl.
//
// vpmaddubsw adds pairs of products in 16 bits, which 255 * 127 * 2 would overflow: Q8_0 stays
// signed here and is multiplied as |w| * (x with the sign of w).

namespace coterie {
namespace {

struct Chunk {
  __m256i q[kChunkBlocks];
  Vec8 d[2];
  Vec8 m;
};

inline void StoreBytes(const Chunk& c, uint8_t* to) {
  for (int i = 0; i < kChunkBlocks; ++i) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 32 * i), c.q[i]);
  }
}

inline __m128i Load128(const uint8_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
inline __m256i Load256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

// The f16 at `offset` in each of a chunk's blocks.
template <class Type, bool kFull>
inline Vec8 ReadHalves(const uint8_t* p, int n, int offset) {
  const auto at = [&](int i) {
    return static_cast<int16_t>(ReadU16(BlockAt<Type, kFull>(p, n, i) + offset));
  };
  return _mm256_cvtph_ps(_mm_setr_epi16(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)));
}

inline __m256i SplitNibbles(const uint8_t* from) {
  const __m128i q = Load128(from);
  const __m256i both = _mm256_set_m128i(_mm_srli_epi16(q, 4), q);
  return _mm256_and_si256(both, _mm256_set1_epi8(15));
}

// 16 in byte j where bit j of `high` is set.
inline __m256i FifthBits(uint32_t high) {
  const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2,
                                          2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
  const __m256i bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201u));
  const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(high)), spread);
  const __m256i is_set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
  return _mm256_and_si256(is_set, _mm256_set1_epi8(16));
}

template <class Type>
struct Reader;

template <>
struct Reader<Q4_0> {
  template <bool kFull>
  static inline void Read(const uint8_t* p, int n, Chunk& c) {
    c.d[0] = ReadHalves<Q4_0, kFull>(p, n, 0);
    for (int i = 0; i < 8; ++i) c.q[i] = SplitNibbles(BlockAt<Q4_0, kFull>(p, n, i) + 2);
  }
};

template <>
struct Reader<Q4_1> {
  template <bool kFull>
  static inline void Read(const uint8_t* p, int n, Chunk& c) {
    c.d[0] = ReadHalves<Q4_1, kFull>(p, n, 0);
    c.m = ReadHalves<Q4_1, kFull>(p, n, 2);
    for (int i = 0; i < 8; ++i) c.q[i] = SplitNibbles(BlockAt<Q4_1, kFull>(p, n, i) + 4);
  }
};

template <>
struct Reader<Q5_0> {
  template <bool kFull>
  static inline void Read(const uint8_t* p, int n, Chunk& c) {
    c.d[0] = ReadHalves<Q5_0, kFull>(p, n, 0);
    for (int i = 0; i < 8; ++i) {
      const uint8_t* block = BlockAt<Q5_0, kFull>(p, n, i);
      c.q[i] = _mm256_or_si256(SplitNibbles(block + 6), FifthBits(ReadU32(block + 2)));
    }
  }
};

template <>
struct Reader<Q5_1> {
  template <bool kFull>
  static inline void Read(const uint8_t* p, int n, Chunk& c) {
    c.d[0] = ReadHalves<Q5_1, kFull>(p, n, 0);
    c.m = ReadHalves<Q5_1, kFull>(p, n, 2);
    for (int i = 0; i < 8; ++i) {
      const uint8_t* block = BlockAt<Q5_1, kFull>(p, n, i);
      c.q[i] = _mm256_or_si256(SplitNibbles(block + 8), FifthBits(ReadU32(block + 4)));
    }
  }
};

template <>
struct Reader<Q8_0> {
  template <bool kFull>
  static inline void Read(const uint8_t* p, int n, Chunk& c) {
    c.d[0] = ReadHalves<Q8_0, kFull>(p, n, 0);
    for (int i = 0; i < 8; ++i) c.q[i] = Load256(BlockAt<Q8_0, kFull>(p, n, i) + 2);
  }
};

inline void ReadScales(const uint8_t* block, Chunk& c) {
  const SixBitScales s = UnpackScales(block + 4);
  const __m256i scales = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(s.scales)));
  const __m256i mins = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(s.mins)));
  c.d[0] = _mm256_mul_ps(Set8(HalfToFloat(ReadU16(block))), _mm256_cvtepi32_ps(scales));
  c.m = _mm256_mul_ps(Set8(-HalfToFloat(ReadU16(block + 2))), _mm256_cvtepi32_ps(mins));
}

inline void SplitWideNibbles(const uint8_t* from, __m256i* q) {
  const __m256i low = _mm256_set1_epi8(15);
  for (int i = 0; i < 4; ++i) {
    const __m256i both = Load256(from + 32 * i);
    q[2 * i] = _mm256_and_si256(both, low);
    q[2 * i + 1] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
  }
}

template <>
struct Reader<Q4_K> {
  template <bool kFull>
  static inline void Read(const uint8_t* p, int, Chunk& c) {
    ReadScales(p, c);
    SplitWideNibbles(p + 16, c.q);
  }
};

template <>
struct Reader<Q5_K> {
  template <bool kFull>
  static inline void Read(const uint8_t* p, int, Chunk& c) {
    ReadScales(p, c);
    SplitWideNibbles(p + 48, c.q);
    const __m256i bit4 = _mm256_set1_epi8(16);
    __m256i high = Load256(p + 16);
    // Bit i moves to bit 4: the first four from below, the others from above.
    for (int i = 0; i < 4; ++i) {
      const __m256i up = _mm256_and_si256(_mm256_slli_epi16(high, 4 - i), bit4);
      const __m256i down = _mm256_and_si256(_mm256_srli_epi16(high, i), bit4);
      c.q[i] = _mm256_or_si256(c.q[i], up);
      c.q[4 + i] = _mm256_or_si256(c.q[4 + i], down);
    }
  }
};

template <>
struct Reader<Q6_K> {
  template <bool kFull>
  static inline void Read(const uint8_t* p, int, Chunk& c) {
    const __m256i low4 = _mm256_set1_epi8(15), bits45 = _mm256_set1_epi8(0x30);
    for (int half = 0; half < 2; ++half) {
      const __m256i a = Load256(p + 64 * half), b = Load256(p + 64 * half + 32);
      const __m256i high = Load256(p + 128 + 32 * half);
      const __m256i part[4] = {a, b, _mm256_srli_epi16(a, 4), _mm256_srli_epi16(b, 4)};
      const __m256i top[4] = {_mm256_slli_epi16(high, 4), _mm256_slli_epi16(high, 2), high,
                              _mm256_srli_epi16(high, 2)};
      for (int i = 0; i < 4; ++i) {
        c.q[4 * half + i] =
            _mm256_or_si256(_mm256_and_si256(part[i], low4), _mm256_and_si256(top[i], bits45));
      }
    }
    const Vec8 d = Set8(HalfToFloat(ReadU16(p + 208)));
    const __m128i words = Load128(p + 192);  // Bytes 2 i and 2 i + 1: halves of block i.
    const __m128i first = _mm_srai_epi16(_mm_slli_epi16(words, 8), 8);
    const __m128i second = _mm_srai_epi16(words, 8);
    c.d[0] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(first)));
    c.d[1] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(second)));
  }
};

template <bool kSigned>
inline __m256i PairDots(__m256i q, __m256i x) {
  if constexpr (kSigned) return _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(x, q));
  return _mm256_maddubs_epi16(q, x);
}

// Adds elements i and i + 2 of each 128-bit lane of a, and of b.
inline __m256i AddHalfLanes(__m256i a, __m256i b) {
  return _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
}
inline __m256i AddQuarterLanes(__m256i a, __m256i b) {
  return _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
}

constexpr int kPanelsAtOnce = 1;
constexpr int kPanelTile = 4;

// Minus the offset of the type's bytes times the sums of 8 blocks of activations.
template <class Type>
inline __m256i TimesOffset(const int32_t* minus_sums) {
  return _mm256_slli_epi32(Load256(minus_sums), Log2(Type::kOffset));
}

// Dot products of half blocks, a block a lane: first halves and second ones.
struct HalfDots {
  __m256i first;
  __m256i second;
};
template <bool kSigned>
inline HalfDots DotsOfHalves(const __m256i* q, const int8_t* values) {
  __m256i s[8];
  for (int i = 0; i < 8; ++i) {
    s[i] =
        _mm256_madd_epi16(PairDots<kSigned>(q[i], Load256(values + 32 * i)), _mm256_set1_epi16(1));
  }
  const __m256i a =
      AddQuarterLanes(AddHalfLanes(s[0], s[1]), AddHalfLanes(s[2], s[3]));  // Blocks 0..3.
  const __m256i b = AddQuarterLanes(AddHalfLanes(s[4], s[5]), AddHalfLanes(s[6], s[7]));
  return {_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31)};
}

inline void MinusChunkSums(const int8_t* values, int32_t* sums, int32_t* first_sums) {
  __m256i ones[8];
  for (__m256i& one : ones) one = _mm256_set1_epi8(1);
  const auto [first, second] = DotsOfHalves<false>(ones, values);
  const __m256i minus_first = _mm256_sub_epi32(_mm256_setzero_si256(), first);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(first_sums), minus_first);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums), _mm256_sub_epi32(minus_first, second));
}

template <class Type>
inline void ChunkDots(const Chunk& c, const QuantizedActivations& x, int64_t token, int64_t block,
                      Vec8* out) {
  auto [first, second] =
      DotsOfHalves<Type::kSigned>(c.q, x.values + token * x.stride + block * kActivationBlock);
  if constexpr (Type::kHalves) {
    const __m256i whole_offset = TimesOffset<Type>(x.At(x.offsets, token, block));
    const __m256i first_offset = TimesOffset<Type>(x.At(x.first_offsets, token, block));
    first = _mm256_add_epi32(first, first_offset);
    second = _mm256_add_epi32(second, _mm256_sub_epi32(whole_offset, first_offset));
    out[1] = _mm256_cvtepi32_ps(second);
  } else {
    first = _mm256_add_epi32(first, second);
    if constexpr (Type::kOffset != 0) {
      first = _mm256_add_epi32(first, TimesOffset<Type>(x.At(x.offsets, token, block)));
    }
  }
  out[0] = _mm256_cvtepi32_ps(first);
}

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

constexpr int64_t kColumnTokens = 0;  // matmul_q8_columns.inl is not for these vectors.

inline Vec8 SumLanes(const float* lanes) {
  alignas(32) float columns[8][8];
  uint8_t* to[8];
  for (int i = 0; i < 8; ++i) to[i] = reinterpret_cast<uint8_t*>(columns[i]);
  TransposeDwords(reinterpret_cast<const uint8_t*>(lanes), 32, to);
  Vec8 sum = Load8(columns[0]);
  for (int i = 1; i < 8; ++i) sum = _mm256_add_ps(sum, Load8(columns[i]));
  return sum;
}

}  // namespace
}  // namespace coterie
