#include "tests/fuzz/allocation_meter.h"

#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <ctime>
#include <new>

namespace coterie::testing {
namespace {

std::atomic<int64_t> used_bytes{0};
std::atomic<int64_t> peak_bytes{0};

void* Counted(void* memory) {
  if (memory == nullptr) throw std::bad_alloc();
  const int64_t used = used_bytes += static_cast<int64_t>(malloc_usable_size(memory));
  int64_t peak = peak_bytes;
  while (used > peak && !peak_bytes.compare_exchange_weak(peak, used)) continue;
  return memory;
}

void Free(void* memory) {
  if (memory != nullptr) used_bytes -= static_cast<int64_t>(malloc_usable_size(memory));
  std::free(memory);
}

}  // namespace

AllocationMeter::AllocationMeter() : begin_(used_bytes) { peak_bytes = begin_; }

int64_t AllocationMeter::PeakBytes() const { return peak_bytes - begin_; }

double CpuSecondsOf(const std::function<void()>& body) {
  const auto now = [] {
    timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  };
  const double begin = now();
  body();
  return now() - begin;
}

}  // namespace coterie::testing

using coterie::testing::Counted;
using coterie::testing::Free;

void* operator new(std::size_t n) { return Counted(std::malloc(std::max<std::size_t>(n, 1))); }
void* operator new(std::size_t n, std::align_val_t alignment) {
  const auto a = static_cast<std::size_t>(alignment);
  return Counted(std::aligned_alloc(a, (std::max<std::size_t>(n, 1) + a - 1) / a * a));
}
// Sanitizers have one of their own, whose memory our operator delete would not match.
void* operator new(std::size_t n, const std::nothrow_t&) noexcept {
  void* const memory = std::malloc(std::max<std::size_t>(n, 1));
  return memory == nullptr ? nullptr : Counted(memory);
}
void operator delete(void* memory) noexcept { Free(memory); }
void operator delete(void* memory, std::size_t) noexcept { Free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { Free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { Free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { Free(memory); }
