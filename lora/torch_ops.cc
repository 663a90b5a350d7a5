#include "lora/torch_ops.h"

#include <cmath>
#include <utility>
#include <vector>

#include "core/base/random_bits.h"

namespace coterie {
namespace {

void Check(bool launched) { TORCH_CHECK(launched, "the CUDA driver refused a kernel"); }

uint16_t* Words(const at::Tensor& t) { return static_cast<uint16_t*>(t.data_ptr()); }
float* Floats(const at::Tensor& t) { return t.data_ptr<float>(); }

constexpr int64_t kThreads = 256;
int64_t BlocksOfEights(int64_t n_values) { return (n_values / 8 + kThreads - 1) / kThreads; }

// 1 / rms of the last dimension.
at::Tensor InverseRms(const at::Tensor& x, float epsilon) {
  return x.square().mean(-1, /*keepdim=*/true).add_(epsilon).rsqrt_();
}

// The gating function of x and its slope.
std::pair<at::Tensor, at::Tensor> GateOf(const at::Tensor& x, Gating gating) {
  if (gating == Gating::kSilu) {
    const at::Tensor s = x.sigmoid();
    return {x * s, s * (1 + x * (1 - s))};
  }
  constexpr double kRoot = 0.7978845608028654, kCubic = 0.044715;
  const at::Tensor t = (kRoot * (x + kCubic * x * x * x)).tanh_();
  return {0.5 * x * (1 + t),
          0.5 * (1 + t) + 0.5 * x * (1 - t * t) * kRoot * (1 + 3 * kCubic * x * x)};
}

}  // namespace

TorchOps::TorchOps(const at::Device& device, bool is_bf16, const ArchSpec& spec)
    : is_cuda_(device.is_cuda()), is_bf16_(is_bf16), spec_(spec), device_(device) {
  const bool fits = spec.d_model % 8 == 0 && spec.d_ff % 8 == 0 && spec.n_vocab % 4 == 0;
  if (!is_cuda_ || !is_bf16 || !fits) {
    why_not_fused_ = "only for bf16 on CUDA and widths that are multiples of 8";
    return;
  }
  absl::StatusOr<std::unique_ptr<TorchKernels>> kernels = TorchKernels::Compile();
  if (kernels.ok()) {
    kernels_ = *std::move(kernels);
  } else {
    why_not_fused_ = std::string(kernels.status().message());
  }
}

void TorchOps::AddNorm(const at::Tensor& stream, const at::Tensor& y, const at::Tensor& w,
                       const at::Tensor& kept, const at::Tensor& normed) const {
  if (kernels_ == nullptr) {
    if (y.defined()) stream.add_(y);
    kept.copy_(stream);
    return Norm(kept, w, normed);
  }
  Check(kernels_->Launch(TorchKernels::kAddNorm, stream.size(0), 1, Floats(stream),
                         y.defined() ? Words(y) : nullptr, Floats(w), Words(kept), Words(normed),
                         static_cast<int>(stream.size(1)), spec_.norm_epsilon));
}

void TorchOps::Norm(const at::Tensor& x, const at::Tensor& w, const at::Tensor& normed) const {
  if (kernels_ == nullptr || x.dim() != 2) {
    const at::Tensor wide = x.to(at::kFloat);
    normed.copy_(wide * InverseRms(wide, spec_.norm_epsilon) * w);
    return;
  }
  Check(kernels_->Launch(TorchKernels::kNorm, x.size(0), 1, Words(x), Floats(w), Words(normed),
                         static_cast<int>(x.size(1)), spec_.norm_epsilon));
}

void TorchOps::NormBackward(const at::Tensor& x, const at::Tensor& w, const at::Tensor& dy,
                            const at::Tensor& dx, bool add, const at::Tensor& narrow) const {
  if (kernels_ == nullptr || x.dim() != 2) {
    const at::Tensor wide = x.to(at::kFloat), g = dy.to(at::kFloat) * w;
    const at::Tensor scale = InverseRms(wide, spec_.norm_epsilon);
    const at::Tensor pull = (g * wide).mean(-1, /*keepdim=*/true) * scale * scale;
    const at::Tensor part = (g - wide * pull) * scale;
    if (add) {
      dx.add_(part);
    } else {
      dx.copy_(part);
    }
    if (narrow.defined()) narrow.copy_(dx);
    return;
  }
  Check(kernels_->Launch(TorchKernels::kNormBackward, x.size(0), 1, Words(x), Floats(w), Words(dy),
                         Floats(dx), narrow.defined() ? Words(narrow) : nullptr,
                         static_cast<int>(x.size(1)), spec_.norm_epsilon, add ? 1 : 0));
}

void TorchOps::Rope(const at::Tensor& rows, int64_t n_heads, const TorchRotations& rotations,
                    const at::Tensor& positions, bool back) const {
  const int64_t n = rows.size(0), n_pairs = spec_.rope_dims / 2;
  const bool adjacent = spec_.rope == RopeKind::kAdjacent;
  if (kernels_ != nullptr) {
    Check(kernels_->Launch(TorchKernels::kRope, n, 1, Words(rows), positions.data_ptr<int>(),
                           Floats(rotations.cos), Floats(rotations.sin),
                           static_cast<long long>(rows.size(1)), static_cast<int>(n_heads),
                           static_cast<int>(spec_.head_dim), static_cast<int>(n_pairs),
                           adjacent ? 1 : 0, back ? -1.0f : 1.0f));
    return;
  }
  const at::Tensor cos = rotations.cos.index_select(0, positions).unsqueeze(1);
  at::Tensor sin = rotations.sin.index_select(0, positions).unsqueeze(1);
  if (back) sin = -sin;
  const at::Tensor heads = rows.narrow(1, 0, n_heads * spec_.head_dim)
                               .view({n, n_heads, spec_.head_dim})
                               .narrow(2, 0, spec_.rope_dims);
  const auto half = [&](int64_t which) {
    return adjacent ? heads.slice(2, which, spec_.rope_dims, 2)
                    : heads.narrow(2, which * n_pairs, n_pairs);
  };
  const at::Tensor a = half(0).to(at::kFloat), b = half(1).to(at::kFloat);
  const at::Tensor turned_a = a * cos - b * sin, turned_b = a * sin + b * cos;
  half(0).copy_(turned_a);
  half(1).copy_(turned_b);
}

void TorchOps::Activate(const at::Tensor& gate_up, const at::Tensor& y) const {
  const int64_t f = spec_.d_ff;
  if (kernels_ == nullptr) {
    const at::Tensor gate = gate_up.narrow(1, 0, f).to(at::kFloat);
    y.copy_(GateOf(gate, spec_.gating).first * gate_up.narrow(1, f, f));
    return;
  }
  Check(kernels_->Launch(TorchKernels::kActivate, BlocksOfEights(y.numel()), 1, Words(gate_up),
                         Words(y), static_cast<long long>(y.numel()), static_cast<int>(f),
                         spec_.gating == Gating::kGeluTanh ? 1 : 0));
}

void TorchOps::ActivateBackward(const at::Tensor& gate_up, const at::Tensor& dy) const {
  const int64_t f = spec_.d_ff;
  if (kernels_ == nullptr) {
    const at::Tensor gate = gate_up.narrow(1, 0, f), up = gate_up.narrow(1, f, f);
    const auto [gated, slope] = GateOf(gate.to(at::kFloat), spec_.gating);
    const at::Tensor wide = dy.to(at::kFloat), dgate = slope * up * wide;
    up.copy_(gated * wide);
    gate.copy_(dgate);
    return;
  }
  Check(kernels_->Launch(TorchKernels::kActivateBackward, BlocksOfEights(dy.numel()), 1,
                         Words(gate_up), Words(dy), static_cast<long long>(dy.numel()),
                         static_cast<int>(f), spec_.gating == Gating::kGeluTanh ? 1 : 0));
}

void TorchOps::Drop(const at::Tensor& in, const Dropout& dropout, int64_t layer, AdapterInput input,
                    const at::Tensor& out) const {
  const int64_t n_rows = in.size(0), n_cols = in.size(1);
  if (kernels_ != nullptr && n_cols % 8 == 0) {
    Check(kernels_->Launch(TorchKernels::kDrop, BlocksOfEights(in.numel()), 1, Words(in),
                           Words(out), static_cast<long long>(in.numel()), static_cast<int>(n_cols),
                           static_cast<unsigned long long>(dropout.SiteKey(layer, input)),
                           static_cast<unsigned long long>(kSplitMixStep), dropout.n_dropped(),
                           dropout.factor()));
    return;
  }
  const at::Tensor factors = at::ones({n_rows, n_cols}, at::kFloat);
  for (int64_t row = 0; row < n_rows; ++row) {
    dropout.Apply(layer, input, row, 0, n_cols, Floats(factors) + row * n_cols);
  }
  out.copy_(in * factors.to(device_));
}

at::Tensor TorchOps::CrossEntropy(const at::Tensor& logits, const at::Tensor& labels,
                                  const at::Tensor& nll, bool backward) const {
  const int64_t n = logits.size(0), n_vocab = logits.size(1);
  if (kernels_ == nullptr) {
    const at::Tensor logs = at::log_softmax(logits, 1);
    const at::Tensor column = labels.unsqueeze(1);
    nll.copy_(-logs.gather(1, column).squeeze(1));
    if (!backward) return {};
    const at::Tensor gradients = logs.exp();
    gradients.scatter_add_(1, column, at::full({n, 1}, -1.0, gradients.options()));
    return is_bf16_ ? gradients.to(at::kBFloat16) : gradients;
  }
  Check(kernels_->Launch(TorchKernels::kCrossEntropy, n, 1, Floats(logits),
                         static_cast<const long long*>(labels.data_ptr()), Floats(nll),
                         static_cast<int>(n_vocab), backward ? 1 : 0));
  if (!backward) return {};
  return logits.view(at::kBFloat16).narrow(1, 0, n_vocab);
}

void TorchOps::SetPlaces(std::vector<PlacedMatrix> places) {
  places_ = std::move(places);
  at::Tensor table = at::empty({static_cast<int64_t>(places_.size()), 6}, at::kLong);
  int64_t* at = table.data_ptr<int64_t>();
  for (const PlacedMatrix& m : places_) {
    for (const int64_t v :
         {m.from, m.to, m.n_rows, m.n_cols, m.row_values, int64_t{m.is_scaled ? 1 : 0}}) {
      *at++ = v;
    }
  }
  place_table_ = table.to(device_);
}

void TorchOps::Place(const at::Tensor& values, const at::Tensor& operands, float scale) const {
  if (kernels_ != nullptr) {
    constexpr int64_t kBlocksEach = 32;
    Check(kernels_->Launch(TorchKernels::kPlace, kBlocksEach, static_cast<int64_t>(places_.size()),
                           Floats(values), Words(operands),
                           static_cast<const long long*>(place_table_.data_ptr()), scale));
    return;
  }
  for (const PlacedMatrix& m : places_) {
    const at::Tensor from =
        values.narrow(0, m.from, m.n_rows * m.n_cols).view({m.n_rows, m.n_cols});
    const at::Tensor to = operands.as_strided({m.n_rows, m.n_cols}, {m.row_values, 1}, m.to);
    to.copy_(m.is_scaled ? from * scale : from);
  }
}

void TorchOps::MatMul(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b,
                      bool add) const {
  at::Tensor to = out;
  if (add) {
    at::addmm_out(to, to, a, b);
  } else {
    at::mm_out(to, a, b);
  }
}

void TorchOps::MatMulF32(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) const {
  at::Tensor to = out;
  if (!is_bf16_) {
    at::mm_out(to, a, b);
  } else if (is_cuda_) {
    at::mm_out(to, a, b, at::kFloat);
  } else {
    at::mm_out(to, a.to(at::kFloat), b.to(at::kFloat));
  }
}

void TorchOps::AddMatMulF32(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b,
                            float scale) const {
  at::Tensor to = out;
  if (!is_bf16_) {
    at::addmm_out(to, to, a, b, 1, scale);
  } else if (is_cuda_) {
    at::addmm_out(to, to, a, b, at::kFloat, 1, scale);
  } else {
    at::addmm_out(to, to, a.to(at::kFloat), b.to(at::kFloat), 1, scale);
  }
}

}  // namespace coterie
