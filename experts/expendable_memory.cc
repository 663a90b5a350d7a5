#include "experts/expendable_memory.h"

#include <algorithm>

namespace coterie {

std::vector<Reservation> ExpendableMemories::Reclaim(int64_t bytes_needed) {
  if (expendable_bytes() < bytes_needed) return {};
  std::vector<Reservation> freed;
  for (ExpendableMemory* memory : memories_) {
    const int64_t bytes = std::min(bytes_needed, memory->expendable_bytes());
    if (bytes <= 0) continue;
    for (Reservation& more : memory->Reclaim(bytes)) {
      bytes_needed -= more.bytes();
      freed.push_back(std::move(more));
    }
  }
  // Others were faster: what was freed here goes back to the budget.
  if (bytes_needed > 0) freed.clear();
  return freed;
}

int64_t ExpendableMemories::expendable_bytes() const {
  int64_t bytes = 0;
  for (const ExpendableMemory* memory : memories_) bytes += memory->expendable_bytes();
  return bytes;
}

}  // namespace coterie
