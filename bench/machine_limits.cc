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

__attribute__((target("avx512f,avx512bf16"))) int64_t Avx512BF16Macs(int64_t n) {
  __m512 sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_setzero_ps();
  const __m512bh a = (__m512bh)_mm512_set1_epi16(0x3f80), b = a;
  for (int64_t i = 0; i < n; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) {
      sums[c] = _mm512_dpbf16_ps(sums[c], a, b);
      asm volatile("" : "+v"(sums[c]));
    }
  }
  return n * kChains * 32;
}

__attribute__((target("avx512f"))) int64_t Avx512F32Macs(int64_t n) {
  __m512 sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_setzero_ps();
  const __m512 a = _mm512_set1_ps(0.5f);
  for (int64_t i = 0; i < n; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) {
      sums[c] = _mm512_fmadd_ps(sums[c], a, a);
      asm volatile("" : "+v"(sums[c]));
    }
  }
  return n * kChains * 16;
}

__attribute__((target("avx2,fma"))) int64_t Avx2F32Macs(int64_t n) {
  __m256 sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = _mm256_setzero_ps();
  const __m256 a = _mm256_set1_ps(0.5f);
  for (int64_t i = 0; i < n; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) {
      sums[c] = _mm256_fmadd_ps(sums[c], a, a);
      asm volatile("" : "+x"(sums[c]));
    }
  }
  return n * kChains * 8;
}

int64_t F32Macs(int64_t n) {
  if (__builtin_cpu_supports("avx512f")) return Avx512F32Macs(n);
  if (__builtin_cpu_supports("fma")) return Avx2F32Macs(n);
  return 0;
}
int64_t BF16Macs(int64_t n) { return __builtin_cpu_supports("avx512bf16") ? Avx512BF16Macs(n) : 0; }
int64_t Int8Macs(int64_t n) {
  if (__builtin_cpu_supports("avx512vnni")) return Avx512Macs(n);
  if (__builtin_cpu_supports("avx2")) return Avx2Macs(n);
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
