// The table of kernels, made of what was included before it.

namespace coterie {
namespace {

constexpr KernelTable MakeKernelTable(absl::string_view isa) {
  return {
      .isa = isa,
      .dequantize_row = DequantizeRow,
      .quantize_activations = QuantizeActivations,
      .matmul_q8 = MatmulQ8Any,
      .matmul_q8_rows = MatmulQ8Rows,
      .round_to_nibbles = RoundToNibbles,
      .multiply_nibbles = MultiplyNibbles,
      .matmul_f32 = MatmulF32,
      .low_rank_narrow = LowRankNarrow,
      .low_rank_widen = LowRankWiden,
      .rms_norm = RmsNorm,
      .layer_norm = LayerNorm,
      .softmax = Softmax,
      .silu_mul = SiluMul,
      .gelu_erf = GeluErfRow,
      .gelu_tanh_mul = GeluTanhMul,
      .add = AddRow,
      .rope_adjacent = RopeAdjacent,
      .rope_halves = RopeHalves,
      .f32_to_f16 = F32ToF16,
      .put_key = PutKey,
      .attend = Attend,
  };
}

}  // namespace
}  // namespace coterie
