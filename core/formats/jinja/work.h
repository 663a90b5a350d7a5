#pragma once

// The bound on what one rendering may cost.

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"

namespace coterie::jinja {

// Nesting that a template may have, and that values built by it may reach.
inline constexpr int kMaxSyntaxDepth = 120;
inline constexpr int kMaxExpressionHeight = 200;
inline constexpr int kMaxEvaluationDepth = 400;
inline constexpr int kMaxValueDepth = 100;
// Attributes of a namespace; real templates have a handful.
inline constexpr size_t kMaxAttributes = 256;
// Elements that range() may produce: the limit of Jinja's sandbox.
inline constexpr int64_t kMaxRange = 100000;

// What one rendering may cost; see Work for the unit.
struct Limits {
  int64_t work_units = 0;
  size_t output_bytes = 0;  // Of the whole text, and of what a macro or block captures.
};

// Counts down the work left to a rendering. One unit is roughly one evaluated node or 16 bytes of
// text read or written, so a budget bounds time and memory together. Thread-compatible.
class Work {
 public:
  explicit Work(int64_t units) : left_(units) {}

  // kResourceExhausted once the budget is spent; then every later call fails as well.
  absl::Status Charge(int64_t units) {
    if (units > left_ || units < 0) return Exhausted();
    left_ -= units;
    return absl::OkStatus();
  }
  absl::Status ChargeBytes(int64_t bytes) { return Charge(bytes / 16 + 1); }

 private:
  absl::Status Exhausted() {
    left_ = 0;
    return absl::ResourceExhaustedError("the template does more work than a chat template may");
  }

  int64_t left_;
};

}  // namespace coterie::jinja
