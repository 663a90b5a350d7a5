// Block readers and 8-bit dot products on 256-bit vectors, over what block_readers_avx2.inl or
// block_readers_avx512.inl defines before. Contracts: block_readers_scalar.inl.
//
// A vector holds a half of block i in its lower lane and the same half of block i + 4 in its upper
// one: the order of ChunkPlace(). Dot products of both halves then add up where they are, and the
// sums of eight blocks come together without crossing lanes.

namespace coterie {
namespace {

struct Chunk {
  __m256i q[kChunkBlocks];  // q[2 i + half]
  Vec8 d[2];
  Vec8 m;
};

inline void StoreBytes(const Chunk& c, uint8_t* to) {
  for (int i = 0; i < kChunkBlocks; ++i) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 32 * i), c.q[i]);
  }
}

inline __m256i LoadPair(const void* a, const void* b) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(Load128(a)), Load128(b), 1);
}

// The f16 at `offset` in each of a chunk's blocks.
template <class Blocks>
inline Vec8 HalvesAt(const Blocks& blocks, int offset) {
  const auto at = [&](int i) { return static_cast<int16_t>(ReadU16(blocks.at(i) + offset)); };
  return _mm256_cvtph_ps(_mm_setr_epi16(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)));
}

template <class Type, class Blocks>
inline void ReadScales(const Blocks& blocks, Vec8& d, Vec8& m) {
  d = HalvesAt(blocks, 0);
  if constexpr (Type::kHasMin) m = HalvesAt(blocks, 2);
}

template <class Type>
struct Reader;

// The types whose blocks hold 16 bytes of nibbles.
template <class Type>
struct NibbleReader {
  template <class Blocks>
  static inline void Read(const Blocks& blocks, Chunk& c) {
    ReadScales<Type>(blocks, c.d[0], c.m);
    const __m256i low = _mm256_set1_epi8(15);
    for (int i = 0; i < 4; ++i) {
      const uint8_t* a = blocks.at(i);
      const uint8_t* b = blocks.at(i + 4);
      const __m256i both = LoadPair(a + Type::kNibbles, b + Type::kNibbles);
      c.q[2 * i] = _mm256_and_si256(both, low);
      c.q[2 * i + 1] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
      if constexpr (Type::kFifthBits > 0) {
        for (int half = 0; half < 2; ++half) {
          const int high = Type::kFifthBits + 2 * half;
          c.q[2 * i + half] = AddFifthBits(c.q[2 * i + half], ReadU16(a + high), ReadU16(b + high));
        }
      }
    }
  }
};
template <>
struct Reader<Q4_0> : NibbleReader<Q4_0> {};
template <>
struct Reader<Q4_1> : NibbleReader<Q4_1> {};
template <>
struct Reader<Q5_0> : NibbleReader<Q5_0> {};
template <>
struct Reader<Q5_1> : NibbleReader<Q5_1> {};

template <>
struct Reader<Q8_0> {
  template <class Blocks>
  static inline void Read(const Blocks& blocks, Chunk& c) {
    ReadScales<Q8_0>(blocks, c.d[0], c.m);
    // The bytes plus the type's offset of 0 or 128.
    const __m256i flip = _mm256_set1_epi8(static_cast<char>(Q8_0::kOffset));
    for (int i = 0; i < 8; ++i) {
      const int at = 2 + 16 * (i & 1);
      const __m256i bytes = LoadPair(blocks.at(i >> 1) + at, blocks.at((i >> 1) + 4) + at);
      c.q[i] = Q8_0::kOffset == 0 ? bytes : _mm256_xor_si256(bytes, flip);
    }
  }
};

// 32 bytes hold block 2 j in low nibbles and block 2 j + 1 in high ones.
inline void SplitWideNibbles(const uint8_t* from, Chunk& c) {
  const __m256i low = _mm256_set1_epi8(15);
  for (int j = 0; j < 2; ++j) {
    for (int half = 0; half < 2; ++half) {
      const uint8_t* at = from + 32 * j + 16 * half;
      const __m256i both = LoadPair(at, at + 64);
      c.q[4 * j + half] = _mm256_and_si256(both, low);
      c.q[4 * j + 2 + half] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
    }
  }
}

template <>
struct Reader<Q4_K> {
  template <class Blocks>
  static inline void Read(const Blocks& blocks, Chunk& c) {
    const uint8_t* p = blocks.at(0);
    ReadSixBitScales(p, c.d[0], c.m);
    SplitWideNibbles(p + 16, c);
  }
};

template <>
struct Reader<Q5_K> {
  template <class Blocks>
  static inline void Read(const Blocks& blocks, Chunk& c) {
    const uint8_t* p = blocks.at(0);
    ReadSixBitScales(p, c.d[0], c.m);
    SplitWideNibbles(p + 48, c);
    const __m256i bit4 = _mm256_set1_epi8(16);
    for (int half = 0; half < 2; ++half) {
      // Bit i of the lower lane is block i's, and of the upper one block i + 4's.
      const __m128i high = Load128(p + 16 + 16 * half);
      const __m256i bits = _mm256_set_m128i(_mm_srli_epi16(high, 4), high);
      const auto add = [&](int i, __m256i bit) {
        c.q[2 * i + half] = _mm256_or_si256(c.q[2 * i + half], _mm256_and_si256(bit, bit4));
      };
      add(0, _mm256_slli_epi16(bits, 4));
      add(1, _mm256_slli_epi16(bits, 3));
      add(2, _mm256_slli_epi16(bits, 2));
      add(3, _mm256_slli_epi16(bits, 1));
    }
  }
};

