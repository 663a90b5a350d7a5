// Block readers and 8-bit dot products in AVX-512 with VNNI. Contracts: block_readers_scalar.inl.

namespace coterie {
namespace {

struct Chunk {
  __m512i q[4];  // Two blocks each.
  Vec8 d[2];
  Vec8 m;
};

inline void StoreBytes(const Chunk& c, uint8_t* to) {
  for (int i = 0; i < 4; ++i) _mm512_storeu_si512(to + 64 * i, c.q[i]);
}

inline __m128i Load128(const uint8_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
inline __m256i Load256(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

// The f16 at `offset` in each of a chunk's blocks.
template <class Type, bool kFull>
inline Vec8 ReadHalves(const uint8_t* p, int n, int offset) {
  const auto at = [&](int i) {
    return static_cast<int16_t>(ReadU16(BlockAt<Type, kFull>(p, n, i) + offset));
  };
  return _mm256_cvtph_ps(_mm_setr_epi16(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)));
}

// The 32 nibbles of each of two blocks, low ones first.
inline __m512i SplitNibbles(const uint8_t* a, const uint8_t* b) {
  const __m512i both =
      _mm512_mask_broadcast_i32x4(_mm512_broadcast_i32x4(Load128(a)), 0xff00, Load128(b));
  const __m512i shifts = _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4);
  return _mm512_and_si512(_mm512_srlv_epi64(both, shifts), _mm512_set1_epi8(15));
}

inline __m512i AddFifthBits(__m512i q, uint32_t a, uint32_t b) {
  const __mmask64 bits = a | static_cast<uint64_t>(b) << 32;
  return _mm512_mask_add_epi8(q, bits, q, _mm512_set1_epi8(16));
}

template <class Type>
struct Reader;

template <>
struct Reader<Q4_0> {
  template <bool kFull>
  static inline void Read(const uint8_t* p, int n, Chunk& c) {
    c.d[0] = ReadHalves<Q4_0, kFull>(p, n, 0);
    for (int i = 0; i < 4; ++i) {
      c.q[i] = SplitNibbles(BlockAt<Q4_0, kFull>(p, n, 2 * i) + 2,
                            BlockAt<Q4_0, kFull>(p, n, 2 * i + 1) + 2);
    }
  }
};

template <>
struct Reader<Q4_1> {
  template <bool kFull>
  static inline void Read(const uint8_t* p, int n, Chunk& c) {
    c.d[0] = ReadHalves<Q4_1, kFull>(p, n, 0);
    c.m = ReadHalves<Q4_1, kFull>(p, n, 2);
    for (int i = 0; i < 4; ++i) {
      c.q[i] = SplitNibbles(BlockAt<Q4_1, kFull>(p, n, 2 * i) + 4,
                            BlockAt<Q4_1, kFull>(p, n, 2 * i + 1) + 4);
    }
  }
};

template <>
struct Reader<Q5_0> {
  template <bool kFull>
  static inline void Read(const uint8_t* p, int n, Chunk& c) {
    c.d[0] = ReadHalves<Q5_0, kFull>(p, n, 0);
    for (int i = 0; i < 4; ++i) {
      const uint8_t* a = BlockAt<Q5_0, kFull>(p, n, 2 * i);
      const uint8_t* b = BlockAt<Q5_0, kFull>(p, n, 2 * i + 1);
      c.q[i] = AddFifthBits(SplitNibbles(a + 6, b + 6), ReadU32(a + 2), ReadU32(b + 2));
    }
  }
};

template <>
struct Reader<Q5_1> {
  template <bool kFull>
  static inline void Read(const uint8_t* p, int n, Chunk& c) {
    c.d[0] = ReadHalves<Q5_1, kFull>(p, n, 0);
    c.m = ReadHalves<Q5_1, kFull>(p, n, 2);
    for (int i = 0; i < 4; ++i) {
      const uint8_t* a = BlockAt<Q5_1, kFull>(p, n, 2 * i);
      const uint8_t* b = BlockAt<Q5_1, kFull>(p, n, 2 * i + 1);
      c.q[i] = AddFifthBits(SplitNibbles(a + 8, b + 8), ReadU32(a + 4), ReadU32(b + 4));
    }
  }
};

template <>
struct Reader<Q8_0> {
  template <bool kFull>
  static inline void Read(const uint8_t* p, int n, Chunk& c) {
    c.d[0] = ReadHalves<Q8_0, kFull>(p, n, 0);
    const __m512i sign_bit = _mm512_set1_epi8(-128);
    for (int i = 0; i < 4; ++i) {
      const __m256i a = Load256(BlockAt<Q8_0, kFull>(p, n, 2 * i) + 2);
      const __m256i b = Load256(BlockAt<Q8_0, kFull>(p, n, 2 * i + 1) + 2);
      const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
      c.q[i] = _mm512_xor_si512(both, sign_bit);
    }
  }
};

inline void ReadScales(const uint8_t* block, Chunk& c) {
  const SixBitScales s = UnpackScales(block + 4);
  const __m256i scales = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(s.scales)));
  const __m256i mins = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(s.mins)));
  c.d[0] = _mm256_mul_ps(Set8(HalfToFloat(ReadU16(block))), _mm256_cvtepi32_ps(scales));
  c.m = _mm256_mul_ps(Set8(-HalfToFloat(ReadU16(block + 2))), _mm256_cvtepi32_ps(mins));
}

