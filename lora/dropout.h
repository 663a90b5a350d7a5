#pragma once

#include <cstdint>

#include "experts/linear_delta.h"

namespace coterie {

// What the linear layers of a layer read, where adapters read it too. Adapters of the same input
// share its mask.
enum class AdapterInput : uint8_t {
  kNormed,     // q, k, v
  kAttended,   // o
  kFfnNormed,  // gate, up
  kActivated,  // down
};
inline constexpr int kAdapterInputCount = 4;

AdapterInput InputOf(LayerLinear which);

// Inverted dropout of what adapters read (Hinton et al., arXiv 1207.0580; PEFT's lora_dropout): a
// value is dropped with a probability, and what is left is divided by that of being kept. What the
// frozen weights read is not touched.
//
// A mask is not stored: whether a value is kept follows from its place and the key alone, so that a
// backward pass, on any device and by any number of threads, finds the mask of the forward pass.
class Dropout {
 public:
  Dropout() = default;  // Keeps all.
  // rate: [0, 1), met to 1/65536. key: another mask for each.
  Dropout(float rate, uint64_t key);

  bool is_on() const { return n_dropped_ > 0; }

  // Drops of values [begin, end) of a row of an input, from x[0] on. row: of the pass; begin: a
  // multiple of 4.
  void Apply(int64_t layer, AdapterInput input, int64_t row, int64_t begin, int64_t end,
             float* x) const;

  // For kernels that do the same. Four values share 64 bits, 16 each from the low end; the bits of
  // group g of a row are MixBits(MixBits(site + row * step) + g * step), step = kSplitMixStep, and
  // a value is kept if its bits are not below n_dropped().
  uint64_t SiteKey(int64_t layer, AdapterInput input) const;
  uint32_t n_dropped() const { return n_dropped_; }  // Of 65536.
  float factor() const { return factor_; }           // Of what is kept.
  static constexpr int64_t kGroup = 4;

 private:
  uint64_t key_ = 0;
  uint32_t n_dropped_ = 0;
  float factor_ = 1;
};

}  // namespace coterie
