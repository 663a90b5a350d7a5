#include "router/domain_model.h"

#include <algorithm>

namespace coterie {

double PromptVector::Dot(const PromptVector& other) const {
  double sum = 0.0;
  if (indices.empty() && other.indices.empty()) {
    const size_t n = std::min(values.size(), other.values.size());
    for (size_t i = 0; i < n; ++i) sum += static_cast<double>(values[i]) * other.values[i];
    return sum;
  }
  size_t i = 0, j = 0;
  while (i < indices.size() && j < other.indices.size()) {
    if (indices[i] == other.indices[j]) {
      sum += static_cast<double>(values[i++]) * other.values[j++];
    } else if (indices[i] < other.indices[j]) {
      ++i;
    } else {
      ++j;
    }
  }
  return sum;
}

}  // namespace coterie
