// Matrix products per weight type and number of tokens, set beside what the machine can do.
//
//   kernels_bench --benchmark_filter='BM_MatmulQ8/Q4_K'          COTERIE_ISA chooses the table
//
// Every product is checked against float64 before it is timed. Arguments: tokens/threads/cached.
// GB/s counts the weights once per product; of_read and of_int8 are shares of the measured limits.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"

#include "bench/machine_limits.h"
#include "core/kernels/kernels.h"
#include "core/memory/aligned_buffer.h"
#include "core/threads/worker_pool.h"

namespace coterie {
namespace {

constexpr int64_t kColumns = 2048;
constexpr int64_t kStreamBytes = 200 << 20;  // Few tokens: far more weights than caches hold,
constexpr int64_t kCacheBytes = 600 << 10;   // or few enough for a core's own cache.

struct Limits {
  double read_bytes_per_second;
  double int8_macs_per_second;
};

WorkerPool& Pool(int n_threads) {
  static WorkerPool* const pools[] = {new WorkerPool(1), new WorkerPool(0)};
  return *pools[n_threads == 1 ? 0 : 1];
}

const Limits& LimitsOf(int n_threads) {
  static const Limits limits[] = {
      {MeasureReadBytesPerSecond(Pool(1)), MeasureInt8MacsPerSecond(Pool(1))},
      {MeasureReadBytesPerSecond(Pool(0)), MeasureInt8MacsPerSecond(Pool(0))}};
  return limits[n_threads == 1 ? 0 : 1];
}

// Random bytes with small finite scales wherever a block keeps an f16.
void FillWeights(TensorType type, uint8_t* data, int64_t n_bytes) {
  std::mt19937_64 random(1);
  for (int64_t i = 0; i + 8 <= n_bytes; i += 8) {
    const uint64_t bits = random();
    std::memcpy(data + i, &bits, 8);
  }
  const int block = Traits(type).block_bytes;
  const bool is_float = Traits(type).block_values == 1;
  for (int64_t at = 0; at < n_bytes; at += block) {
    for (const int offset : {0, 2}) {
      if (type == TensorType::kF32 || (is_float && offset == 2)) continue;
      uint8_t* scale = data + at + (type == TensorType::kQ6_K ? 208 : offset);
      const bool is_scale = is_float || offset == 0 || block % 4 == 0;
      if (is_scale) scale[1] = static_cast<uint8_t>((scale[1] & 0x80) | 0x20);
    }
  }
}

class Product {
 public:
  Product(TensorType type, int64_t n_rows, int64_t n_tokens, int n_threads)
      : n_tokens_(n_tokens), pool_(Pool(n_threads)) {
    weights_ = AlignedBuffer(n_rows * RowBytes(type, kColumns));
    FillWeights(type, weights_.data(), weights_.bytes());
    w_ = {type, n_rows, kColumns, weights_.data()};
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    x_.resize(static_cast<size_t>(n_tokens * kColumns));
    for (float& v : x_) v = normal(random);
    y_.resize(static_cast<size_t>(n_tokens * n_rows));
    rounded_memory_ = AlignedBuffer(QuantizedActivations::Bytes(n_tokens, kColumns));
    rounded_ = QuantizedActivations::In(rounded_memory_.data(), n_tokens, kColumns);
    Kernels().quantize_activations(x_.data(), kColumns, rounded_);
    for (int i = 0; i < pool_.n_workers(); ++i) {
      scratch_.emplace_back(MatmulScratchBytes(kColumns));
    }
  }

  void RunQ8() {
    ForPieces([&](int64_t begin, int64_t end, uint8_t* scratch) {
      Kernels().matmul_q8(w_, begin, end, rounded_, y_.data(), w_.n_rows, scratch);
    });
  }

  void RunF32() {
    ForPieces([&](int64_t begin, int64_t end, uint8_t* scratch) {
      Kernels().matmul_f32(w_, begin, end, x_.data(), n_tokens_, kColumns, y_.data(), w_.n_rows,
                           scratch);
    });
  }

