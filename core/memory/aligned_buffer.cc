#include "core/memory/aligned_buffer.h"

#include "core/base/check.h"

#include <sys/mman.h>

namespace coterie {

AlignedBuffer::AlignedBuffer(int64_t bytes) : bytes_(bytes) {
  COTERIE_CHECK(bytes >= 0, "a buffer has a non-negative size");
  if (bytes == 0) return;
  void* data = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  COTERIE_CHECK(data != MAP_FAILED, "the system grants memory that the budget granted");
  data_ = std::unique_ptr<uint8_t[], Unmap>(static_cast<uint8_t*>(data), Unmap{bytes});
}

void AlignedBuffer::PreferLargePages() {
  if (bytes_ > 0) madvise(data_.get(), static_cast<size_t>(bytes_), MADV_HUGEPAGE);
}

void AlignedBuffer::Unmap::operator()(uint8_t* data) const {
  munmap(data, static_cast<size_t>(mapped_bytes));
}

}  // namespace coterie
