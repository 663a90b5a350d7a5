#include "lora/dropout.h"

#include <algorithm>
#include <cmath>

#include "core/base/random_bits.h"

namespace coterie {
namespace {

constexpr uint32_t kOutOf = 1 << 16;

}  // namespace

AdapterInput InputOf(LayerLinear which) {
  switch (which) {
    case LayerLinear::kQ:
    case LayerLinear::kK:
    case LayerLinear::kV:
      return AdapterInput::kNormed;
    case LayerLinear::kO:
      return AdapterInput::kAttended;
    case LayerLinear::kGate:
    case LayerLinear::kUp:
      return AdapterInput::kFfnNormed;
    case LayerLinear::kDown:
      break;
  }
  return AdapterInput::kActivated;
}

Dropout::Dropout(float rate, uint64_t key)
    : key_(key),
      n_dropped_(std::min<uint32_t>(static_cast<uint32_t>(std::lround(rate * kOutOf)), kOutOf - 1)),
      factor_(static_cast<float>(kOutOf) / static_cast<float>(kOutOf - n_dropped_)) {}

uint64_t Dropout::SiteKey(int64_t layer, AdapterInput input) const {
  const int64_t site = layer * kAdapterInputCount + static_cast<int64_t>(input);
  return MixBits(key_ + static_cast<uint64_t>(site) * kSplitMixStep);
}

void Dropout::Apply(int64_t layer, AdapterInput input, int64_t row, int64_t begin, int64_t end,
                    float* x) const {
  if (!is_on()) return;
  const uint64_t key = MixBits(SiteKey(layer, input) + static_cast<uint64_t>(row) * kSplitMixStep);
  for (int64_t at = begin; at < end; at += kGroup, x += kGroup) {
    uint64_t bits = MixBits(key + static_cast<uint64_t>(at / kGroup) * kSplitMixStep);
    const int64_t n = std::min(kGroup, end - at);
    for (int64_t i = 0; i < n; ++i, bits >>= 16) {
      x[i] = (bits & 0xffff) < n_dropped_ ? 0.0f : x[i] * factor_;
    }
  }
}

}  // namespace coterie
