#pragma once

#include <cstdint>

namespace coterie {

// Hands out consecutive areas of one buffer, each aligned to 64 bytes; with a null base it only
// measures. The buffer is aligned alike and has used() bytes in the end.
class Areas {
 public:
  explicit Areas(uint8_t* base) : base_(base) {}

  template <typename T>
  T* Take(int64_t n) {
    T* area = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += (n * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return area;
  }

  int64_t used() const { return used_; }

 private:
  uint8_t* base_;
  int64_t used_ = 0;
};

}  // namespace coterie
