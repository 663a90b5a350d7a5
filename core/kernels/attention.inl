// Attention of the query heads that share one KV head, with an online softmax (Milakov and
// Gimelshein, "Online normalizer calculation for softmax", 2018).
//
// Keys go in blocks of 64, at multiples of 64, so that a token's result does not depend on its
// batch. Every query row (token and head) of the call takes a block in: scores, running maximum and
// sum, values. For many rows a block is converted to f32 once; few read it as it is stored.

namespace coterie {
namespace {

struct AttentionScratch {
  int64_t padded_dim;  // head_dim rounded up to whole vectors.
  float* keys;         // [head_dim][kKeyBlock]
  float* values;       // [kKeyBlock][padded_dim]
  float* scores;       // [kQueryGroup][kKeyBlock]
  float* maxima;       // [n_tokens * n_heads]
  float* sums;         // [n_tokens * n_heads]
};

inline AttentionScratch PlaceScratch(const AttentionArgs& args) {
  AttentionScratch s;
  s.padded_dim = (args.head_dim + kLanes - 1) / kLanes * kLanes;
  s.keys = args.scratch;
  s.values = s.keys + kKeyBlock * s.padded_dim;
  s.scores = s.values + kKeyBlock * s.padded_dim;
  s.maxima = s.scores + kQueryGroup * kKeyBlock;
  s.sums = s.maxima + args.n_tokens * args.n_heads;
  return s;
}

// Dimension d of the block of keys from `first` on.
static_assert(kKeyTile == kKeyBlock);
inline const uint16_t* KeysAt(const AttentionArgs& args, int64_t first, int64_t d) {
  return args.k + first * args.head_dim + d * kKeyTile;
}

void PutKey(const float* key, int64_t head_dim, int64_t position, uint16_t* keys) {
  uint16_t* to = keys + position / kKeyTile * head_dim * kKeyTile + position % kKeyTile;
  for (int64_t d = 0; d < head_dim; d += kLanes) {
    alignas(64) uint16_t rounded[kLanes];
    StoreF16(rounded, LoadN(key + d, head_dim - d));
    for (int64_t i = 0; i < kLanes && d + i < head_dim; ++i) to[(d + i) * kKeyTile] = rounded[i];
  }
}

inline void ConvertRow(const uint16_t* from, int64_t n, float* to) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) Store(to + i, LoadF16(from + i));
  if (i < n) Store(to + i, LoadF16N(from + i, n - i));
}

inline void ZeroRow(float* to, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) Store(to + i, Set1(0.0f));
}

// Keys of a block that are there.
inline int64_t KeysOfBlock(const AttentionArgs& args, int64_t first) {
  return args.n_kv - first < kKeyBlock ? args.n_kv - first : kKeyBlock;
}

// A block as f32, for many rows. What lies beyond n_kv in a last tile becomes nobody's score.
struct ConvertedBlock {
  ConvertedBlock(const AttentionArgs& args, int64_t first, const AttentionScratch& scratch)
      : s(scratch) {
    ConvertRow(KeysAt(args, first, 0), args.head_dim * kKeyBlock, s.keys);
    const int64_t n = KeysOfBlock(args, first);
    for (int64_t j = 0; j < n; ++j) {
      ConvertRow(args.v + (first + j) * args.head_dim, args.head_dim, s.values + j * s.padded_dim);
    }
  }
  Vec Keys(int64_t d, int64_t j) const { return Load(s.keys + d * kKeyBlock + j); }
  // From dimension d on; some of those beyond head_dim may be anything.
  Vec Values(int64_t j, int64_t d) const { return Load(s.values + j * s.padded_dim + d); }

  const AttentionScratch& s;
};

// A block as it is stored.
struct StoredBlock {
  StoredBlock(const AttentionArgs& a, int64_t first_key, const AttentionScratch&)
      : args(a), first(first_key) {}
  Vec Keys(int64_t d, int64_t j) const { return LoadF16(KeysAt(args, first, d) + j); }
  Vec Values(int64_t j, int64_t d) const {
    const uint16_t* at = args.v + (first + j) * args.head_dim + d;
    return d + kLanes <= args.head_dim ? LoadF16(at) : LoadF16N(at, args.head_dim - d);
  }

  const AttentionArgs& args;
  int64_t first;
};

