// What the block readers of all instruction sets share: which bytes a block has and how its values
// are scaled. Layouts are those of ggml-org/ggml:src/ggml-common.h; all integers little-endian.
//
// clang-format off
//   Q4_0   f16 d; nibbles[16]                        w = d (q - 8)
//   Q4_1   f16 d; f16 m; nibbles[16]                 w = d q + m
//   Q5_0   f16 d; u32 high; nibbles[16]              w = d (q - 16)
//   Q5_1   f16 d; f16 m; u32 high; nibbles[16]       w = d q + m
//   Q8_0   f16 d; i8 q[32]                           w = d q
//   Q4_K   f16 d; f16 dmin; s[12]; nibbles[128]      w = (d sc) q - (dmin mn)
//   Q5_K   f16 d; f16 dmin; s[12]; high[32]; nibbles[128]      the same
//   Q6_K   low[128]; high[64]; i8 sc[16]; f16 d      w = (d sc) (q - 32), sc per 16 values
//
//   nibbles[16]    byte j: value j low, value j + 16 high
//   u32 high       bit j: bit 4 of value j
//   nibbles[128]   bytes 32 i .. 32 i + 31: values from 64 i on low, the next 32 high
//   s[12]          sc and mn of each 32 values, 6 bits each: UnpackScales()
//   high[32]       bit b of byte j: bit 4 of value 32 b + j
//   low, high      of Q6_K, per half of 128 values: 64 and 32 bytes. Byte j of low: values j and
//                  j + 64; byte j of high: bits 4 and 5 of values j, j + 32, j + 64, j + 96
// clang-format on
//
// A reader turns a chunk of 256 values into bytes q and, per lane (one block of 32), scale and
// minimum: w = d (q - kOffset) + m. Types with scales per 16 values (kHalves) have d[0] for first
// halves of the blocks and d[1] for second halves. The bytes stand in the order of ChunkPlace(), in
// which the sums of eight blocks cost least on 128-bit lanes.

namespace coterie {
namespace {

template <int kBlockValues_, int kBlockBytes_, int kMaxByte_, int kOffset_, bool kHasMin_,
          bool kHalves_ = false>
struct BlockType {
  static constexpr int kBlockValues = kBlockValues_;
  static constexpr int kBlockBytes = kBlockBytes_;
  static constexpr int kMaxByte = kMaxByte_;  // Largest magnitude of the bytes a reader gives.
  static constexpr int kOffset = kOffset_;    // Subtracted from the bytes that a reader gives.
  static constexpr bool kHasMin = kHasMin_;
  static constexpr bool kHalves = kHalves_;
  static constexpr bool kSigned = false;  // The bytes are int8.
  static constexpr int kChunkBytes = kChunk / kBlockValues * kBlockBytes;
  // Of the types with nibbles[16]: where those begin, and the fifth bits, if it has them.
  static constexpr int kNibbles = kBlockBytes - 16;
  static constexpr int kFifthBits = kMaxByte == 31 ? kNibbles - 4 : 0;
};

struct Q4_0 : BlockType<32, 18, 15, 8, false> {};
struct Q4_1 : BlockType<32, 20, 15, 0, true> {};
struct Q5_0 : BlockType<32, 22, 31, 16, false> {};
struct Q5_1 : BlockType<32, 24, 31, 0, true> {};
#if defined(__AVX512VNNI__)
// vpdpbusd wants unsigned weights; its 32-bit sums hold them all.
struct Q8_0 : BlockType<32, 34, 255, 128, false> {};
#else
struct Q8_0 : BlockType<32, 34, 128, 0, false> {
  static constexpr bool kSigned = true;
};
#endif
struct Q4_K : BlockType<256, 144, 15, 0, true> {};
struct Q5_K : BlockType<256, 176, 31, 0, true> {};
struct Q6_K : BlockType<256, 210, 63, 32, false, true> {};

// Where the 16 values of a block's half stand among the bytes of a chunk: beside those of the block
// four further on.
constexpr int ChunkPlace(int block, int half) {
  return 64 * (block & 3) + 32 * half + 16 * (block >> 2);
}

// What stands at a place: dword `place` of a chunk's 64 is dword `dword` of the 8 of a block.
struct ChunkDword {
  int block;
  int dword;
};
constexpr ChunkDword ChunkDwordAt(int place) {
  return {(place >> 4) + (place >> 2 & 1) * 4, (place >> 3 & 1) * 4 + (place & 3)};
}

// The eight blocks of a chunk one after another, as in a row ...
template <class Type>
struct WholeChunk {
  const uint8_t* at(int i) const { return begin + i * Type::kBlockBytes; }
  const uint8_t* begin;
};
// ... or each from where it stands.
struct ScatteredChunk {
  const uint8_t* at(int i) const { return block[i]; }
  const uint8_t* block[kChunkBlocks];
};

// Stands in for blocks that are missing.
alignas(64) constexpr uint8_t kZeroBlock[64] = {};

// The first n_blocks, and zeros after them.
template <class Type>
inline ScatteredChunk PartOfChunk(const uint8_t* begin, int64_t n_blocks) {
  ScatteredChunk part;
  for (int i = 0; i < kChunkBlocks; ++i) {
    part.block[i] = i < n_blocks ? begin + i * Type::kBlockBytes : kZeroBlock;
  }
  return part;
}

inline uint16_t ReadU16(const uint8_t* p) {
  uint16_t v;
  memcpy(&v, p, 2);
  return v;
}

inline uint32_t ReadU32(const uint8_t* p) {
  uint32_t v;
  memcpy(&v, p, 4);
  return v;
}

// The eight 6-bit scales and minima of a Q4_K or Q5_K block, one per byte. Of the 12 bytes, the
// first two words hold six bits each of entries 0..3, the upper two bits of them and the last
// word's nibbles make entries 4..7.
struct SixBitScales {
  uint64_t scales;
  uint64_t mins;
};

inline SixBitScales UnpackScales(const uint8_t* s) {
  const uint32_t a = ReadU32(s), b = ReadU32(s + 4), c = ReadU32(s + 8);
  const uint64_t scales_high = (c & 0x0f0f0f0f) | (a >> 2 & 0x30303030);
  const uint64_t mins_high = (c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030);
  return {(a & 0x3f3f3f3f) | scales_high << 32, (b & 0x3f3f3f3f) | mins_high << 32};
}

}  // namespace
}  // namespace coterie
