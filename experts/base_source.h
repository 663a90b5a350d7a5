#pragma once

#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>

#include "absl/status/statusor.h"

namespace coterie {

// Names one set of base weights, however many experts share it. Two names of one file are one base:
// whoever makes ids resolves aliases first.
using BaseId = std::string;

// Loaded base weights and what belongs to them. Immutable, thread-safe.
class BaseModel {
 public:
  virtual ~BaseModel() = default;
};

// Bytes that a loaded base occupies, its loading included.
struct BaseFootprint {
  int64_t weights_bytes = 0;
  int64_t tokenizer_bytes = 0;
  // Changes when the file does, so that a repaired file is tried at once. 0: unknown.
  uint64_t version = 0;

  int64_t total_bytes() const { return weights_bytes + tokenizer_bytes; }
};

// Hears how far a load has come. Called on the loading thread.
class LoadObserver {
 public:
  virtual ~LoadObserver() = default;
  // done_bytes never falls; done_bytes <= total_bytes.
  virtual void OnProgress(int64_t done_bytes, int64_t total_bytes) = 0;
};

// Where bases come from. Thread-safe: different bases are loaded at the same time.
class BaseSource {
 public:
  virtual ~BaseSource() = default;

  // What `base` will occupy, without loading it: a look at a header, or a remembered figure. Not
  // less than the truth. kNotFound, kDataLoss and so on where Load would say the same.
  virtual absl::StatusOr<BaseFootprint> Measure(const BaseId& base) = 0;

  // Reads the whole base. The bytes are charged by the caller beforehand. When `stop` is requested,
  // gives up soon with kCancelled. After an error nothing of the base is left in memory. The source
  // keeps no reference to the model: when the result is dropped, its bytes are free.
  virtual absl::StatusOr<std::shared_ptr<const BaseModel>> Load(const BaseId& base,
                                                                LoadObserver& observer,
                                                                std::stop_token stop) = 0;
};

}  // namespace coterie