  // Some results against float64; the bound is that of 8-bit activations.
  bool IsRight() const {
    std::vector<float> row(kColumns);
    for (const int64_t r : {int64_t{0}, w_.n_rows / 3, w_.n_rows - 1}) {
      Kernels().dequantize_row(w_.type, w_.row(r), kColumns, row.data());
      for (const int64_t t : {int64_t{0}, n_tokens_ - 1}) {
        double sum = 0.0, norm_w = 0.0, norm_x = 0.0;
        for (int64_t c = 0; c < kColumns; ++c) {
          const double w = row[static_cast<size_t>(c)];
          const double x = x_[static_cast<size_t>(t * kColumns + c)];
          sum += w * x;
          norm_w += w * w;
          norm_x += x * x;
        }
        const double error = std::fabs(sum - y_[static_cast<size_t>(t * w_.n_rows + r)]);
        if (!(error <= 0.02 * std::sqrt(norm_w * norm_x))) return false;
      }
    }
    return true;
  }

  double weight_bytes() const { return static_cast<double>(weights_.bytes()); }
  double macs() const {
    return static_cast<double>(w_.n_rows) * static_cast<double>(kColumns * n_tokens_);
  }

 private:
  template <typename Body>
  void ForPieces(Body body) {
    const int64_t n_pieces = 8 * pool_.n_workers();
    const int64_t step =
        (w_.n_rows / n_pieces + kMatmulRowAlign - 1) / kMatmulRowAlign * kMatmulRowAlign;
    pool_.Run((w_.n_rows + step - 1) / step, [&](int64_t piece, int worker) {
      const int64_t begin = piece * step;
      const int64_t end = begin + step < w_.n_rows ? begin + step : w_.n_rows;
      body(begin, end, scratch_[static_cast<size_t>(worker)].data());
    });
  }