// Row r of a call: head r % n_heads of token r / n_heads.
inline const float* QueryRow(const AttentionArgs& args, int64_t r) {
  return args.q + r / args.n_heads * args.q_stride + r % args.n_heads * args.head_dim;
}
inline float* OutRow(const AttentionArgs& args, int64_t r) {
  return args.out + r / args.n_heads * args.out_stride + r % args.n_heads * args.head_dim;
}

// The keys that a row sees: [first, last).
struct KeyRange {
  int64_t first;
  int64_t last;
};
inline KeyRange VisibleKeys(const AttentionArgs& args, int64_t r) {
  const int64_t position = args.first_position + r / args.n_heads;
  KeyRange keys = {0, args.n_kv};
  if (args.causal && position + 1 < keys.last) keys.last = position + 1;
  if (args.window > 0 && position + 1 > args.window) keys.first = position + 1 - args.window;
  return keys;
}

// Vectors held per row while a tile is computed: as many as registers allow.
constexpr int kTileVecs = kLanes == 16 ? 4 : 2;

// scores[row][key] = scale * q_row . key for kRows rows and n_keys keys of a block or more.
template <int kRows, int kVecs, class Block>
void ScoreTile(const AttentionArgs& args, int64_t first_row, int64_t n_keys, const Block& block,
               float* scores) {
  const float* q[kRows];
  for (int r = 0; r < kRows; ++r) q[r] = QueryRow(args, first_row + r);
  const Vec scale = Set1(args.scale);
  for (int j = 0; j < n_keys; j += kVecs * kLanes) {
    Vec acc[kRows][kVecs];
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kVecs; ++v) acc[r][v] = Set1(0.0f);
    }
    for (int64_t d = 0; d < args.head_dim; ++d) {
      Vec k[kVecs];
      for (int v = 0; v < kVecs; ++v) k[v] = block.Keys(d, j + v * kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const Vec x = Set1(q[r][d]);
#pragma GCC unroll 4
        for (int v = 0; v < kVecs; ++v) acc[r][v] = Fma(x, k[v], acc[r][v]);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kVecs; ++v) {
        Store(scores + r * kKeyBlock + j + v * kLanes, Mul(acc[r][v], scale));
      }
    }
  }
}

// Turns a row's scores of the block at `first_key` into weights exp(score - maximum), updates its
// maximum and sum, and returns what earlier values must be multiplied with.
float WeighRow(const AttentionArgs& args, const AttentionScratch& s, int64_t row, float* scores,
               int64_t first_key) {
  const KeyRange keys = VisibleKeys(args, row);
  if (keys.last <= first_key || keys.first >= first_key + kKeyBlock) {
    ZeroRow(scores, kKeyBlock);
    return 1.0f;
  }
  for (int64_t j = 0; j < keys.first - first_key; ++j) scores[j] = -INFINITY;
  for (int64_t j = keys.last - first_key; j < kKeyBlock; ++j) scores[j] = -INFINITY;
  Vec max = Set1(s.maxima[row]);
  for (int j = 0; j < kKeyBlock; j += kLanes) max = Max(max, Load(scores + j));
  const float new_max = MaxOf(max);
  const Vec shift = Set1(new_max);
  Vec sum = Set1(0.0f);
  for (int j = 0; j < kKeyBlock; j += kLanes) {
    const Vec weight = Exp(Sub(Load(scores + j), shift));
    Store(scores + j, weight);
    sum = Add(sum, weight);
  }
  const float correction = new_max == s.maxima[row] ? 1.0f : ::expf(s.maxima[row] - new_max);
  s.maxima[row] = new_max;
  s.sums[row] = s.sums[row] * correction + Sum(sum);
  return correction;
}

// out = out * correction + weights * values, for kRows rows.
template <int kRows, class Block>
void AddValues(const AttentionArgs& args, int64_t first_row, int64_t n_keys, const Block& block,
               const AttentionScratch& s, const float* weights, const float* corrections) {
  for (int64_t d = 0; d < args.head_dim; d += kTileVecs * kLanes) {
    Vec acc[kRows][kTileVecs];
    for (int r = 0; r < kRows; ++r) {
      const float* out = OutRow(args, first_row + r);
      for (int v = 0; v < kTileVecs; ++v) {
        const int64_t at = d + v * kLanes;
        acc[r][v] = at < args.head_dim
                        ? Mul(LoadN(out + at, args.head_dim - at), Set1(corrections[r]))
                        : Set1(0.0f);
      }
    }
    // Beyond head_dim a vector is read twice rather than out of bounds, and not stored.
    int64_t from[kTileVecs];
    for (int v = 0; v < kTileVecs; ++v) {
      from[v] = d + v * kLanes < s.padded_dim ? d + v * kLanes : d;
    }
    for (int64_t j = 0; j < n_keys; ++j) {
      Vec value[kTileVecs];
      for (int v = 0; v < kTileVecs; ++v) value[v] = block.Values(j, from[v]);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const Vec weight = Set1(weights[r * kKeyBlock + j]);
#pragma GCC unroll 4
        for (int v = 0; v < kTileVecs; ++v) acc[r][v] = Fma(weight, value[v], acc[r][v]);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      float* out = OutRow(args, first_row + r);
      for (int v = 0; v < kTileVecs; ++v) {
        const int64_t at = d + v * kLanes;
        if (at < args.head_dim) StoreN(out + at, acc[r][v], args.head_dim - at);
      }
    }
  }
}

