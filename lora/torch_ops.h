#pragma once

// The element-wise operations of a decoder on torch tensors, and their backward: as fused kernels
// where tensors are bf16 on a CUDA device, in plain torch elsewhere. Matrices are row-major and
// contiguous; T is the type of activations, bf16 or f32; arithmetic is f32.

#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"

#include "experts/arch_spec.h"
#include "lora/dropout.h"
#include "lora/torch_kernels.h"

#include <ATen/ATen.h>

namespace coterie {

// Cosines and sines of positions, [n_positions, rope_dims / 2] f32 each.
struct TorchRotations {
  at::Tensor cos, sin;
};

// One matrix that the products read, made from the f32 values: see TorchOps::Place.
struct PlacedMatrix {
  int64_t from = 0;  // Among the values.
  int64_t to = 0;    // Among the operands.
  int64_t n_rows = 0, n_cols = 0;
  int64_t row_values = 0;  // From row to row of the operand.
  bool is_scaled = false;
};

class TorchOps {
 public:
  // is_bf16: of T. Compiles the kernels where they can run.
  TorchOps(const at::Device& device, bool is_bf16, const ArchSpec& spec);

  bool is_fused() const { return kernels_ != nullptr; }
  const std::string& why_not_fused() const { return why_not_fused_; }

  // stream += y (y may be undefined); kept = stream; normed = rms_norm(kept) * w.
  //   stream [n, d] f32;  y, kept, normed [n, d] T;  w [d] f32
  void AddNorm(const at::Tensor& stream, const at::Tensor& y, const at::Tensor& w,
               const at::Tensor& kept, const at::Tensor& normed) const;
  // normed = rms_norm(x) * w, T, over the last dimension.
  void Norm(const at::Tensor& x, const at::Tensor& w, const at::Tensor& normed) const;
  // dx (+)= the gradient of rms_norm(x) * w from dy: f32; narrow, if defined, gets dx as T.
  void NormBackward(const at::Tensor& x, const at::Tensor& w, const at::Tensor& dy,
                    const at::Tensor& dx, bool add, const at::Tensor& narrow) const;

  // Turns the leading n_heads heads of each row, in place, by its position or back.
  //   rows [n, ...] T;  positions [n] i32
  void Rope(const at::Tensor& rows, int64_t n_heads, const TorchRotations& rotations,
            const at::Tensor& positions, bool back) const;

  // y [n, f] = gating(gate) * up of gate_up [n, 2 f]; and the gradients of both in their place.
  void Activate(const at::Tensor& gate_up, const at::Tensor& y) const;
  void ActivateBackward(const at::Tensor& gate_up, const at::Tensor& dy) const;

  // out = in with values dropped, as Dropout::Apply does to the rows of an input.
  //   in, out [n, d] T; may be the same
  void Drop(const at::Tensor& in, const Dropout& dropout, int64_t layer, AdapterInput input,
            const at::Tensor& out) const;

  // nll [n] of labels [n] i64 under logits [n, n_vocab] f32, which are lost. Returns the gradients
  // of each row's nll by its logits, T, or nothing.
  at::Tensor CrossEntropy(const at::Tensor& logits, const at::Tensor& labels, const at::Tensor& nll,
                          bool backward) const;

  // Copies matrices from values (f32) to operands (T), those that are scaled times `scale`.
  void SetPlaces(std::vector<PlacedMatrix> places);
  void Place(const at::Tensor& values, const at::Tensor& operands, float scale) const;

  // a b as T into out; += where `add`.
  void MatMul(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b,
              bool add = false) const;
  // out = a b with f32 results; and out += scale * a b.
  void MatMulF32(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) const;
  void AddMatMulF32(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b,
                    float scale) const;

 private:
  const bool is_cuda_;
  const bool is_bf16_;
  const ArchSpec& spec_;
  std::unique_ptr<TorchKernels> kernels_;
  std::string why_not_fused_;
  std::vector<PlacedMatrix> places_;
  at::Tensor place_table_;
  at::Device device_;
};

}  // namespace coterie
