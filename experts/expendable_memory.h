#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "core/memory/memory_budget.h"

namespace coterie {

// Memory that is held only to save time, and goes before any loaded base does. Thread-safe.
class ExpendableMemory : public Reclaimer {
 public:
  // What Reclaim could free now. Takes no lock but a leaf, so that others may ask under their own.
  virtual int64_t expendable_bytes() const = 0;
};

// Several, of which the first ones go first. They outlive it.
class ExpendableMemories : public ExpendableMemory {
 public:
  explicit ExpendableMemories(std::vector<ExpendableMemory*> memories)
      : memories_(std::move(memories)) {}

  std::vector<Reservation> Reclaim(int64_t bytes_needed) override;
  int64_t expendable_bytes() const override;

 private:
  const std::vector<ExpendableMemory*> memories_;
};

}  // namespace coterie
