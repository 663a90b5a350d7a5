// Block readers and 8-bit dot products in portable C++: the reference for the others.

namespace coterie {
namespace {

struct Chunk {
  uint8_t q[kChunk];
  Vec8 d[2];
  Vec8 m;
};

inline void StoreBytes(const Chunk& c, uint8_t* to) { memcpy(to, c.q, kChunk); }

// Of value j of a block.
inline uint8_t& ByteOf(Chunk& c, int block, int j) {
  return c.q[ChunkPlace(block, j >> 4) + (j & 15)];
}

inline void SplitNibbles(const uint8_t* from, int block, Chunk& c) {
  for (int j = 0; j < 16; ++j) {
    ByteOf(c, block, j) = from[j] & 15;
    ByteOf(c, block, j + 16) = from[j] >> 4;
  }
}

inline void AddFifthBits(uint32_t high, int block, Chunk& c) {
  for (int j = 0; j < 32; ++j) {
    ByteOf(c, block, j) |= static_cast<uint8_t>((high >> j & 1) << 4);
  }
}

template <class Type>
struct Reader;

// The types whose blocks hold 16 bytes of nibbles.
template <class Type>
struct NibbleReader {
  template <class Blocks>
  static void Read(const Blocks& blocks, Chunk& c) {
    for (int i = 0; i < kChunkBlocks; ++i) {
      const uint8_t* block = blocks.at(i);
      c.d[0].lane[i] = HalfToFloat(ReadU16(block));
      if constexpr (Type::kHasMin) c.m.lane[i] = HalfToFloat(ReadU16(block + 2));
      SplitNibbles(block + Type::kNibbles, i, c);
      if constexpr (Type::kFifthBits > 0) AddFifthBits(ReadU32(block + Type::kFifthBits), i, c);
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
  static void Read(const Blocks& blocks, Chunk& c) {
    for (int i = 0; i < kChunkBlocks; ++i) {
      const uint8_t* block = blocks.at(i);
      c.d[0].lane[i] = HalfToFloat(ReadU16(block));
      for (int half = 0; half < 2; ++half) {
        memcpy(c.q + ChunkPlace(i, half), block + 2 + 16 * half, 16);
      }
    }
  }
};

inline void ReadScales(const uint8_t* block, Chunk& c) {
  const float d = HalfToFloat(ReadU16(block)), dmin = HalfToFloat(ReadU16(block + 2));
  const SixBitScales s = UnpackScales(block + 4);
  for (int i = 0; i < 8; ++i) {
    c.d[0].lane[i] = d * static_cast<float>(s.scales >> 8 * i & 255);
    c.m.lane[i] = -(dmin * static_cast<float>(s.mins >> 8 * i & 255));
  }
}

inline void SplitWideNibbles(const uint8_t* from, Chunk& c) {
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 32; ++j) {
      ByteOf(c, 2 * i, j) = from[32 * i + j] & 15;
      ByteOf(c, 2 * i + 1, j) = from[32 * i + j] >> 4;
    }
  }
}

template <>
struct Reader<Q4_K> {
  template <class Blocks>
  static void Read(const Blocks& blocks, Chunk& c) {
    const uint8_t* p = blocks.at(0);
    ReadScales(p, c);
    SplitWideNibbles(p + 16, c);
  }
};

template <>
struct Reader<Q5_K> {
  template <class Blocks>
  static void Read(const Blocks& blocks, Chunk& c) {
    const uint8_t* p = blocks.at(0);
    ReadScales(p, c);
    SplitWideNibbles(p + 48, c);
    for (int i = 0; i < 8; ++i) {
      for (int j = 0; j < 32; ++j) ByteOf(c, i, j) |= (p[16 + j] >> i & 1) << 4;
    }
  }
};

template <>
struct Reader<Q6_K> {
  template <class Blocks>
  static void Read(const Blocks& blocks, Chunk& c) {
    const uint8_t* p = blocks.at(0);
    for (int half = 0; half < 2; ++half) {
      const uint8_t* low = p + 64 * half;
      const uint8_t* high = p + 128 + 32 * half;
      const int block = 4 * half;
      for (int j = 0; j < 32; ++j) {
        ByteOf(c, block, j) = (low[j] & 15) | (high[j] & 3) << 4;
        ByteOf(c, block + 1, j) = (low[j + 32] & 15) | (high[j] >> 2 & 3) << 4;
        ByteOf(c, block + 2, j) = low[j] >> 4 | (high[j] >> 4 & 3) << 4;
        ByteOf(c, block + 3, j) = low[j + 32] >> 4 | (high[j] >> 6 & 3) << 4;
      }
    }
    const float d = HalfToFloat(ReadU16(p + 208));
    for (int i = 0; i < 16; ++i) {
      c.d[i & 1].lane[i >> 1] = d * static_cast<float>(static_cast<int8_t>(p[192 + i]));
    }
  }
};

// Whole-number dot product of n weights (int8 if kSigned) and n activations.
template <bool kSigned>
inline int32_t Dot(const uint8_t* q, const int8_t* x, int n) {
  int32_t sum = 0;
  for (int i = 0; i < n; ++i) {
    sum += (kSigned ? static_cast<int8_t>(q[i]) : static_cast<int>(q[i])) * x[i];
  }
  return sum;
}

// Shapes of the panel product that this instruction set has registers for.
constexpr int kPanelsAtOnce = 1;
constexpr int kPanelTile = 8;

// out[0]: the dot products of a chunk's blocks with values x in the same order, one a lane, plus
// offsets [8] where the type has an offset; if it has halves, out[0] and out[1] are those of first
// and second halves, and offsets [2][8].
template <class Type>
inline void ChunkDots(const Chunk& c, const int8_t* x, const int32_t* offsets, Vec8* out) {
  for (int i = 0; i < kChunkBlocks; ++i) {
    int32_t dots[2] = {};
    for (int half = 0; half < 2; ++half) {
      const int at = ChunkPlace(i, half);
      dots[Type::kHalves ? half : 0] += Dot<Type::kSigned>(c.q + at, x + at, 16);
    }
    for (int half = 0; half < (Type::kHalves ? 2 : 1); ++half) {
      if constexpr (Type::kOffset != 0) dots[half] += offsets[kChunkBlocks * half + i];
      out[half].lane[i] = static_cast<float>(dots[half]);
    }
  }
}

// Minus the sums of the values of 8 blocks one after another, and of their first halves.
inline void MinusChunkSums(const int8_t* values, int32_t* sums, int32_t* first_sums) {
  for (int b = 0; b < kChunkBlocks; ++b) {
    sums[b] = 0;
    for (int i = 0; i < 32; ++i) {
      sums[b] -= values[32 * b + i];
      if (i == 15) first_sums[b] = sums[b];
    }
  }
}

// Adds the dot products of kLanes rows of each of kPanels panels with kTokens tokens over
// 4 * kDwords columns. w: [kDwords][kLanes][4] bytes, panels w_stride bytes apart; token t's
// activations begin at x + t * x_stride.
template <class Type, int kDwords, int kPanels, int kTokens>
inline void PanelDots(const uint8_t* w, int64_t w_stride, const int8_t* x, int64_t x_stride,
                      IntVec (&dots)[kPanels][kTokens]) {
  for (int p = 0; p < kPanels; ++p, w += w_stride) {
    for (int t = 0; t < kTokens; ++t) {
      for (int k = 0; k < kDwords; ++k) {
        for (int r = 0; r < kLanes; ++r) {
          dots[p][t].lane[r] +=
              Dot<Type::kSigned>(w + 4 * (k * kLanes + r), x + t * x_stride + 4 * k, 4);
        }
      }
    }
  }
}

// The float sum of lanes 0 to 7, in that order, of each of 8 rows. lanes: [8 rows][8].
inline Vec8 SumLanes(const float* lanes) {
  Vec8 sums;
  for (int r = 0; r < 8; ++r) {
    float sum = lanes[8 * r];
    for (int i = 1; i < 8; ++i) sum += lanes[8 * r + i];
    sums.lane[r] = sum;
  }
  return sums;
}

}  // namespace
}  // namespace coterie