// Of the block at first_key how many keys there are up to the last one that rows [begin, end) see;
// none, if all lie beyond their windows. Both ends of what a row sees rise with the rows.
inline int64_t KeysSeen(const AttentionArgs& args, int64_t begin, int64_t end, int64_t first_key) {
  if (VisibleKeys(args, begin).first >= first_key + kKeyBlock) return 0;
  const int64_t n = VisibleKeys(args, end - 1).last - first_key;
  return n < 0 ? 0 : n < kKeyBlock ? n : kKeyBlock;
}

// All keys, then all values of a block go by a group of rows: a block of both has no room in the L1
// cache.
template <class Block>
void AttendGroup(const AttentionArgs& args, int64_t begin, int64_t end, int64_t first_key,
                 const Block& block, const AttentionScratch& s) {
  const int64_t n_keys = KeysSeen(args, begin, end, first_key);
  if (n_keys == 0) return;
  ForTiles<kQueryTile>(begin, end, [&](int64_t row, auto tile) {
    float* scores = s.scores + (row - begin) * kKeyBlock;
    if (n_keys > kKeyBlock / 2) {
      ScoreTile<tile.value, kTileVecs>(args, row, n_keys, block, scores);
    } else {
      ScoreTile<tile.value, 2>(args, row, n_keys, block, scores);
    }
  });
  float corrections[kQueryGroup];
  for (int64_t r = begin; r < end; ++r) {
    corrections[r - begin] = WeighRow(args, s, r, s.scores + (r - begin) * kKeyBlock, first_key);
  }
  ForTiles<kQueryTile>(begin, end, [&](int64_t row, auto tile) {
    AddValues<tile.value>(args, row, n_keys, block, s, s.scores + (row - begin) * kKeyBlock,
                          corrections + (row - begin));
  });
}

template <class Block>
void AttendRows(const AttentionArgs& args, int64_t key, const Block& block,
                const AttentionScratch& s) {
  const int64_t n_rows = args.n_tokens * args.n_heads;
  for (int64_t r = 0; r < n_rows; r += kQueryGroup) {
    AttendGroup(args, r, n_rows - r < kQueryGroup ? n_rows : r + kQueryGroup, key, block, s);
  }
}

// Up to this many rows read a block as it is stored: converting it costs more than they save.
constexpr int64_t kFewRows = 2 * kQueryTile;

void Attend(const AttentionArgs& args) {
  const AttentionScratch s = PlaceScratch(args);
  const int64_t n_rows = args.n_tokens * args.n_heads;
  for (int64_t r = 0; r < n_rows; ++r) {
    s.maxima[r] = -INFINITY;
    s.sums[r] = 0.0f;
    Map(OutRow(args, r), args.head_dim, OutRow(args, r), [](Vec) { return Set1(0.0f); });
  }
  if (n_rows == 0) return;
  const int64_t first = VisibleKeys(args, 0).first;
  const int64_t last = VisibleKeys(args, n_rows - 1).last;
  for (int64_t key = first / kKeyBlock * kKeyBlock; key < last; key += kKeyBlock) {
    if (n_rows <= kFewRows) {
      AttendRows(args, key, StoredBlock(args, key, s), s);
    } else {
      AttendRows(args, key, ConvertedBlock(args, key, s), s);
    }
  }
  for (int64_t r = 0; r < n_rows; ++r) {
    const Vec scale = Set1(s.sums[r] > 0.0f ? 1.0f / s.sums[r] : 0.0f);
    Map(OutRow(args, r), args.head_dim, OutRow(args, r), [scale](Vec v) { return Mul(v, scale); });
  }
}

}  // namespace
}  // namespace coterie