  int64_t n_tokens_;
  WorkerPool& pool_;
  AlignedBuffer weights_;
  MatrixView w_;
  std::vector<float> x_, y_;
  AlignedBuffer rounded_memory_;
  QuantizedActivations rounded_;
  std::vector<AlignedBuffer> scratch_;
};

void Report(benchmark::State& state, const Product& product, int n_threads) {
  const double runs = static_cast<double>(state.iterations());
  const Limits& limits = LimitsOf(n_threads);
  const auto rate = [&](double amount) {
    return benchmark::Counter(amount * runs, benchmark::Counter::kIsRate);
  };
  state.counters["GB/s"] = rate(product.weight_bytes() / 1e9);
  state.counters["GMAC/s"] = rate(product.macs() / 1e9);
  state.counters["of_read"] = rate(product.weight_bytes() / limits.read_bytes_per_second);
  if (limits.int8_macs_per_second > 0.0) {
    state.counters["of_int8"] = rate(product.macs() / limits.int8_macs_per_second);
  }
}

void BM_Matmul(benchmark::State& state, TensorType type, bool is_q8) {
  const int n_threads = static_cast<int>(state.range(1));
  const int64_t row_bytes = RowBytes(type, kColumns);
  const int64_t n_rows = state.range(2) != 0    ? kCacheBytes / row_bytes
                         : state.range(0) <= 16 ? kStreamBytes / row_bytes / 64 * 64
                                                : 2048;
  Product product(type, n_rows, state.range(0), n_threads);
  const auto run = [&] { is_q8 ? product.RunQ8() : product.RunF32(); };
  run();
  if (!product.IsRight()) {
    state.SkipWithError("the product is wrong");
    return;
  }
  for (auto _ : state) run();
  Report(state, product, n_threads);
}

// One KV head, head_dim 64, a group of 3 query heads, n_tokens at the end of n_kv keys.
void BM_Attend(benchmark::State& state) {
  const int64_t n_tokens = state.range(0), n_kv = state.range(1), dim = 64, heads = 3;
  std::vector<float> q(static_cast<size_t>(n_tokens * heads * dim), 0.1f), out(q.size());
  std::vector<uint16_t> k(static_cast<size_t>(n_kv * dim), 0x2c00), v = k;
  std::vector<float> scratch(
      static_cast<size_t>(AttentionScratchFloats(n_tokens, heads, dim, n_kv)));
  AttentionArgs args;
  args.q = q.data();
  args.q_stride = args.out_stride = heads * dim;
  args.n_tokens = n_tokens;
  args.n_heads = heads;
  args.head_dim = dim;
  args.k = k.data();
  args.v = v.data();
  args.n_kv = n_kv;
  args.first_position = n_kv - n_tokens;
  args.scale = 0.125f;
  args.out = out.data();
  args.scratch = scratch.data();
  for (auto _ : state) Kernels().attend(args);
  if (std::fabs(out[5] - 0.0625f) > 1e-5f) state.SkipWithError("the result is wrong");
  const double pairs = static_cast<double>(n_tokens * heads * n_kv * dim * 2);
  const double runs = static_cast<double>(state.iterations());
  state.counters["GMAC/s"] = benchmark::Counter(pairs * runs / 1e9, benchmark::Counter::kIsRate);
  state.counters["GB/s"] = benchmark::Counter(static_cast<double>(n_kv * dim * 4) * runs / 1e9,
                                              benchmark::Counter::kIsRate);
}
BENCHMARK(BM_Attend)->Args({1, 256})->Args({1, 2048})->Args({64, 64})->Args({64, 512})->Args(
    {256, 2048});

void BM_QuantizeActivations(benchmark::State& state) {
  const std::vector<float> x(1 << 16, 0.5f);
  AlignedBuffer memory(QuantizedActivations::Bytes(1, 1 << 16));
  const auto rounded = QuantizedActivations::In(memory.data(), 1, 1 << 16);
  for (auto _ : state) Kernels().quantize_activations(x.data(), 0, rounded);
  state.SetItemsProcessed(state.iterations() * (1 << 16));
}
BENCHMARK(BM_QuantizeActivations);

void BM_SiluMul(benchmark::State& state) {
  const std::vector<float> gate(4096, 0.5f), up(4096, 2.0f);
  std::vector<float> y(4096);
  for (auto _ : state) Kernels().silu_mul(gate.data(), up.data(), 4096, y.data());
  state.SetItemsProcessed(state.iterations() * 4096);
}
BENCHMARK(BM_SiluMul);

void RegisterProducts() {
  for (int i = 0; i < kTensorTypeCount; ++i) {
    const TensorType type = static_cast<TensorType>(i);
    const std::string name(Traits(type).name);
    const bool has_q8 = Traits(type).block_values > 1;
    for (const bool is_q8 : {true, false}) {
      if (is_q8 && !has_q8) continue;
      auto* bench = benchmark::RegisterBenchmark(
          ((is_q8 ? "BM_MatmulQ8/" : "BM_MatmulF32/") + name).c_str(),
          [type, is_q8](benchmark::State& state) { BM_Matmul(state, type, is_q8); });
      bench->UseRealTime()
          ->Unit(benchmark::kMillisecond)
          ->ArgNames({"tokens", "threads", "cached"});
      for (const int64_t n_tokens : {1, 2, 8}) bench->Args({n_tokens, 1, 1});
      for (const int64_t n_tokens : {1, 2, 4, 8, 16, 64, 512}) {
        if (!is_q8 && (n_tokens == 2 || n_tokens == 4)) continue;
        for (const int64_t n_threads : {1, 0}) bench->Args({n_tokens, n_threads, 0});
      }
    }
  }
}

void PrintLimits() {
  for (const int n_threads : {1, 0}) {
    const Limits& limits = LimitsOf(n_threads);
    std::fprintf(stderr, "%d threads: read %.1f GB/s, int8 %.0f GMAC/s\n",
                 Pool(n_threads).n_workers(), limits.read_bytes_per_second / 1e9,
                 limits.int8_macs_per_second / 1e9);
  }
}

}  // namespace
}  // namespace coterie

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  coterie::RegisterProducts();
  benchmark::AddCustomContext("isa", std::string(coterie::Kernels().isa));
  coterie::PrintLimits();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
