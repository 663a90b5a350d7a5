#include <algorithm>
#include <iterator>

#include "gtest/gtest.h"

#include "tests/core/kernels/kernel_testing.h"

namespace coterie {
namespace {

using testing::OnEveryTable;
using testing::RandomFloats;

struct Shape {
  int64_t n_tokens, n_heads, head_dim, n_kv, first_position;
  bool causal = true;
  int64_t window = 0;
};

class Problem {
 public:
  explicit Problem(const Shape& shape)
      : shape_(shape),
        q_(RandomFloats(shape.n_tokens * stride(), 1)),
        k_(testing::FromF16(testing::ToF16(RandomFloats(shape.n_kv * shape.head_dim, 2)))),
        v_(testing::ToF16(RandomFloats(shape.n_kv * shape.head_dim, 3))) {}

  // Runs the kernel for tokens [begin, end) of the problem.
  std::vector<float> Attend(const KernelTable& kernels, int64_t begin, int64_t end) const {
    std::vector<float> out(static_cast<size_t>((end - begin) * stride()), 5.0f);
    const std::vector<uint16_t> keys = KeyTiles(kernels);
    AttentionArgs args;
    args.q = q_.data() + begin * stride();
    args.q_stride = args.out_stride = stride();
    args.n_tokens = end - begin;
    args.n_heads = shape_.n_heads;
    args.head_dim = shape_.head_dim;
    args.k = keys.data();
    args.v = v_.data();
    args.n_kv = shape_.n_kv;
    args.first_position = shape_.first_position + begin;
    args.causal = shape_.causal;
    args.window = shape_.window;
    args.scale = scale();
    args.out = out.data();
    std::vector<float> scratch(static_cast<size_t>(
        AttentionScratchFloats(args.n_tokens, args.n_heads, args.head_dim, args.n_kv)));
    args.scratch = scratch.data();
    kernels.attend(args);
    return out;
  }

  // Makes the first n keys and values NaN.
  void PoisonKeys(int64_t n) {
    std::fill_n(k_.begin(), n * shape_.head_dim, NAN);
    std::fill_n(v_.begin(), n * shape_.head_dim, uint16_t{0x7e00});
  }

  std::vector<double> Reference() const {
    std::vector<double> out(static_cast<size_t>(shape_.n_tokens * stride()), 5.0);
    const std::vector<float> v = testing::FromF16(v_);
    for (int64_t t = 0; t < shape_.n_tokens; ++t) {
      for (int64_t h = 0; h < shape_.n_heads; ++h) {
        const int64_t at = t * stride() + h * shape_.head_dim;
        AttendRow(&q_[static_cast<size_t>(at)], k_.data(), v.data(), shape_.first_position + t,
                  &out[static_cast<size_t>(at)]);
      }
    }
    return out;
  }

  // Three values beyond the heads, which the kernel must leave alone.
  int64_t stride() const { return shape_.n_heads * shape_.head_dim + 3; }

 private:
  // What stands beyond the last key in its tile is not to be looked at.
  std::vector<uint16_t> KeyTiles(const KernelTable& kernels) const {
    std::vector<uint16_t> keys(static_cast<size_t>(WholeKeyTiles(shape_.n_kv) * shape_.head_dim),
                               0x7e00);
    for (int64_t j = 0; j < shape_.n_kv; ++j) {
      kernels.put_key(&k_[static_cast<size_t>(j * shape_.head_dim)], shape_.head_dim, j,
                      keys.data());
    }
    return keys;
  }

  float scale() const { return 1.0f / std::sqrt(static_cast<float>(shape_.head_dim)); }

  void AttendRow(const float* q, const float* k, const float* v, int64_t position,
                 double* out) const {
    const int64_t dim = shape_.head_dim;
    const int64_t last = shape_.causal ? std::min(shape_.n_kv, position + 1) : shape_.n_kv;
    const int64_t first =
        shape_.window > 0 ? std::max<int64_t>(0, position + 1 - shape_.window) : 0;
    std::vector<double> weights;
    double max = -1e300, sum = 0.0;
    for (int64_t j = first; j < last; ++j) {
      double dot = 0.0;
      for (int64_t d = 0; d < dim; ++d) dot += static_cast<double>(q[d]) * k[j * dim + d];
      weights.push_back(dot * scale());
      max = std::max(max, weights.back());
    }
    for (double& w : weights) sum += w = std::exp(w - max);
    for (int64_t d = 0; d < dim; ++d) {
      out[d] = 0.0;
      for (int64_t j = first; j < last; ++j) {
        out[d] += weights[static_cast<size_t>(j - first)] / sum * v[j * dim + d];
      }
    }
  }