// 32 bytes hold 32 values in low nibbles and the next 32 in high ones.
inline __m512i SplitWideNibbles(const uint8_t* from) {
  const __m512i shifts = _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4);
  return _mm512_and_si512(_mm512_srlv_epi64(_mm512_broadcast_i64x4(Load256(from)), shifts),
                          _mm512_set1_epi8(15));
}

template <>
struct Reader<Q4_K> {
  template <bool kFull>
  static inline void Read(const uint8_t* p, int, Chunk& c) {
    ReadScales(p, c);
    for (int i = 0; i < 4; ++i) c.q[i] = SplitWideNibbles(p + 16 + 32 * i);
  }
};

template <>
struct Reader<Q5_K> {
  template <bool kFull>
  static inline void Read(const uint8_t* p, int, Chunk& c) {
    ReadScales(p, c);
    const __m512i high = _mm512_broadcast_i64x4(Load256(p + 16));
    for (int i = 0; i < 4; ++i) {
      const __m256i low_bit = _mm256_set1_epi8(static_cast<char>(1 << 2 * i));
      const __m256i next_bit = _mm256_set1_epi8(static_cast<char>(2 << 2 * i));
      const __m512i bits = _mm512_inserti64x4(_mm512_castsi256_si512(low_bit), next_bit, 1);
      const __m512i q = SplitWideNibbles(p + 48 + 32 * i);
      c.q[i] = _mm512_mask_add_epi8(q, _mm512_test_epi8_mask(high, bits), q, _mm512_set1_epi8(16));
    }
  }
};

template <>
struct Reader<Q6_K> {
  template <bool kFull>
  static inline void Read(const uint8_t* p, int, Chunk& c) {
    const __m512i low4 = _mm512_set1_epi8(15), bits45 = _mm512_set1_epi8(0x30);
    for (int half = 0; half < 2; ++half) {
      const __m512i low = _mm512_loadu_si512(p + 64 * half);
      const __m512i high = _mm512_broadcast_i64x4(Load256(p + 128 + 32 * half));
      // Two bits for each of four blocks, moved to bits 4 and 5.
      const __m512i a = _mm512_sllv_epi64(high, _mm512_setr_epi64(4, 4, 4, 4, 2, 2, 2, 2));
      const __m512i b = _mm512_srlv_epi64(high, _mm512_setr_epi64(0, 0, 0, 0, 2, 2, 2, 2));
      c.q[2 * half] = _mm512_or_si512(_mm512_and_si512(low, low4), _mm512_and_si512(a, bits45));
      c.q[2 * half + 1] = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(low, 4), low4),
                                          _mm512_and_si512(b, bits45));
    }
    const Vec8 d = Set8(HalfToFloat(ReadU16(p + 208)));
    const __m128i words = Load128(p + 192);  // Bytes 2 i and 2 i + 1: halves of block i.
    const __m128i first = _mm_srai_epi16(_mm_slli_epi16(words, 8), 8);
    const __m128i second = _mm_srai_epi16(words, 8);
    c.d[0] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(first)));
    c.d[1] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(second)));
  }
};

constexpr int kPanelsAtOnce = 2;
constexpr int kPanelTile = 4;

// Minus the offset of the type's bytes times the sums of 8 blocks of activations.
template <class Type>
inline __m256i TimesOffset(const int32_t* minus_sums) {
  return _mm256_slli_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(minus_sums)),
                           Log2(Type::kOffset));
}

