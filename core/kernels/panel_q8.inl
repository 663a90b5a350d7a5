// Blocks of panels, for matmul_q8.inl and matmul_training_q8.inl: 32 summed values of kLanes
// outputs, as bytes with a scale and, where the type has one, a minimum.

namespace coterie {
namespace {

template <bool kHasMin>
struct PanelMinima {
  float m[kLanes];
};
template <>
struct PanelMinima<false> {};

template <class Type>
struct PanelBlock : PanelMinima<Type::kHasMin> {
  static constexpr int kHalfCount = Type::kHalves ? 2 : 1;
  uint8_t q[32 * kLanes];  // [8][kLanes][4]
  float d[kHalfCount][kLanes];
};

// What the whole-number dot products of half a block, or of a block of a type without halves, begin
// with: minus the offset of the weights' bytes times the activations' sum.
template <class Type>
inline IntVec FirstDots(const ActivationBlock& x, int half) {
  if constexpr (Type::kOffset == 0) return SetInt(0);
  const IntVec whole = SetTimes<Type::kOffset>(&x.offset);
  if constexpr (!Type::kHalves) return whole;
  const IntVec first = SetTimes<Type::kOffset>(&x.first_offset);
  return half == 0 ? first : SubInt(whole, first);
}

// Adds one block of each of kPanels panels, panel_blocks apart, to the running sums of a tile of
// tokens, whose blocks are x_stride bytes apart.
template <class Type, int kPanels, int kTokens>
inline void AddBlock(const PanelBlock<Type>* w, int64_t panel_blocks, const ActivationBlock* x,
                     int64_t x_stride, Vec (&acc)[kPanels][kTokens]) {
  constexpr int kHalfCount = PanelBlock<Type>::kHalfCount;
  constexpr int kDwords = 8 / kHalfCount;
  const int64_t w_stride = panel_blocks * static_cast<int64_t>(sizeof(PanelBlock<Type>));
  const auto of = [=](int t) -> const ActivationBlock& {
    const uint8_t* first = reinterpret_cast<const uint8_t*>(x);
    return *reinterpret_cast<const ActivationBlock*>(first + t * x_stride);
  };
#pragma GCC unroll 2
  for (int half = 0; half < kHalfCount; ++half) {
    IntVec dots[kPanels][kTokens];
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      dots[0][t] = FirstDots<Type>(of(t), half);
#pragma GCC unroll 2
      for (int p = 1; p < kPanels; ++p) dots[p][t] = dots[0][t];
    }
    PanelDots<Type, kDwords, kPanels, kTokens>(w->q + 16 * kLanes * half, w_stride,
                                               x->values + 16 * half, x_stride, dots);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const Vec scale = Set1(of(t).scale);
#pragma GCC unroll 2
      for (int p = 0; p < kPanels; ++p) {
        const PanelBlock<Type>& b = w[p * panel_blocks];
        acc[p][t] = Fma(ToFloat(dots[p][t]), Mul(Load(b.d[half]), scale), acc[p][t]);
        if constexpr (Type::kHasMin) {
          acc[p][t] = Fma(Load(b.m), Set1(of(t).sum), acc[p][t]);
        }
      }
    }
  }
}

}  // namespace
}  // namespace coterie
