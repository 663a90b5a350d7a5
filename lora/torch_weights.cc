#include "lora/torch_weights.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "core/kernels/kernels.h"

namespace coterie {
namespace {

class Uploader {
 public:
  Uploader(WorkerPool& pool, const at::Device& device, at::ScalarType type)
      : pool_(pool), device_(device), type_(type) {}

  // Matrices of the same width, one below the other.
  at::Tensor Stack(std::initializer_list<const MatrixView*> matrices) const {
    int64_t n_rows = 0;
    for (const MatrixView* m : matrices) n_rows += m->n_rows;
    const int64_t n_cols = (*matrices.begin())->n_cols;
    at::Tensor out = at::empty({n_rows, n_cols}, at::TensorOptions(type_).device(device_));
    int64_t at = 0;
    for (const MatrixView* m : matrices) {
      Copy(*m, out.narrow(0, at, m->n_rows));
      at += m->n_rows;
    }
    return out;
  }

  at::Tensor Vector(const float* values, int64_t n) const {
    if (values == nullptr) return {};
    return at::from_blob(const_cast<float*>(values), {n}, at::kFloat)
        .to(device_, at::kFloat, false, /*copy=*/true);
  }

 private:
  void Copy(const MatrixView& m, const at::Tensor& to) const {
    if (m.type == TensorType::kBF16 && type_ == at::kBFloat16) {
      to.copy_(at::from_blob(const_cast<uint8_t*>(m.data), {m.n_rows, m.n_cols}, at::kBFloat16));
      return;
    }
    const int64_t rows =
        std::clamp<int64_t>(TorchWeights::kStagingBytes / (4 * m.n_cols), 1, m.n_rows);
    const at::Tensor staging = at::empty({rows, m.n_cols}, at::kFloat);
    float* values = staging.data_ptr<float>();
    for (int64_t first = 0; first < m.n_rows; first += rows) {
      const int64_t n = std::min(rows, m.n_rows - first);
      pool_.RunBackground(n,
                          [&](int64_t row, int) {
                            Kernels().dequantize_row(m.type, m.row(first + row), m.n_cols,
                                                     values + row * m.n_cols);
                          },
                          {});
      to.narrow(0, first, n).copy_(staging.narrow(0, 0, n));
    }
  }

  WorkerPool& pool_;
  const at::Device device_;
  const at::ScalarType type_;
};

at::Tensor StackedBias(const Uploader& uploader, std::initializer_list<const LinearWeights*> parts,
                       at::ScalarType type) {
  if ((*parts.begin())->bias == nullptr) return {};
  std::vector<at::Tensor> biases;
  for (const LinearWeights* part : parts) {
    biases.push_back(uploader.Vector(part->bias, part->w.n_rows));
  }
  return at::cat(biases).to(type);
}

// Gives the linear layers their places among the operands.
class Placer {
 public:
  Placer(const LoraPlan& plan, std::vector<PlacedMatrix>& places) : plan_(plan), places_(places) {}

  void Add(int64_t layer, std::initializer_list<LayerLinear> linears, int64_t n_in, int64_t n_out,
           const ArchSpec& spec, TorchLinear* linear) {
    int64_t output_at = 0;
    std::vector<TorchLinear::Member> members;
    int64_t rank = 0;
    for (const LayerLinear which : linears) {
      if (const LoraPair* pair = plan_.Find(layer, which)) {
        members.push_back({pair, rank, output_at});
        rank += pair->rank;
      }
      output_at += ShapeOf(spec, which).out;
    }
    const int64_t a_at = n_values_, b_at = a_at + rank * n_in;
    n_values_ = b_at + rank * n_out;
    for (const TorchLinear::Member& m : members) {
      places_.push_back({m.pair->a_at, a_at + m.rank_at * n_in, m.pair->rank, n_in, n_in, false});
      places_.push_back({m.pair->bt_at, b_at + m.rank_at * n_out + m.output_at, m.pair->rank,
                         m.pair->shape.out, n_out, true});
    }
    if (linear == nullptr || rank == 0) return;
    linear->members = std::move(members);
    linear->rank = rank;
    linear->layer = layer;
    linear->input = InputOf(*linears.begin());
    views_.push_back({linear, a_at, b_at, n_in, n_out});
  }

