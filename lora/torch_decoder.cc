#include "lora/torch_decoder.h"

#include <algorithm>
#include <limits>
#include <tuple>

namespace coterie {
namespace {

// Rows of logits at a time are limited by this much memory: whole tiles of a product.
constexpr int64_t kLogitBytes = int64_t{128} << 20;
constexpr int64_t kHeadRowsStep = 128;

int64_t HeadRows(const ArchSpec& spec, int64_t max_tokens) {
  const int64_t steps = kLogitBytes / (spec.n_vocab * 4 * kHeadRowsStep);
  return std::min(max_tokens, kHeadRowsStep * std::max<int64_t>(1, steps));
}

TorchRotations MakeRotations(const RopeAngles& angles, int64_t n, int64_t rope_dims,
                             const at::TensorOptions& wide) {
  const at::Tensor cos = at::empty({n, rope_dims / 2}, at::kFloat);
  const at::Tensor sin = at::empty_like(cos);
  angles.Rotations(0, n, rope_dims, cos.data_ptr<float>(), sin.data_ptr<float>());
  return {cos.to(wide.device()), sin.to(wide.device())};
}

// While one lives, torch adds up in the same order every time: the backward pass of flash attention
// otherwise does not.
class SameOrder {
 public:
  SameOrder()
      : was_(at::globalContext().deterministicAlgorithms()),
        was_warning_(at::globalContext().deterministicAlgorithmsWarnOnly()) {
    at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  }
  ~SameOrder() { at::globalContext().setDeterministicAlgorithms(was_, was_warning_); }
  SameOrder(const SameOrder&) = delete;
  SameOrder& operator=(const SameOrder&) = delete;