// Dot products of half blocks, a block a lane: first halves and second ones.
struct HalfDots {
  __m256i first;
  __m256i second;
};
inline HalfDots DotsOfHalves(const __m512i* q, const int8_t* values) {
  __m512i s[4];
  for (int i = 0; i < 4; ++i) {
    s[i] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), q[i], _mm512_loadu_si512(values + 64 * i));
  }
  const __m512i a =
      _mm512_add_epi32(_mm512_unpacklo_epi32(s[0], s[1]), _mm512_unpackhi_epi32(s[0], s[1]));
  const __m512i b =
      _mm512_add_epi32(_mm512_unpacklo_epi32(s[2], s[3]), _mm512_unpackhi_epi32(s[2], s[3]));
  // 128-bit lane l of `halves` holds the half block (l & 1) of blocks (l >> 1) + {0, 2, 4, 6}.
  const __m512i halves = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
  const __m512i order = _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
  const __m512i sorted = _mm512_permutexvar_epi32(order, halves);
  return {_mm512_castsi512_si256(sorted), _mm512_extracti64x4_epi64(sorted, 1)};
}

inline void MinusChunkSums(const int8_t* values, int32_t* sums, int32_t* first_sums) {
  __m512i ones[4];
  for (__m512i& one : ones) one = _mm512_set1_epi8(1);
  const auto [first, second] = DotsOfHalves(ones, values);
  const __m256i minus_first = _mm256_sub_epi32(_mm256_setzero_si256(), first);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(first_sums), minus_first);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums), _mm256_sub_epi32(minus_first, second));
}

template <class Type>
inline void ChunkDots(const Chunk& c, const QuantizedActivations& x, int64_t token, int64_t block,
                      Vec8* out) {
  auto [first, second] = DotsOfHalves(c.q, x.values + token * x.stride + block * kActivationBlock);
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

// How many tokens matmul_q8_columns.inl is for at most: with more, unpacking panels costs less.
constexpr int64_t kColumnTokens = 8;

// What matmul_q8_columns.inl turns: of a chunk's eight blocks, each eight dwords, vector k gets
// dword k of every block, in the order that costs least; the other row's follow in the upper half.
constexpr int kTurnedOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};

inline void TurnRows(const Chunk& a, const Chunk& b, __m512i* out) {
  __m512i u[4] = {a.q[0], a.q[1], a.q[2], a.q[3]}, v[4] = {b.q[0], b.q[1], b.q[2], b.q[3]};
  TransposeInLanes(u);
  TransposeInLanes(v);
  for (int k = 0; k < 4; ++k) {
    out[k] = _mm512_shuffle_i32x4(u[k], v[k], 0x88);
    out[k + 4] = _mm512_shuffle_i32x4(u[k], v[k], 0xdd);
  }
}
inline void TurnChunk(const int8_t* x, int8_t* out) {
  __m512i u[4];
  for (int i = 0; i < 4; ++i) u[i] = _mm512_loadu_si512(x + 64 * i);
  TransposeInLanes(u);
  for (int k = 0; k < 4; ++k) {
    const __m512i both = _mm512_shuffle_i32x4(u[k], u[k], 0xd8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 32 * k), _mm512_castsi512_si256(both));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 32 * (k + 4)),
                        _mm512_extracti64x4_epi64(both, 1));
  }
}
inline Vec TurnLanes(Vec8 a, Vec8 b) {
  const __m512i order = _mm512_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
  return _mm512_permutexvar_ps(order, _mm512_insertf32x8(_mm512_castps256_ps512(a), b, 1));
}
inline void StoreTurnedBack(float* to, Vec v) {
  const __m512i order = _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
  _mm512_storeu_ps(to, _mm512_permutexvar_ps(order, v));
}
inline Vec LoadTwice(const float* p) { return _mm512_broadcast_f32x8(Load8(p)); }
inline IntVec LoadTwice(const int32_t* p) {
  return _mm512_broadcast_i64x4(Load256(reinterpret_cast<const uint8_t*>(p)));
}

template <int kDwords>
inline IntVec AddColumnDots(const __m512i* w, const int8_t* x, IntVec sum) {
#pragma GCC unroll 8
  for (int k = 0; k < kDwords; ++k) {
    const __m512i xk =
        _mm512_broadcast_i64x4(Load256(reinterpret_cast<const uint8_t*>(x + 32 * k)));
    sum = _mm512_dpbusd_epi32(sum, w[k], xk);
  }
  return sum;
}

inline Vec8 SumLanes(const float* lanes) {
  // Two rows a vector; an addition per lane keeps the order of the contract.
  const __m256i rows = _mm256_setr_epi32(0, 8, 16, 24, 32, 40, 48, 56);
  Vec8 sum = _mm256_i32gather_ps(lanes, rows, 4);
  for (int i = 1; i < 8; ++i) sum = _mm256_add_ps(sum, _mm256_i32gather_ps(lanes + i, rows, 4));
  return sum;
}

}  // namespace
}  // namespace coterie
