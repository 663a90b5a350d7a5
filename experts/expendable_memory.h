#pragma once

#include <cstdint>

#include "core/memory/memory_budget.h"

namespace coterie {

// Memory that is held only to save time, and goes before any loaded base does. Thread-safe.
class ExpendableMemory : public Reclaimer {
 public:
  // What Reclaim could free now. Takes no lock but a leaf, so that others may ask under their own.
  virtual int64_t expendable_bytes() const = 0;
};

}  // namespace coterie
