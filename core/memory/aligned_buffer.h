#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace coterie {

// Owns zero-initialised bytes aligned to 64 (one cache line, one AVX-512 vector). Large buffers are
// mapped directly, so that their pages go back to the system when the buffer dies. Move-only.
//
// A buffer charges nothing by itself: take a Reservation of the same size first.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // Aborts if the system refuses the memory; callers reserve in a MemoryBudget beforehand.
  explicit AlignedBuffer(int64_t bytes);

  // Asks for large pages, before the bytes are first written: for what is read from end to end
  // again and again. A hint; costs nothing where the system has none to give.
  void PreferLargePages();

  uint8_t* data() { return data_.get(); }
  const uint8_t* data() const { return data_.get(); }
  int64_t bytes() const { return bytes_; }
  template <typename T>
  T* as() {
    return reinterpret_cast<T*>(data_.get());
  }
  template <typename T>
  const T* as() const {
    return reinterpret_cast<const T*>(data_.get());
  }

 private:
  struct Unmap {
    int64_t mapped_bytes;
    void operator()(uint8_t* data) const;
  };
  std::unique_ptr<uint8_t[], Unmap> data_;
  int64_t bytes_ = 0;
};

}  // namespace coterie