 private:
  const bool was_, was_warning_;
};

template <typename T>
at::Tensor OnDevice(std::vector<T> values, at::ScalarType type, const at::Device& device) {
  return at::from_blob(values.data(), {static_cast<int64_t>(values.size())}, type)
      .to(device, type, /*non_blocking=*/false, /*copy=*/true);
}

}  // namespace

TorchDecoder::TorchDecoder(const ArchSpec& spec, const LoraPlan& plan, const TorchWeights& weights,
                           const TorchOps& ops, const TorchDecoderShape& shape,
                           const at::Device& device)
    : spec_(spec),
      plan_(plan),
      weights_(weights),
      ops_(ops),
      shape_(shape),
      narrow_(at::TensorOptions(shape.is_bf16 ? at::kBFloat16 : at::kFloat).device(device)),
      wide_(at::TensorOptions(at::kFloat).device(device)),
      has_flash_(device.is_cuda() && shape.is_bf16 && spec.head_dim % 8 == 0 &&
                 spec.head_dim <= 256) {
  const int64_t n = shape.max_tokens, d = spec.d_model;
  rotations_ = MakeRotations(spec.rope_angles, n, spec.rope_dims, wide_);
  if (!spec.windowed.empty()) {
    window_rotations_ = MakeRotations(spec.window_rope_angles, n, spec.rope_dims, wide_);
  }
  const auto rows = [&](int64_t n_cols) { return at::empty({n, n_cols}, narrow_); };
  stream_ = at::empty({n, d}, wide_);
  dx_ = at::empty({n, d}, wide_);
  dx_narrow_ = rows(d);
  normed_ = rows(d);
  projected_ = rows(d);
  tapes_.resize(static_cast<size_t>(spec.n_layers));
  for (size_t i = 0; i < tapes_.size(); ++i) {
    Tape& tape = tapes_[i];
    const TorchLayer& layer = weights.layers[i];
    const bool shares_attention = i > 0 && shape.recompute == Recompute::kFull;
    const bool shares_gates = i > 0 && shape.recompute != Recompute::kNone;
    tape.x = rows(d);
    tape.x_mid = rows(d);
    tape.qkv = shares_attention ? tapes_[0].qkv : rows(spec.d_q() + 2 * spec.d_kv());
    if (layer.q_norm.defined()) {
      tape.raw_qk = shares_attention ? tapes_[0].raw_qk : rows(spec.d_q() + spec.d_kv());
    }
    tape.gate_up = shares_gates ? tapes_[0].gate_up : rows(2 * spec.d_ff);
    if (layer.post_attention_norm.defined()) tape.raw_o = rows(d);
    if (layer.post_ffn_norm.defined()) tape.raw_down = rows(d);
    if (layer.qkv.rank > 0) tape.h_qkv = rows(layer.qkv.rank);
    if (layer.o.rank > 0) tape.h_o = rows(layer.o.rank);
    if (layer.gate_up.rank > 0) tape.h_gate_up = rows(layer.gate_up.rank);
    if (layer.down.rank > 0) tape.h_down = rows(layer.down.rank);
  }
}

int64_t TorchDecoder::DeviceBytes(const ArchSpec& spec, const LoraPlan& plan,
                                  const TorchDecoderShape& shape) {
  const int64_t d = spec.d_model, size = shape.value_bytes();
  const int64_t kept = 2 * d + (spec.post_norms ? 2 * d : 0);
  const int64_t attention = 2 * spec.d_q() + 2 * spec.d_kv() +
                            (spec.qk_norm ? spec.d_q() + spec.d_kv() : 0) + 4 * spec.n_heads / size;
  const int64_t n_attention = shape.recompute == Recompute::kFull ? 1 : spec.n_layers;
  const int64_t n_gates = shape.recompute == Recompute::kNone ? spec.n_layers : 1;
  const int64_t ranks = static_cast<int64_t>(plan.pairs().size()) * plan.rank();
  const int64_t tape =
      size * (kept * spec.n_layers + attention * n_attention + 2 * spec.d_ff * n_gates + ranks);
  const int64_t working = 2 * 4 * d + 3 * size * d;
  const int64_t dropped = shape.drops ? 2 * size * std::max({d, spec.d_q(), spec.d_ff}) : 0;
  const int64_t temporary =
      std::max(2 * size * spec.d_ff, size * (6 * spec.d_q()) + 4 * spec.d_q()) + dropped;
  const int64_t logits = HeadRows(spec, shape.max_tokens) * spec.n_vocab * 4;
  return shape.max_tokens * (tape + working) + std::max(shape.max_tokens * temporary, logits);
}

at::Tensor TorchDecoder::NewRows(int64_t n_cols) const {
  return at::empty({n_rows_, n_cols}, narrow_);
}

const TorchRotations& TorchDecoder::RotationsOf(int64_t layer) const {
  return spec_.IsWindowed(layer) ? window_rotations_ : rotations_;
}

void TorchDecoder::Begin(const TrainingRows& rows, bool is_adapted, bool learns) {
  n_rows_ = rows.n_rows();
  is_adapted_ = is_adapted;
  learns_ = learns;
  dropout_ = rows.dropout;
  sequences_ = rows.sequences;
  pending_.reset();
  longest_ = 0;
  std::vector<int32_t> positions, starts = {0};
  for (const TrainingRows::Sequence& sequence : rows.sequences) {
    for (int64_t t = 0; t < sequence.n_tokens; ++t) positions.push_back(static_cast<int32_t>(t));
    starts.push_back(static_cast<int32_t>(sequence.first + sequence.n_tokens));
    longest_ = std::max(longest_, sequence.n_tokens);
  }
  const at::Device device = wide_.device();
  tokens_ =
      OnDevice(std::vector<int64_t>(rows.tokens.begin(), rows.tokens.end()), at::kLong, device);
  positions_ = OnDevice(std::move(positions), at::kInt, device);
  starts_ = OnDevice(std::move(starts), at::kInt, device);
  loss_rows_ = OnDevice(rows.loss_rows, at::kLong, device);
  labels_ = OnDevice(std::vector<int64_t>(rows.loss_labels.begin(), rows.loss_labels.end()),
                     at::kLong, device);
}

at::Tensor TorchDecoder::Dropped(const TorchLinear& linear, const at::Tensor& in) const {
  if (!dropout_.is_on()) return in;
  const at::Tensor out = NewRows(in.size(1));
  ops_.Drop(in, dropout_, linear.layer, linear.input, out);
  return out;
}

void TorchDecoder::Project(const TorchLinear& linear, const at::Tensor& in, const at::Tensor& h,
                           const at::Tensor& y) const {
  ops_.MatMul(y, in, linear.w.t());
  if (linear.bias.defined()) y.add_(linear.bias);
  if (!is_adapted_ || linear.rank == 0) return;
  ops_.MatMul(h, Dropped(linear, in), linear.a.t());
  ops_.MatMul(y, h, linear.b, /*add=*/true);
}

void TorchDecoder::Embed(const MatrixView&) {
  Rows(stream_).copy_(weights_.embedding.index_select(0, tokens_));
  if (spec_.embedding_scale != 1) Rows(stream_).mul_(spec_.embedding_scale);
}

void TorchDecoder::NormQkvRopeAppend(int64_t layer, const LayerWeights&) {
  ops_.AddNorm(Rows(stream_), pending_, Layer(layer).attention_norm, Rows(TapeOf(layer).x),
               Rows(normed_));
  pending_.reset();
  QkvFromNormed(layer);
}

void TorchDecoder::QkvFromNormed(int64_t layer) {
  const TorchLayer& w = Layer(layer);
  Tape& tape = TapeOf(layer);
  const at::Tensor qkv = Rows(tape.qkv);
  Project(w.qkv, Rows(normed_), w.qkv.rank > 0 ? Rows(tape.h_qkv) : at::Tensor(), qkv);
  if (w.q_norm.defined()) {
    const at::Tensor raw = Rows(tape.raw_qk);
    raw.copy_(qkv.narrow(1, 0, raw.size(1)));
    const auto norm_heads = [&](int64_t at, int64_t n_heads, const at::Tensor& norm) {
      const auto heads = [&](const at::Tensor& t) {
        return t.narrow(1, at, n_heads * spec_.head_dim).view({n_rows_, n_heads, spec_.head_dim});
      };
      ops_.Norm(heads(raw), norm, heads(qkv));
    };
    norm_heads(0, spec_.n_heads, w.q_norm);
    norm_heads(spec_.d_q(), spec_.n_kv_heads, w.k_norm);
  }
  ops_.Rope(qkv, spec_.n_heads + spec_.n_kv_heads, RotationsOf(layer), positions_,
            /*back=*/false);
}

void TorchDecoder::Attend(int64_t layer) {
  if (!has_flash_) return AttendPlainly(layer);
  Tape& tape = TapeOf(layer);
  const at::Tensor qkv = Rows(tape.qkv);
  const auto heads = [&](int64_t at, int64_t n) {
    return qkv.narrow(1, at, n * spec_.head_dim).view({n_rows_, n, spec_.head_dim});
  };
  const int64_t window = spec_.IsWindowed(layer) ? spec_.window - 1 : -1;
  at::Tensor out, mask;
  std::tie(out, tape.lse, tape.rng, tape.unused, mask) = at::_flash_attention_forward(
      heads(0, spec_.n_heads), heads(spec_.d_q(), spec_.n_kv_heads),
      heads(spec_.d_q() + spec_.d_kv(), spec_.n_kv_heads), starts_, starts_, longest_, longest_,
      /*dropout_p=*/0.0, /*is_causal=*/true, /*return_debug_mask=*/false,
      static_cast<double>(spec_.query_scale), window < 0 ? std::optional<int64_t>() : window,
      window < 0 ? std::optional<int64_t>() : int64_t{0});
  tape.attended = out.view({n_rows_, spec_.d_q()});
}

void TorchDecoder::AddToStream(const TorchLinear& linear, const at::Tensor& norm,
                               const at::Tensor& in, const at::Tensor& h, const at::Tensor& raw) {
  pending_ = Rows(projected_);
  Project(linear, in, h, norm.defined() ? Rows(raw) : pending_);
  if (norm.defined()) ops_.Norm(Rows(raw), norm, pending_);
}

void TorchDecoder::ProjectResidual(int64_t layer, const LayerWeights&) {
  const TorchLayer& w = Layer(layer);
  const Tape& tape = TapeOf(layer);
  AddToStream(w.o, w.post_attention_norm, tape.attended,
              w.o.rank > 0 ? Rows(tape.h_o) : at::Tensor(), tape.raw_o);
}

void TorchDecoder::NormGateUpActivate(int64_t layer, const LayerWeights&) {
  const TorchLayer& w = Layer(layer);
  const Tape& tape = TapeOf(layer);
  ops_.AddNorm(Rows(stream_), pending_, w.ffn_norm, Rows(tape.x_mid), Rows(normed_));
  pending_.reset();
  Project(w.gate_up, Rows(normed_), w.gate_up.rank > 0 ? Rows(tape.h_gate_up) : at::Tensor(),
          Rows(tape.gate_up));
}

void TorchDecoder::DownResidual(int64_t layer, const LayerWeights&) {
  const TorchLayer& w = Layer(layer);
  const Tape& tape = TapeOf(layer);
  const at::Tensor activated = NewRows(spec_.d_ff);
  ops_.Activate(Rows(tape.gate_up), activated);
  AddToStream(w.down, w.post_ffn_norm, activated,
              w.down.rank > 0 ? Rows(tape.h_down) : at::Tensor(), tape.raw_down);
}

// Logits of a few rows at a time: their likelihoods, and the gradients of those, which need no
// backward pass of their own later.
void TorchDecoder::NormHead(const float*, const LinearWeights&) {
  if (pending_.defined()) Rows(stream_).add_(pending_);
  pending_.reset();
  const int64_t n_loss = loss_rows_.size(0);
  const at::Tensor hidden = dx_narrow_.narrow(0, 0, n_loss);  // Not in use yet.
  hidden.copy_(stream_.index_select(0, loss_rows_));
  hidden_gradient_ = stream_.narrow(0, 0, n_loss);
  nll_ = at::empty({n_loss}, wide_);
  const int64_t rows = HeadRows(spec_, shape_.max_tokens);
  const at::Tensor all_logits = at::empty({std::min(rows, n_loss), spec_.n_vocab}, wide_);
  for (int64_t first = 0; first < n_loss; first += rows) {
    const int64_t n = std::min(rows, n_loss - first);
    const at::Tensor x = hidden.narrow(0, first, n), normed = normed_.narrow(0, 0, n);
    ops_.Norm(x, weights_.output_norm, normed);
    const at::Tensor logits = all_logits.narrow(0, 0, n);
    ops_.MatMulF32(logits, normed, weights_.head.t());
    const at::Tensor d_logits =
        ops_.CrossEntropy(logits, labels_.narrow(0, first, n), nll_.narrow(0, first, n), learns_);
    if (!learns_) continue;
    ops_.NormBackward(x, weights_.output_norm, HeadBackward(d_logits),
                      hidden_gradient_.narrow(0, first, n), /*add=*/false, {});
  }
}

at::Tensor TorchDecoder::HeadBackward(const at::Tensor& d_logits) const {
  const at::Tensor out = at::empty({d_logits.size(0), spec_.d_model}, narrow_);
  ops_.MatMul(out, d_logits, weights_.head);
  return out;
}

// Attention by whole matrices of scores, a sequence at a time: where there is no flash attention.
namespace {

struct PlainAttention {
  at::Tensor q, k, v;  // [n_heads, n, head_dim] f32
  at::Tensor weights;  // [n_heads, n, n]
};

PlainAttention Weigh(const ArchSpec& spec, int64_t layer, const at::Tensor& qkv) {
  const int64_t n = qkv.size(0), group = spec.n_heads / spec.n_kv_heads;
  const auto heads = [&](int64_t at, int64_t n_heads) {
    return qkv.narrow(1, at, n_heads * spec.head_dim)
        .view({n, n_heads, spec.head_dim})
        .transpose(0, 1)
        .to(at::kFloat);
  };
  PlainAttention out;
  out.q = heads(0, spec.n_heads);
  out.k = heads(spec.d_q(), spec.n_kv_heads).repeat_interleave(group, 0);
  out.v = heads(spec.d_q() + spec.d_kv(), spec.n_kv_heads).repeat_interleave(group, 0);
  const auto flags = at::TensorOptions(at::kBool).device(qkv.device());
  at::Tensor hidden = at::ones({n, n}, flags).triu_(1);
  if (spec.IsWindowed(layer)) hidden |= at::ones({n, n}, flags).tril_(-spec.window);
  const at::Tensor scores = at::bmm(out.q, out.k.transpose(1, 2))
                                .mul_(spec.query_scale)
                                .masked_fill_(hidden, -std::numeric_limits<float>::infinity());
  out.weights = at::softmax(scores, -1);
  return out;
}

}  // namespace

void TorchDecoder::AttendPlainly(int64_t layer) {
  Tape& tape = TapeOf(layer);
  tape.attended = NewRows(spec_.d_q());
  for (const TrainingRows::Sequence& s : sequences_) {
    const PlainAttention a = Weigh(spec_, layer, tape.qkv.narrow(0, s.first, s.n_tokens));
    tape.attended.narrow(0, s.first, s.n_tokens)
        .copy_(at::bmm(a.weights, a.v).transpose(0, 1).reshape({s.n_tokens, spec_.d_q()}));
  }
}

void TorchDecoder::AttendPlainlyBackward(int64_t layer, const at::Tensor& d_attended) {
  const Tape& tape = TapeOf(layer);
  const int64_t group = spec_.n_heads / spec_.n_kv_heads;
  for (const TrainingRows::Sequence& s : sequences_) {
    const PlainAttention a = Weigh(spec_, layer, tape.qkv.narrow(0, s.first, s.n_tokens));
    const at::Tensor d_out = d_attended.narrow(0, s.first, s.n_tokens)
                                 .view({s.n_tokens, spec_.n_heads, spec_.head_dim})
                                 .transpose(0, 1)
                                 .to(at::kFloat);
    const at::Tensor d_weights = at::bmm(d_out, a.v.transpose(1, 2));
    const at::Tensor pull = (d_weights * a.weights).sum(-1, /*keepdim=*/true);
    const at::Tensor d_scores = (d_weights - pull).mul_(a.weights).mul_(spec_.query_scale);
    // Queries that share keys and values each give them a part.
    const auto shared = [&](const at::Tensor& t) {
      return t.view({spec_.n_kv_heads, group, s.n_tokens, spec_.head_dim}).sum(1);
    };
    const auto put = [&](int64_t at, const at::Tensor& t) {
      const int64_t n_cols = t.size(0) * spec_.head_dim;
      dqkv_.narrow(0, s.first, s.n_tokens)
          .narrow(1, at, n_cols)
          .copy_(t.transpose(0, 1).reshape({s.n_tokens, n_cols}));
    };
    put(0, at::bmm(d_scores, a.k));
    put(spec_.d_q(), shared(at::bmm(d_scores.transpose(1, 2), a.q)));
    put(spec_.d_q() + spec_.d_kv(), shared(at::bmm(a.weights.transpose(1, 2), d_out)));
  }
}

void TorchDecoder::WeighLoss(absl::Span<const float> weights, const at::Tensor& gradients) {
  gradients_ = gradients;
  const at::Tensor by_row =
      OnDevice(std::vector<float>(weights.begin(), weights.end()), at::kFloat, wide_.device());
  hidden_gradient_.mul_(by_row.unsqueeze(1));
  Rows(dx_).zero_();
  Rows(dx_).index_copy_(0, loss_rows_, hidden_gradient_);
  Rows(dx_narrow_).copy_(Rows(dx_));
}

void TorchDecoder::BeginBackward(int64_t layer, const LayerWeights&) {
  const TorchLayer& w = Layer(layer);
  const Tape& tape = TapeOf(layer);
  if (shape_.recompute == Recompute::kFull) {
    ops_.Norm(Rows(tape.x), w.attention_norm, Rows(normed_));
    QkvFromNormed(layer);
    Attend(layer);
  }
  if (shape_.recompute == Recompute::kNone) return;
  ops_.Norm(Rows(tape.x_mid), w.ffn_norm, Rows(normed_));
  Project(w.gate_up, Rows(normed_), w.gate_up.rank > 0 ? Rows(tape.h_gate_up) : at::Tensor(),
          Rows(tape.gate_up));
}

void TorchDecoder::ProjectBackward(const TorchLinear& linear, const at::Tensor& dy,
                                   const at::Tensor& in, const at::Tensor& h,
                                   const at::Tensor& d_in) const {
  if (d_in.defined()) ops_.MatMul(d_in, dy, linear.w);
  if (linear.rank == 0) return;
  const at::Tensor dh = NewRows(linear.rank);
  ops_.MatMul(dh, dy, linear.b.t());
  if (d_in.defined() && dropout_.is_on()) {
    const at::Tensor d_dropped = NewRows(linear.a.size(1));
    ops_.MatMul(d_dropped, dh, linear.a);
    ops_.Drop(d_dropped, dropout_, linear.layer, linear.input, d_dropped);
    d_in.add_(d_dropped);
  } else if (d_in.defined()) {
    ops_.MatMul(d_in, dh, linear.a, /*add=*/true);
  }
  const at::Tensor read = Dropped(linear, in);
  for (const TorchLinear::Member& member : linear.members) {
    const LoraPair& pair = *member.pair;
    const auto gradient = [&](int64_t at, int64_t n_cols) {
      return gradients_.narrow(0, at, pair.rank * n_cols).view({pair.rank, n_cols});
    };
    ops_.AddMatMulF32(gradient(pair.a_at, pair.shape.in),
                      dh.narrow(1, member.rank_at, pair.rank).t(), read, 1);
    ops_.AddMatMulF32(gradient(pair.bt_at, pair.shape.out),
                      h.narrow(1, member.rank_at, pair.rank).t(),
                      dy.narrow(1, member.output_at, pair.shape.out), plan_.scale());
  }
}

// The gradient of what a product added to the stream, before its norm if it has one.
at::Tensor TorchDecoder::GradientBehind(const at::Tensor& norm, const at::Tensor& raw) const {
  if (!norm.defined()) return Rows(dx_narrow_);
  const at::Tensor dy = NewRows(spec_.d_model);
  ops_.NormBackward(Rows(raw), norm, Rows(dx_narrow_), at::empty({n_rows_, spec_.d_model}, wide_),
                    /*add=*/false, dy);
  return dy;
}

void TorchDecoder::BackwardDownResidual(int64_t layer, const LayerWeights&) {
  const TorchLayer& w = Layer(layer);
  const Tape& tape = TapeOf(layer);
  // The activation is not on the tape: made again from gate and up.
  at::Tensor activated;
  if (w.down.rank > 0) {
    activated = NewRows(spec_.d_ff);
    ops_.Activate(Rows(tape.gate_up), activated);
  }
  d_activated_ = NewRows(spec_.d_ff);
  ProjectBackward(w.down, GradientBehind(w.post_ffn_norm, tape.raw_down), activated,
                  w.down.rank > 0 ? Rows(tape.h_down) : at::Tensor(), d_activated_);
}

void TorchDecoder::BackwardNormGateUpActivate(int64_t layer, const LayerWeights&) {
  const TorchLayer& w = Layer(layer);
  const Tape& tape = TapeOf(layer);
  const at::Tensor d_gate_up = Rows(tape.gate_up), d_normed = Rows(projected_);
  ops_.ActivateBackward(d_gate_up, d_activated_);
  d_activated_.reset();
  if (w.gate_up.rank > 0) ops_.Norm(Rows(tape.x_mid), w.ffn_norm, Rows(normed_));
  ProjectBackward(w.gate_up, d_gate_up, Rows(normed_),
                  w.gate_up.rank > 0 ? Rows(tape.h_gate_up) : at::Tensor(), d_normed);
  ops_.NormBackward(Rows(tape.x_mid), w.ffn_norm, d_normed, Rows(dx_), /*add=*/true,
                    Rows(dx_narrow_));
}

void TorchDecoder::BackwardProjectResidual(int64_t layer, const LayerWeights&) {
  const TorchLayer& w = Layer(layer);
  const Tape& tape = TapeOf(layer);
  d_attended_ = NewRows(spec_.d_q());
  ProjectBackward(w.o, GradientBehind(w.post_attention_norm, tape.raw_o), tape.attended,
                  w.o.rank > 0 ? Rows(tape.h_o) : at::Tensor(), d_attended_);
}

void TorchDecoder::BackwardAttend(int64_t layer) {
  const Tape& tape = TapeOf(layer);
  dqkv_ = NewRows(spec_.d_q() + 2 * spec_.d_kv());
  if (!has_flash_) {
    AttendPlainlyBackward(layer, d_attended_);
    d_attended_.reset();
    return;
  }
  const at::Tensor qkv = Rows(tape.qkv);
  const auto heads = [&](const at::Tensor& t, int64_t at, int64_t n) {
    return t.narrow(1, at, n * spec_.head_dim).view({n_rows_, n, spec_.head_dim});
  };
  const int64_t window = spec_.IsWindowed(layer) ? spec_.window - 1 : -1;
  const SameOrder same_order;
  const auto [dq, dk, dv] = at::_flash_attention_backward(
      heads(d_attended_, 0, spec_.n_heads), heads(qkv, 0, spec_.n_heads),
      heads(qkv, spec_.d_q(), spec_.n_kv_heads),
      heads(qkv, spec_.d_q() + spec_.d_kv(), spec_.n_kv_heads),
      heads(tape.attended, 0, spec_.n_heads), tape.lse, starts_, starts_, longest_, longest_,
      /*dropout_p=*/0.0, /*is_causal=*/true, tape.rng, tape.unused,
      static_cast<double>(spec_.query_scale), window < 0 ? std::optional<int64_t>() : window,
      window < 0 ? std::optional<int64_t>() : int64_t{0});
  d_attended_.reset();
  at::cat_out(dqkv_,
              {dq.reshape({n_rows_, -1}), dk.reshape({n_rows_, -1}), dv.reshape({n_rows_, -1})}, 1);
}

void TorchDecoder::BackwardNormQkvRope(int64_t layer, const LayerWeights&) {
  const TorchLayer& w = Layer(layer);
  const Tape& tape = TapeOf(layer);
  ops_.Rope(dqkv_, spec_.n_heads + spec_.n_kv_heads, RotationsOf(layer), positions_,
            /*back=*/true);
  if (w.q_norm.defined()) {
    const auto back = [&](int64_t at, int64_t n_heads, const at::Tensor& norm) {
      const auto heads = [&](const at::Tensor& t) {
        return t.narrow(1, at, n_heads * spec_.head_dim).view({n_rows_, n_heads, spec_.head_dim});
      };
      ops_.NormBackward(heads(Rows(tape.raw_qk)), norm, heads(dqkv_),
                        at::empty({n_rows_, n_heads, spec_.head_dim}, wide_), /*add=*/false,
                        heads(dqkv_));
    };
    back(0, spec_.n_heads, w.q_norm);
    back(spec_.d_q(), spec_.n_kv_heads, w.k_norm);
  }
  // Below the first adapted layer nobody needs a gradient.
  const bool goes_on = layer > plan_.first_layer();
  if (w.qkv.rank > 0) ops_.Norm(Rows(tape.x), w.attention_norm, Rows(normed_));
  const at::Tensor d_normed = goes_on ? Rows(projected_) : at::Tensor();
  ProjectBackward(w.qkv, dqkv_, Rows(normed_), w.qkv.rank > 0 ? Rows(tape.h_qkv) : at::Tensor(),
                  d_normed);
  dqkv_.reset();
  if (!goes_on) return;
  ops_.NormBackward(Rows(tape.x), w.attention_norm, d_normed, Rows(dx_), /*add=*/true,
                    Rows(dx_narrow_));
}

}  // namespace coterie