  void AddLayer(int64_t layer, const ArchSpec& spec, TorchLayer* to) {
    const int64_t d = spec.d_model;
    Add(layer, {LayerLinear::kQ, LayerLinear::kK, LayerLinear::kV}, d, spec.d_q() + 2 * spec.d_kv(),
        spec, to ? &to->qkv : nullptr);
    Add(layer, {LayerLinear::kO}, spec.d_q(), d, spec, to ? &to->o : nullptr);
    Add(layer, {LayerLinear::kGate, LayerLinear::kUp}, d, 2 * spec.d_ff, spec,
        to ? &to->gate_up : nullptr);
    Add(layer, {LayerLinear::kDown}, spec.d_ff, d, spec, to ? &to->down : nullptr);
  }

  int64_t n_values() const { return n_values_; }

  void View(const at::Tensor& operands) const {
    for (const auto& v : views_) {
      v.linear->a = operands.narrow(0, v.a_at, v.linear->rank * v.n_in).view({-1, v.n_in});
      v.linear->b = operands.narrow(0, v.b_at, v.linear->rank * v.n_out).view({-1, v.n_out});
    }
  }

 private:
  struct ViewOf {
    TorchLinear* linear;
    int64_t a_at, b_at, n_in, n_out;
  };
  const LoraPlan& plan_;
  std::vector<PlacedMatrix>& places_;
  std::vector<ViewOf> views_;
  int64_t n_values_ = 0;
};

}  // namespace

TorchWeights TorchWeights::From(const ArchSpec& spec, const DecoderWeights& weights,
                                const LoraPlan& plan, WorkerPool& pool, const at::Device& device,
                                at::ScalarType type) {
  const Uploader upload(pool, device, type);
  TorchWeights out;
  const int64_t d = spec.d_model;
  out.embedding = upload.Stack({&weights.embedding});
  const bool is_tied = weights.head.w.data == weights.embedding.data;
  out.head = is_tied ? out.embedding : upload.Stack({&weights.head.w});
  out.output_norm = upload.Vector(weights.output_norm, d);
  out.layers.resize(weights.layers.size());
  Placer placer(plan, out.places);
  for (size_t i = 0; i < out.layers.size(); ++i) {
    const LayerWeights& w = weights.layers[i];
    TorchLayer& layer = out.layers[i];
    layer.attention_norm = upload.Vector(w.attention_norm, d);
    layer.ffn_norm = upload.Vector(w.ffn_norm, d);
    layer.q_norm = upload.Vector(w.q_norm, spec.head_dim);
    layer.k_norm = upload.Vector(w.k_norm, spec.head_dim);
    layer.post_attention_norm = upload.Vector(w.post_attention_norm, d);
    layer.post_ffn_norm = upload.Vector(w.post_ffn_norm, d);
    layer.qkv.w = upload.Stack({&w.q.w, &w.k.w, &w.v.w});
    layer.qkv.bias = StackedBias(upload, {&w.q, &w.k, &w.v}, type);
    layer.o.w = upload.Stack({&w.o.w});
    layer.gate_up.w = upload.Stack({&w.gate.w, &w.up.w});
    layer.down.w = upload.Stack({&w.down.w});
    placer.AddLayer(static_cast<int64_t>(i), spec, &layer);
  }
  // Between the adapters of one product b stays zero.
  out.operands = at::zeros({placer.n_values()}, at::TensorOptions(type).device(device));
  placer.View(out.operands);
  return out;
}

int64_t TorchWeights::DeviceBytes(const ArchSpec& spec, const DecoderWeights& weights,
                                  const LoraPlan& plan, int64_t value_bytes) {
  const bool is_tied = weights.head.w.data == weights.embedding.data;
  int64_t n = (is_tied ? 1 : 2) * spec.n_vocab * spec.d_model;
  std::vector<PlacedMatrix> places;
  Placer placer(plan, places);
  for (int64_t layer = 0; layer < spec.n_layers; ++layer) {
    for (int i = 0; i < kLayerLinearCount; ++i) {
      const LinearShape shape = ShapeOf(spec, static_cast<LayerLinear>(i));
      n += shape.in * shape.out;
    }
    placer.AddLayer(layer, spec, nullptr);
  }
  return (n + placer.n_values()) * value_bytes;
}

}  // namespace coterie
