#include "bench/machine_limits.h"

#include <algorithm>
#include <atomic>
#include <chrono>

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
constexpr int kChains = 12;  // Enough independent sums to hide the latency.

__attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni"))) int64_t Avx512Macs(int64_t n) {
  __m512i sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_set1_epi32(i);
  const __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(5);
  for (int64_t i = 0; i < n; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) {
      sums[c] = _mm512_dpbusd_epi32(sums[c], a, b);
      asm volatile("" : "+v"(sums[c]));
    }
  }
  return n * kChains * 64;
}

__attribute__((target("avx2"))) int64_t Avx2Macs(int64_t n) {
  __m256i sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = _mm256_set1_epi32(i);
  __m256i a = _mm256_set1_epi8(3);
  const __m256i b = _mm256_set1_epi8(5), ones = _mm256_set1_epi16(1);
  for (int64_t i = 0; i < n; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) {
      asm volatile("" : "+x"(a));
      sums[c] = _mm256_add_epi32(sums[c], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
    }
  }
  for (int c = 0; c < kChains; ++c) asm volatile("" : "+x"(sums[c]));
  return n * kChains * 32;
}

int64_t Int8Macs(int64_t n) {
  if (__builtin_cpu_supports("avx512vnni")) return Avx512Macs(n);
  if (__builtin_cpu_supports("avx2")) return Avx2Macs(n);
  return 0;
}
#else
int64_t Int8Macs(int64_t) { return 0; }
#endif

}  // namespace

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

double MeasureInt8MacsPerSecond(WorkerPool& pool) {
  std::atomic<int64_t> macs{0};
  const double seconds = BestSeconds(5, [&] {
    macs = 0;
    pool.Run(pool.n_workers(), [&](int64_t, int) { macs += Int8Macs(2000000); });
  });
  return static_cast<double>(macs) / seconds;
}

}  // namespace coterie
