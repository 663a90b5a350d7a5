#pragma once

#include <cstdint>
#include <functional>

namespace coterie::testing {

// Measures the heap: programs that link allocation_meter.cc count every operator new. The peak is
// of the whole process, so one meter at a time.
class AllocationMeter {
 public:
  AllocationMeter();

  // Most bytes that were in use at once since construction, above what was in use then.
  int64_t PeakBytes() const;

 private:
  int64_t begin_;
};

// How much longer things may take where a sanitizer watches every access.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr double kSlowdown = 10;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
inline constexpr double kSlowdown = 10;
#else
inline constexpr double kSlowdown = 1;
#endif
#else
inline constexpr double kSlowdown = 1;
#endif

// CPU time of this thread in `body`: what does not depend on how busy the machine is.
double CpuSecondsOf(const std::function<void()>& body);

}  // namespace coterie::testing
