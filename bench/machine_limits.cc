#include "bench/machine_limits.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "core/memory/aligned_buffer.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace coterie {
namespace {

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The least time of several runs of body.
template <typename Body>
double BestSeconds(int n_runs, Body body) {
  double best = 1e30;
  for (int run = 0; run < n_runs; ++run) {
    const double begin = Seconds();
    body();
    best = std::min(best, Seconds() - begin);
  }
  return best;
}

uint64_t SumOf(const uint64_t* values, int64_t n) {
  uint64_t sums[8] = {};
  for (int64_t i = 0; i < n; i += 8) {
    for (int lane = 0; lane < 8; ++lane) sums[lane] += values[i + lane];
  }
  uint64_t sum = 0;
  for (const uint64_t s : sums) sum += s;
  return sum;
}

#if defined(__x86_64__)
// Sums that hide the latency of one, named one by one: an array of them would be kept in memory.
#define COTERIE_TWELVE(DO, ...) \
  DO(sum0, __VA_ARGS__)         \
  DO(sum1, __VA_ARGS__)         \
  DO(sum2, __VA_ARGS__)         \
  DO(sum3, __VA_ARGS__)         \
  DO(sum4, __VA_ARGS__)         \
  DO(sum5, __VA_ARGS__)         \
  DO(sum6, __VA_ARGS__)         \
  DO(sum7, __VA_ARGS__)         \
  DO(sum8, __VA_ARGS__)         \
  DO(sum9, __VA_ARGS__)         \
  DO(sum10, __VA_ARGS__)        \
  DO(sum11, __VA_ARGS__)
#define COTERIE_DECLARE(sum, Vector) Vector sum = {};
#define COTERIE_ADD(sum, kind, Add) \
  sum = Add(sum);                   \
  asm volatile("" : "+" kind(sum));
// The body of a function of n: so many rounds of additions to the sums, each of which is `macs`
// multiply-adds.
#define COTERIE_ROUNDS(Vector, kind, Add, macs) \
  COTERIE_TWELVE(COTERIE_DECLARE, Vector)       \
  for (int64_t at = 0; at < n; ++at) {          \
    COTERIE_TWELVE(COTERIE_ADD, kind, Add)      \
  }                                             \
  return n * 12 * macs;

__attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni"))) int64_t Avx512Int8Macs(int64_t n) {
  const __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(5);
#define COTERIE_ADD_INT8(sum) _mm512_dpbusd_epi32(sum, a, b)
  COTERIE_ROUNDS(__m512i, "v", COTERIE_ADD_INT8, 64)
}

__attribute__((target("avx512f,avx512bf16"))) int64_t Avx512BF16Macs(int64_t n) {
  const __m512bh a = (__m512bh)_mm512_set1_epi16(0x3f80);
#define COTERIE_ADD_BF16(sum) _mm512_dpbf16_ps(sum, a, a)
  COTERIE_ROUNDS(__m512, "v", COTERIE_ADD_BF16, 32)
}

__attribute__((target("avx512f"))) int64_t Avx512F32Macs(int64_t n) {
  const __m512 a = _mm512_set1_ps(0.5f);
#define COTERIE_ADD_F32(sum) _mm512_fmadd_ps(sum, a, a)
  COTERIE_ROUNDS(__m512, "v", COTERIE_ADD_F32, 16)
}

__attribute__((target("avx2"))) int64_t Avx2Int8Macs(int64_t n) {
  __m256i a = _mm256_set1_epi8(3);
  const __m256i b = _mm256_set1_epi8(5), ones = _mm256_set1_epi16(1);
// The products are made anew each time: the compiler must not know that `a` stays as it is.
#define COTERIE_ADD_INT8_AVX2(sum)                                            \
  _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones)); \
  asm volatile("" : "+x"(a))
  COTERIE_ROUNDS(__m256i, "x", COTERIE_ADD_INT8_AVX2, 32)
}

__attribute__((target("avx2,fma"))) int64_t Avx2F32Macs(int64_t n) {
  const __m256 a = _mm256_set1_ps(0.5f);
#define COTERIE_ADD_F32_AVX2(sum) _mm256_fmadd_ps(sum, a, a)
  COTERIE_ROUNDS(__m256, "x", COTERIE_ADD_F32_AVX2, 8)
}

int64_t F32Macs(int64_t n) {
  if (__builtin_cpu_supports("avx512f")) return Avx512F32Macs(n);
  if (__builtin_cpu_supports("fma")) return Avx2F32Macs(n);
  return 0;
}
int64_t BF16Macs(int64_t n) { return __builtin_cpu_supports("avx512bf16") ? Avx512BF16Macs(n) : 0; }
int64_t Int8Macs(int64_t n) {
  if (__builtin_cpu_supports("avx512vnni")) return Avx512Int8Macs(n);
  if (__builtin_cpu_supports("avx2")) return Avx2Int8Macs(n);
  return 0;
}
#else
int64_t F32Macs(int64_t) { return 0; }
int64_t BF16Macs(int64_t) { return 0; }
int64_t Int8Macs(int64_t) { return 0; }
#endif

double MacsPerSecond(WorkerPool& pool, int64_t (*multiply)(int64_t n)) {
  std::atomic<int64_t> macs{0};
  const double seconds = BestSeconds(5, [&] {
    macs = 0;
    pool.Run(pool.n_workers(), [&](int64_t, int) { macs += multiply(2000000); });
  });
  return static_cast<double>(macs) / seconds;
}

}  // namespace

double MeasureCoreToCoreSeconds() {
  constexpr int kRounds = 100'000;
  std::atomic<int> turn{0};
  const auto hand_over = [&turn](int first) {
    for (int i = first; i < 2 * kRounds; i += 2) {
      while (turn.load(std::memory_order_acquire) != i) continue;
      turn.store(i + 1, std::memory_order_release);
    }
  };
  return BestSeconds(3,
                     [&] {
                       turn = 0;
                       const std::jthread other([&] { hand_over(1); });
                       hand_over(0);
                     }) /
         (2 * kRounds);
}

double MeasureReadBytesPerSecond(WorkerPool& pool) {
  constexpr int64_t kBytes = int64_t{1} << 29, kPieces = 64;
  AlignedBuffer memory(kBytes);
  std::fill_n(memory.as<uint64_t>(), kBytes / 8, uint64_t{1});  // Real pages, not the zero page.
  std::atomic<uint64_t> sink{0};
  const double seconds = BestSeconds(5, [&] {
    pool.Run(kPieces, [&](int64_t piece, int) {
      constexpr int64_t kWords = kBytes / kPieces / 8;
      sink += SumOf(memory.as<uint64_t>() + piece * kWords, kWords);
    });
  });
  return static_cast<double>(kBytes) / seconds;
}

double MeasureF32MacsPerSecond(WorkerPool& pool) { return MacsPerSecond(pool, F32Macs); }
double MeasureBF16MacsPerSecond(WorkerPool& pool) { return MacsPerSecond(pool, BF16Macs); }
double MeasureInt8MacsPerSecond(WorkerPool& pool) { return MacsPerSecond(pool, Int8Macs); }

}  // namespace coterie
