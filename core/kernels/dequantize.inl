// Weights to f32, bit-equal on every instruction set and to gguf.quants.dequantize of PyPI `gguf`:
// products of scale and byte are exact in f32, so that only the addition of a minimum rounds.

namespace coterie {
namespace {

// The chunk that begins at src, which may end with its row before all blocks are there.
template <class Type>
inline void ReadChunk(const uint8_t* src, int64_t n_blocks, Chunk& c) {
  if (Type::kBlockValues != 32 || n_blocks >= kChunkBlocks) {
    Reader<Type>::Read(WholeChunk<Type>{src}, c);
  } else {
    Reader<Type>::Read(PartOfChunk<Type>(src, n_blocks), c);
  }
}

template <class Type>
inline void DequantizeChunk(const uint8_t* src, int n_blocks, float* dst) {
  Chunk c;
  ReadChunk<Type>(src, n_blocks, c);
  alignas(64) uint8_t q[kChunk];
  alignas(32) float d[2][8], m[8] = {};
  StoreBytes(c, q);
  for (int half = 0; half < (Type::kHalves ? 2 : 1); ++half) Store8(d[half], c.d[half]);
  if constexpr (Type::kHasMin) Store8(m, c.m);
  for (int i = 0; i < 2 * n_blocks; ++i) {
    const Vec scale = Set1(d[Type::kHalves ? i & 1 : 0][i >> 1]);
    const Vec min = Set1(m[i >> 1]);
    const uint8_t* bytes = q + ChunkPlace(i >> 1, i & 1);
    for (int j = 0; j < 16; j += kLanes) {
      const Vec value = Mul(scale, LoadBytes<Type::kSigned>(bytes + j, Type::kOffset));
      Store(dst + 16 * i + j, Type::kHasMin ? Add(value, min) : value);
    }
  }
}

template <class Type>
void DequantizeBlocks(const uint8_t* src, int64_t n_values, float* dst) {
  for (; n_values >= kChunk; n_values -= kChunk) {
    DequantizeChunk<Type>(src, kChunkBlocks, dst);
    src += Type::kChunkBytes;
    dst += kChunk;
  }
  if (n_values > 0) DequantizeChunk<Type>(src, static_cast<int>(n_values / 32), dst);
}

void DequantizeF16(const uint8_t* src, int64_t n_values, float* dst) {
  const uint16_t* halves = reinterpret_cast<const uint16_t*>(src);
  int64_t i = 0;
  for (; i + kLanes <= n_values; i += kLanes) Store(dst + i, LoadF16(halves + i));
  if (i < n_values) StoreN(dst + i, LoadF16N(halves + i, n_values - i), n_values - i);
}

void DequantizeBF16(const uint8_t* src, int64_t n_values, float* dst) {
  const uint16_t* halves = reinterpret_cast<const uint16_t*>(src);
  for (int64_t i = 0; i < n_values; i += kLanes) {
    StoreN(dst + i, LoadBF16N(halves + i, n_values - i), n_values - i);
  }
}

void DequantizeRow(TensorType type, const uint8_t* src, int64_t n_values, float* dst) {
  switch (type) {
    case TensorType::kF32:
      memcpy(dst, src, static_cast<size_t>(n_values) * 4);
      return;
    case TensorType::kF16:
      return DequantizeF16(src, n_values, dst);
    case TensorType::kBF16:
      return DequantizeBF16(src, n_values, dst);
    case TensorType::kQ4_0:
      return DequantizeBlocks<Q4_0>(src, n_values, dst);
    case TensorType::kQ4_1:
      return DequantizeBlocks<Q4_1>(src, n_values, dst);
    case TensorType::kQ5_0:
      return DequantizeBlocks<Q5_0>(src, n_values, dst);
    case TensorType::kQ5_1:
      return DequantizeBlocks<Q5_1>(src, n_values, dst);
    case TensorType::kQ8_0:
      return DequantizeBlocks<Q8_0>(src, n_values, dst);
    case TensorType::kQ4_K:
      return DequantizeBlocks<Q4_K>(src, n_values, dst);
    case TensorType::kQ5_K:
      return DequantizeBlocks<Q5_K>(src, n_values, dst);
    case TensorType::kQ6_K:
      return DequantizeBlocks<Q6_K>(src, n_values, dst);
  }
}

struct BlockShape {
  int values;
  int bytes;
};

inline BlockShape ShapeOf(TensorType type) {
  switch (type) {
    case TensorType::kF32:
      return {1, 4};
    case TensorType::kF16:
    case TensorType::kBF16:
      return {1, 2};
    case TensorType::kQ4_0:
      return {32, Q4_0::kBlockBytes};
    case TensorType::kQ4_1:
      return {32, Q4_1::kBlockBytes};
    case TensorType::kQ5_0:
      return {32, Q5_0::kBlockBytes};
    case TensorType::kQ5_1:
      return {32, Q5_1::kBlockBytes};
    case TensorType::kQ8_0:
      return {32, Q8_0::kBlockBytes};
    case TensorType::kQ4_K:
      return {256, Q4_K::kBlockBytes};
    case TensorType::kQ5_K:
      return {256, Q5_K::kBlockBytes};
    case TensorType::kQ6_K:
      return {256, Q6_K::kBlockBytes};
  }
  return {1, 4};
}

}  // namespace
}  // namespace coterie
