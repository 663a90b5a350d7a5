#pragma once

// What programs that time a model's passes share: the tokens they are given, and medians.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/formats/tokenizer.h"

namespace coterie {

inline double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Ids of every vocabulary, others for each sequence; those of bench/llama_cpp_peer.py.
inline std::vector<TokenId> SomeTokens(int64_t n, int sequence = 0) {
  std::vector<TokenId> ids;
  for (int64_t i = 0; i < n; ++i) {
    ids.push_back(static_cast<TokenId>((7 * i + 11 + 131 * sequence) % 20000 + 300));
  }
  return ids;
}

}  // namespace coterie