template <>
struct Reader<Q6_K> {
  template <class Blocks>
  static inline void Read(const Blocks& blocks, Chunk& c) {
    const uint8_t* p = blocks.at(0);
    const __m256i low4 = _mm256_set1_epi8(15), bits45 = _mm256_set1_epi8(0x30);
    for (int half = 0; half < 2; ++half) {
      const uint8_t* low = p + 16 * half;
      const __m256i a = LoadPair(low, low + 64), b = LoadPair(low + 32, low + 96);
      const __m256i high = LoadPair(low + 128, low + 160);
      const auto join = [&](__m256i from, __m256i top) {
        return _mm256_or_si256(_mm256_and_si256(from, low4), _mm256_and_si256(top, bits45));
      };
      c.q[half] = join(a, _mm256_slli_epi16(high, 4));
      c.q[2 + half] = join(b, _mm256_slli_epi16(high, 2));
      c.q[4 + half] = join(_mm256_srli_epi16(a, 4), high);
      c.q[6 + half] = join(_mm256_srli_epi16(b, 4), _mm256_srli_epi16(high, 2));
    }
    const Vec8 d = Set8(HalfToFloat(ReadU16(p + 208)));
    const __m128i words = Load128(p + 192);  // Bytes 2 i and 2 i + 1: halves of block i.
    const __m128i first = _mm_srai_epi16(_mm_slli_epi16(words, 8), 8);
    const __m128i second = _mm_srai_epi16(words, 8);
    c.d[0] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(first)));
    c.d[1] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(second)));
  }
};

// The sums of the four dwords of each lane: those of v[0] to v[3] in the lower lane, and in the
// upper one.
inline __m256i SumsOfLanes(const __m256i* v) {
  const auto halves = [v](int i) {
    return _mm256_add_epi32(_mm256_unpacklo_epi32(v[i], v[i + 1]),
                            _mm256_unpackhi_epi32(v[i], v[i + 1]));
  };
  const __m256i a = halves(0), b = halves(2);
  return _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
}

inline __m256i LoadInts(const int32_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

template <class Type>
inline void ChunkDots(const Chunk& c, const int8_t* x, const int32_t* offsets, Vec8* out) {
  constexpr int kHalfCount = Type::kHalves ? 2 : 1;
  const auto values = [x](int i) { return Load256(x + 32 * i); };
  __m256i dots[kHalfCount][4];
  for (int i = 0; i < 8; i += 2) {
    if constexpr (Type::kHalves) {
      dots[0][i / 2] = DotsOf<Type>(c.q[i], values(i));
      dots[1][i / 2] = DotsOf<Type>(c.q[i + 1], values(i + 1));
    } else {
      dots[0][i / 2] = DotsOf<Type>(c.q[i], values(i), c.q[i + 1], values(i + 1));
    }
  }
  for (int half = 0; half < kHalfCount; ++half) {
    __m256i sums = SumsOfLanes(dots[half]);
    if constexpr (Type::kOffset != 0) {
      sums = _mm256_add_epi32(sums, LoadInts(offsets + kChunkBlocks * half));
    }
    out[half] = _mm256_cvtepi32_ps(sums);
  }
}

inline void MinusChunkSums(const int8_t* values, int32_t* sums, int32_t* first_sums) {
  struct Ones : BlockType<32, 32, 1, 0, false> {};
  const __m256i one = _mm256_set1_epi8(1);
  __m256i total = _mm256_setzero_si256();
  for (int half = 0; half < 2; ++half) {
    __m256i dots[4];
    for (int i = 0; i < 4; ++i) {
      const int8_t* at = values + 32 * i + 16 * half;
      dots[i] = DotsOf<Ones>(one, LoadPair(at, at + 128));
    }
    total = _mm256_sub_epi32(total, SumsOfLanes(dots));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(half == 0 ? first_sums : sums), total);
  }
}

inline Vec8 SumLanes(const float* lanes) {
  Vec8 sum;
  for (int half = 0; half < 2; ++half) {
    // Four lanes of rows i and i + 4, then each lane of all rows.
    __m256 v[4];
    for (int i = 0; i < 4; ++i) {
      const float* at = lanes + 8 * i + 4 * half;
      v[i] = _mm256_castsi256_ps(LoadPair(at, at + 32));
    }
    const __m256 a = _mm256_unpacklo_ps(v[0], v[1]), b = _mm256_unpackhi_ps(v[0], v[1]);
    const __m256 c = _mm256_unpacklo_ps(v[2], v[3]), d = _mm256_unpackhi_ps(v[2], v[3]);
    const __m256 first = _mm256_shuffle_ps(a, c, 0x44);
    sum = half == 0 ? first : _mm256_add_ps(sum, first);
    sum = _mm256_add_ps(sum, _mm256_shuffle_ps(a, c, 0xee));
    sum = _mm256_add_ps(sum, _mm256_shuffle_ps(b, d, 0x44));
    sum = _mm256_add_ps(sum, _mm256_shuffle_ps(b, d, 0xee));
  }
  return sum;
}

}  // namespace
}  // namespace coterie
