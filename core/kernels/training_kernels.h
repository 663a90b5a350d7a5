#pragma once

// Products that training needs beside those of core/kernels/kernels.h: with weights read in place
// from their blocks, forward and backward, for many tokens at a time. The rules of that header
// hold: pure functions, matrices row-major, scratch from the caller, bits that do not depend on the
// batch or on how rows or columns were split.

#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"

#include "core/kernels/kernels.h"
#include "core/kernels/tensor_type.h"

namespace coterie {

// Scratch of one call, in bytes, for any type and shape: a panel of unpacked weights.
int64_t TrainingScratchBytes();

// Callers split rows of forward products at multiples of this, and columns of backward products
// (whole blocks of the type besides) too.
inline constexpr int64_t kTrainingAlign = 64;

// Activations of a product: f32, or bf16 in the table's bf16 functions.
template <typename Value>
struct ProductInput {
  const Value* x = nullptr;
  int64_t n_tokens = 0;
  int64_t stride = 0;  // In values.
};

struct ProductOutput {
  float* y = nullptr;
  int64_t stride = 0;
  bool add = false;  // To what is there, else y is overwritten.
};

// The training products of one instruction set. Relative to exact products of the inputs as given
// (weights rounded to bf16 in the bf16 functions), the error is 3e-6 * sum |w x|.
struct TrainingKernelTable {
  absl::string_view isa;  // "scalar", "avx2", "avx512", "avx512-bf16"

  // y[t, r] = sum_c w[r, c] x[t, c] for row_begin <= r < row_end.
  void (*forward_f32)(const MatrixView& w, int64_t row_begin, int64_t row_end,
                      const ProductInput<float>& x, const ProductOutput& y, uint8_t* scratch);
  // y[t, c] = sum_r x[t, r] w[r, c] for col_begin <= c < col_end: the gradient of the input from
  // that of the output. col_begin and col_end stand between blocks of w, or at its end.
  void (*backward_f32)(const MatrixView& w, int64_t col_begin, int64_t col_end,
                       const ProductInput<float>& x, const ProductOutput& y, uint8_t* scratch);

  // The same on bf16 with f32 sums; null where the CPU has no such instruction. What is summed
  // over, w.n_cols and w.n_rows, is even.
  void (*forward_bf16)(const MatrixView& w, int64_t row_begin, int64_t row_end,
                       const ProductInput<uint16_t>& x, const ProductOutput& y, uint8_t* scratch);
  void (*backward_bf16)(const MatrixView& w, int64_t col_begin, int64_t col_end,
                        const ProductInput<uint16_t>& x, const ProductOutput& y, uint8_t* scratch);

  // backward_f32 with 8-bit operands: x as it is, and the weights rounded to 8 bits, each column of
  // 32 rows with a scale of its own (int8 gradients of inputs as in arXiv 2304.13013). w is of a
  // quantised type, w.n_rows == x.n_cols. What is not finite counts as 0.
  //   Error  1 / 254 of the largest |w| of 32 rows in each term, and that of backward_f32.
  void (*backward_q8)(const MatrixView& w, int64_t col_begin, int64_t col_end,
                      const QuantizedActivations& x, const ProductOutput& y, uint8_t* scratch);

  // bf16 to nearest even, in place allowed (y at x); and back.
  void (*f32_to_bf16)(const float* x, int64_t n, uint16_t* y);
  void (*bf16_to_f32)(const uint16_t* x, int64_t n, float* y);

  // dx += the gradient of rms_norm's input from that of its output dy.
  void (*rms_norm_backward)(const float* x, const float* weight, const float* dy, int64_t n,
                            float epsilon, float* dx);

  // Gradients of gate and up from that of y = silu(gate) * up, or gelu_tanh(gate) * up, which is
  // computed again beside them.
  void (*silu_mul_backward)(const float* gate, const float* up, const float* dy, int64_t n,
                            float* dgate, float* dup, float* y);
  void (*gelu_tanh_mul_backward)(const float* gate, const float* up, const float* dy, int64_t n,
                                 float* dgate, float* dup, float* y);

  // Softmax in place; returns log sum exp of what was there. n >= 1.
  float (*softmax_lse)(float* x, int64_t n);
  // y = exp(x - shift), elementwise; in place allowed.
  void (*exp_minus)(const float* x, const float* shift, int64_t n, float* y);
  // y = p * (dp - shift), elementwise: the backward step of softmax. In place allowed.
  void (*softmax_backward)(const float* p, const float* dp, const float* shift, int64_t n,
                           float* y);
  // to[c, r] = from[r, c].
  void (*transpose)(const float* from, int64_t n_rows, int64_t n_cols, int64_t from_stride,
                    float* to, int64_t to_stride);
};

// The table in use, chosen as Kernels() is.
const TrainingKernelTable& TrainingKernels();

// All tables this CPU can run, slowest first: tests run on every one.
const std::vector<const TrainingKernelTable*>& RunnableTrainingKernels();

}  // namespace coterie
