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

// CPU time of this thread in `body`: what does not depend on how busy the machine is.
double CpuSecondsOf(const std::function<void()>& body);

}  // namespace coterie::testing