  Shape shape_;
  std::vector<float> q_;
  std::vector<float> k_;
  std::vector<uint16_t> v_;
};

const Shape kShapes[] = {
    {1, 3, 64, 1, 0},                 // The first token.
    {1, 3, 64, 63, 62},               // Decoding, just short of a block of keys.
    {1, 7, 64, 130, 129},             // Decoding with a group that is no multiple of a tile.
    {1, 1, 128, 200, 199},            //
    {33, 3, 64, 33, 0},               // Prefill from nothing.
    {20, 2, 64, 150, 130},            // Prefill after a prefix.
    {9, 2, 40, 77, 68},               // A head that is no whole number of vectors.
    {5, 4, 80, 70, 65},               //
    {3, 2, 256, 67, 64},              //
    {17, 12, 32, 17, 0, false},       // An encoder.
    {40, 2, 64, 200, 160, true, 70},  // A window over more than one block of keys.
    {12, 2, 64, 300, 288, true, 5},   //
};

// Those, and runs of every length with and without a window: as gemma's (a head of 256, four of
// them to one of keys) and as llama's.
std::vector<Shape> AllShapes() {
  std::vector<Shape> shapes(std::begin(kShapes), std::end(kShapes));
  for (const int64_t n_tokens : {1, 2, 3, 7, 8, 33, 128}) {
    shapes.push_back({n_tokens, 3, 64, 150 + n_tokens, 150});
    shapes.push_back({n_tokens, 4, 256, 150 + n_tokens, 150, true, 64});
    shapes.push_back({n_tokens, 3, 64, 150 + n_tokens, 150, true, 1});
  }
  return shapes;
}

TEST(AttendTest, MatchesFloat64) {
  for (const Shape& shape : AllShapes()) {
    const Problem problem(shape);
    const std::vector<double> expected = problem.Reference();
    OnEveryTable([&](const KernelTable& kernels) {
      const std::vector<float> out = problem.Attend(kernels, 0, shape.n_tokens);
      for (size_t i = 0; i < out.size(); ++i) {
        ASSERT_NEAR(out[i], expected[i], 3e-6)
            << "value " << i << " tokens " << shape.n_tokens << " head_dim " << shape.head_dim;
      }
    });
  }
}

TEST(AttendTest, ATokenAloneGivesTheBitsItGivesInABatch) {
  for (const Shape& shape : AllShapes()) {
    const Problem problem(shape);
    OnEveryTable([&](const KernelTable& kernels) {
      const std::vector<float> batch = problem.Attend(kernels, 0, shape.n_tokens);
      for (int64_t t = 0; t < shape.n_tokens; ++t) {
        const std::vector<float> one = problem.Attend(kernels, t, t + 1);
        const std::vector<float> same(batch.begin() + t * problem.stride(),
                                      batch.begin() + (t + 1) * problem.stride());
        ASSERT_EQ(one, same) << "token " << t;
      }
    });
  }
}

// What no token of a call can see costs nothing: keys and values before it may be anything.
TEST(AttendTest, BlocksBeforeTheWindowAreNotRead) {
  const Shape shape = {8, 4, 256, 600, 592, true, 100};
  Problem problem(shape);
  OnEveryTable([&](const KernelTable& kernels) {
    const std::vector<float> expected = problem.Attend(kernels, 0, shape.n_tokens);
    Problem poisoned(shape);
    poisoned.PoisonKeys(592 - 100 - 64);
    EXPECT_EQ(poisoned.Attend(kernels, 0, shape.n_tokens), expected);
  });
}

TEST(AttendTest, NoKeysGiveZeros) {
  const Problem problem({2, 1, 64, 0, 0, false});
  OnEveryTable([&](const KernelTable& kernels) {
    const std::vector<float> out = problem.Attend(kernels, 0, 1);
    for (size_t i = 0; i < 64; ++i) EXPECT_EQ(out[i], 0.0f);
  });
}

}  // namespace
}  // namespace coterie
