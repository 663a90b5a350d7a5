#include "tests/experts/tiny_adapter.h"

#include <random>
#include <utility>

#include "absl/strings/str_cat.h"

namespace coterie::testing {

std::vector<LinearDelta> TinyDeltas(const ArchSpec& spec, uint32_t seed) {
  std::mt19937 random(seed);
  const auto fill = [&](std::vector<float>& values, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      values.push_back((static_cast<float>(random() % 65) - 32.0f) / 256);
    }
  };
  std::vector<LinearDelta> deltas;
  for (int64_t layer = 0; layer < spec.n_layers; ++layer) {
    for (int i = 0; i < kLayerLinearCount; ++i) {
      if (random() % 3 == 0) continue;
      LinearDelta delta;
      delta.layer = layer;
      delta.linear = static_cast<LayerLinear>(i);
      delta.rank = 1 + random() % 5;
      delta.scale = 0.5f * static_cast<float>(1 + random() % 8);
      const LinearShape shape = ShapeOf(spec, delta.linear);
      fill(delta.a, delta.rank * shape.in);
      fill(delta.b, delta.rank * shape.out);
      deltas.push_back(std::move(delta));
    }
  }
  return deltas;
}

TinyModel Merged(const TinyModel& model, const std::vector<LinearDelta>& deltas) {
  static constexpr const char* kNames[kLayerLinearCount] = {
      "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
  TinyModel merged = model;
  for (const LinearDelta& delta : deltas) {
    const LinearShape shape = ShapeOf(model.spec, delta.linear);
    std::vector<float>& w = merged.tensors
                                .at(absl::StrCat("blk.", delta.layer, ".",
                                                 kNames[static_cast<int>(delta.linear)], ".weight"))
                                .values;
    for (int64_t row = 0; row < shape.out; ++row) {
      for (int64_t column = 0; column < shape.in; ++column) {
        double sum = 0;
        for (int64_t k = 0; k < delta.rank; ++k) {
          sum += static_cast<double>(delta.b[static_cast<size_t>(row * delta.rank + k)]) *
                 delta.a[static_cast<size_t>(k * shape.in + column)];
        }
        w[static_cast<size_t>(row * shape.in + column)] += static_cast<float>(delta.scale * sum);
      }
    }
  }
  return merged;
}

}  // namespace coterie::testing
