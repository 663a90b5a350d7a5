// The table of training products, made of what was included before it. In bf16 only what the
// instruction set has: null, or the functions over matmul_training_bf16.inl.

namespace coterie {
namespace {

using BF16Product = decltype(TrainingKernelTable::forward_bf16);

constexpr TrainingKernelTable MakeTrainingTable(absl::string_view isa, BF16Product forward_bf16,
                                                BF16Product backward_bf16) {
  return {
      .isa = isa,
      .forward_f32 = Forward<F32Product>,
      .backward_f32 = Backward<F32Product>,
      .forward_bf16 = forward_bf16,
      .backward_bf16 = backward_bf16,
      .backward_q8 = BackwardQ8,
      .f32_to_bf16 = F32ToBF16,
      .bf16_to_f32 = BF16ToF32,
      .rms_norm_backward = RmsNormBackward,
      .silu_mul_backward = SiluMulBackward,
      .gelu_tanh_mul_backward = GeluTanhMulBackward,
      .softmax_lse = SoftmaxLse,
      .exp_minus = ExpMinus,
      .softmax_backward = SoftmaxBackward,
      .transpose = Transpose,
  };
}

}  // namespace
}  // namespace coterie
