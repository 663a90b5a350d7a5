// The products of TrainingDecoder: with frozen weights and an adapter's, cut into pieces for the
// pool.

#include <algorithm>
#include <utility>

#include "lora/training_decoder.h"

namespace coterie {
namespace {

// Outputs that one piece of a forward product makes.
constexpr int64_t kOutputsPerPiece = 2 * kTrainingAlign;

// Few pieces of whole blocks are split by rows too, so that all workers have some.
constexpr int64_t kRowsWorthSplitting = 128;

}  // namespace

// The product of some rows with w: of outputs [begin, end) forward, of columns backward.
void TrainingDecoder::Multiply(Direction direction, const MatrixView& w, int64_t begin, int64_t end,
                               const ActivationRows& x, int64_t first_row, int64_t n_rows,
                               const ProductOutput& y, uint8_t* scratch) const {
  const bool back = direction == Direction::kBackward;
  const int64_t at = first_row * x.n_cols;
  if (x.is_bf16) {
    (back ? training_.backward_bf16 : training_.forward_bf16)(
        w, begin, end, {static_cast<const uint16_t*>(x.data) + at, n_rows, x.n_cols}, y, scratch);
  } else {
    (back ? training_.backward_f32 : training_.forward_f32)(
        w, begin, end, {static_cast<const float*>(x.data) + at, n_rows, x.n_cols}, y, scratch);
  }
}

bool TrainingDecoder::IsAsServed(const LinearWeights& linear) const {
  return shape_.as_served && Traits(linear.w.type).block_values > 1;
}

bool TrainingDecoder::IsBackwardQ8(const LinearWeights& linear) const {
  return IsAsServed(linear) && linear.w.n_rows % kActivationBlock == 0;
}

// Rows [begin, end) of a gradient, from `values` [end - begin, part.dy->n_cols].
void TrainingDecoder::PutGradient(const Return& part, const float* values, int64_t begin,
                                  int64_t end) const {
  const int64_t n = part.dy->n_cols;
  if (IsBackwardQ8(*part.linear)) {
    const auto all = QuantizedActivations::In(part.quantized, n_live_, n);
    kernels_.quantize_activations(values, n, all.Rows(begin, end));
  }
  for (int64_t row = begin; row < end; ++row) part.dy->Put(row, 0, values + (row - begin) * n, n);
}

TrainingDecoder::Reads TrainingDecoder::ReadsOf(
    absl::Span<const LinearWeights* const> linears) const {
  Reads reads;
  for (const LinearWeights* linear : linears) {
    (IsAsServed(*linear) ? reads.quantized : reads.rounded) = true;
  }
  return reads;
}

// Rows [begin, end) of a product's input, from `values` [end - begin, rows.n_cols].
void TrainingDecoder::PutInput(const Reads& reads, const ActivationRows& rows, const float* values,
                               int64_t begin, int64_t end) const {
  if (reads.quantized) {
    const auto all = QuantizedActivations::In(at_.quantized, n_live_, rows.n_cols);
    kernels_.quantize_activations(values, rows.n_cols, all.Rows(begin, end));
  }
  if (!reads.rounded) return;
  for (int64_t row = begin; row < end; ++row) {
    rows.Put(row, 0, values + (row - begin) * rows.n_cols, rows.n_cols);
  }
}

void TrainingDecoder::MultiplyPiece(const Product& product, int64_t begin, int64_t end,
                                    int worker) const {
  const MatrixView& w = product.linear->w;
  uint8_t* scratch = ProductScratch(worker);
  if (IsAsServed(*product.linear)) {
    kernels_.matmul_q8(w, begin, end, QuantizedActivations::In(at_.quantized, n_live_, w.n_cols),
                       product.y, w.n_rows, scratch);
  } else {
    Multiply(Direction::kForward, w, begin, end, *product.in, 0, n_live_,
             {product.y, w.n_rows, false}, scratch);
  }
  if (const LoraPair* pair = PairOf(product.which)) {
    const float* h = at_.tapes[static_cast<size_t>(layer_)].h[static_cast<int>(product.which)];
    training_.backward_f32(parameters_->Bt(*pair), begin, end, {h, n_live_, pair->rank},
                           {product.y, w.n_rows, true}, scratch);
  }
  for (int64_t row = 0; row < n_live_; ++row) {
    float* y = product.y + row * w.n_rows + begin;
    if (product.linear->bias != nullptr) kernels_.add(product.linear->bias + begin, end - begin, y);
    if (product.plus != nullptr) {
      kernels_.add(product.plus + row * w.n_rows + begin, end - begin, y);
    }
  }
}

std::vector<TrainingDecoder::Job> TrainingDecoder::ProductJobs(
    absl::Span<const Product> products) const {
  std::vector<Job> jobs;
  for (const Product& product : products) {
    const int64_t n_outputs = product.linear->w.n_rows;
    jobs.push_back({(n_outputs + kOutputsPerPiece - 1) / kOutputsPerPiece,
                    [this, product, n_outputs](int64_t piece, int worker) {
                      const int64_t begin = piece * kOutputsPerPiece;
                      MultiplyPiece(product, begin, std::min(n_outputs, begin + kOutputsPerPiece),
                                    worker);
                    }});
  }
  return jobs;
}

// What the adapters add to the gradient of their input. False: nothing, and dx is as it was.
bool TrainingDecoder::ReturnByAdapters(absl::Span<const Return> parts,
                                       const ReturnPiece& piece) const {
  const int64_t n = piece.end_row - piece.first_row;
  ProductOutput y{piece.dx + piece.first_row * piece.n_cols, piece.n_cols, false};
  for (const Return& part : parts) {
    const LoraPair* pair = PairOf(part.which);
    if (pair == nullptr) continue;
    const float* dh = at_.dh[static_cast<int>(part.which)] + piece.first_row * pair->rank;
    training_.backward_f32(parameters_->A(*pair), piece.begin, piece.end, {dh, n, pair->rank}, y,
                           ProductScratch(piece.worker));
    y.add = true;
  }
  if (!y.add || !rows_.dropout.is_on()) return y.add;
  for (int64_t row = piece.first_row; row < piece.end_row; ++row) {
    Drop(parts.front().which, row, piece.begin, piece.end,
         piece.dx + row * piece.n_cols + piece.begin);
  }
  return true;
}

void TrainingDecoder::ReturnByWeights(const Return& part, const ReturnPiece& piece,
                                      bool add) const {
  const MatrixView& w = part.linear->w;
  uint8_t* scratch = ProductScratch(piece.worker);
  const ProductOutput y{piece.dx + piece.first_row * piece.n_cols, piece.n_cols, add};
  if (IsBackwardQ8(*part.linear)) {
    const auto dy = QuantizedActivations::In(part.quantized, n_live_, w.n_rows);
    training_.backward_q8(w, piece.begin, piece.end, dy.Rows(piece.first_row, piece.end_row), y,
                          scratch);
    return;
  }
  Multiply(Direction::kBackward, w, piece.begin, piece.end, *part.dy, piece.first_row,
           piece.end_row - piece.first_row, y, scratch);
}

TrainingDecoder::Job TrainingDecoder::ReturnJob(std::vector<Return> parts, float* dx) const {
  const int64_t n_cols = parts.front().linear->w.n_cols;
  bool has_long_blocks = false;
  for (const Return& part : parts) {
    has_long_blocks |= Traits(part.linear->w.type).block_values > kTrainingAlign;
  }
  const int64_t align = has_long_blocks ? kBlockColumns : kTrainingAlign;
  int64_t cols = std::max(align, kBlockColumns);
  if (n_cols / cols < 4 * pool_.n_workers()) cols = align;
  const int64_t n_slices = (n_cols + cols - 1) / cols;
  const bool split_rows =
      n_slices < 4 * pool_.n_workers() && has_long_blocks && n_live_ >= kRowsWorthSplitting;
  const int64_t n_parts = split_rows ? pool_.n_workers() : 1;
  const int64_t rows = (n_live_ + n_parts - 1) / n_parts;
  return {n_slices * n_parts, [this, parts = std::move(parts), dx, cols, n_cols, n_parts, rows](
                                  int64_t piece, int worker) {
            const int64_t begin = piece / n_parts * cols;
            const int64_t first_row = piece % n_parts * rows;
            const ReturnPiece at{begin,     std::min(n_cols, begin + cols),
                                 first_row, std::min(n_live_, first_row + rows),
                                 dx,        n_cols,
                                 worker};
            bool add = ReturnByAdapters(parts, at);
            for (const Return& part : parts) {
              ReturnByWeights(part, at, add);
              add = true;
            }
          }};
}

// gradient [rank, rows.n_cols] += sum over rows of factors [rank, n_rows] times the row. Factors
// are as Turn leaves them.
TrainingDecoder::Job TrainingDecoder::GradientJob(const MatrixView& rows, const float* factors,
                                                  int64_t rank, float* gradient) {
  const int64_t n_cols = rows.n_cols;
  return {(n_cols + kBlockColumns - 1) / kBlockColumns, [=, this](int64_t piece, int worker) {
            const int64_t begin = piece * kBlockColumns;
            const int64_t end = std::min(n_cols, begin + kBlockColumns);
            const ProductOutput to{gradient, n_cols, true};
            if (shape_.is_bf16) {
              training_.backward_bf16(
                  rows, begin, end, {reinterpret_cast<const uint16_t*>(factors), rank, 2 * n_live_},
                  to, ProductScratch(worker));
            } else {
              training_.backward_f32(rows, begin, end, {factors, rank, n_live_}, to,
                                     ProductScratch(worker));
            }
          }};
}

// to [rank, n_rows] = h [n_rows, rank] turned. In bf16 each row of values stands in the first half
// of its row of floats, with a zero where a last pair has but one.
void TrainingDecoder::Turn(const float* h, int64_t rank, float* to) const {
  training_.transpose(h, n_live_, rank, rank, to, n_live_);
  if (!shape_.is_bf16) return;
  for (int64_t r = 0; r < rank; ++r) {
    uint16_t* narrow = reinterpret_cast<uint16_t*>(to + r * n_live_);
    training_.f32_to_bf16(to + r * n_live_, n_live_, narrow);
    narrow[n_live_] = 0;
  }
}

void TrainingDecoder::AddGradientJobs(LayerLinear which, const MatrixView& input,
                                      const MatrixView& dy, std::vector<Job>& jobs) {
  const LoraPair* pair = PairOf(which);
  if (pair == nullptr) return;
  const int i = static_cast<int>(which);
  float* turned_dh = at_.turned + 2 * i * pair->rank * shape_.n_rows;
  float* turned_h = turned_dh + pair->rank * shape_.n_rows;
  Turn(at_.dh[i], pair->rank, turned_dh);
  Turn(at_.tapes[static_cast<size_t>(layer_)].h[i], pair->rank, turned_h);
  jobs.push_back(GradientJob(input, turned_dh, pair->rank, parameters_->gradient_a(*pair)));
  jobs.push_back(GradientJob(dy, turned_h, pair->rank, parameters_->gradient_bt(*pair)));
}

void TrainingDecoder::Drop(LayerLinear which, int64_t row, int64_t begin, int64_t end,
                           float* x) const {
  // The same mask whether the others are live or not.
  const int64_t of_pass = n_live_ == n_rows_ ? row : rows_.loss_rows[static_cast<size_t>(row)];
  rows_.dropout.Apply(layer_, InputOf(which), of_pass, begin, end, x);
}

void TrainingDecoder::DropRows(LayerLinear which, int64_t begin, int64_t end, int64_t n_cols,
                               float* x) const {
  if (!rows_.dropout.is_on()) return;
  for (int64_t row = begin; row < end; ++row) {
    Drop(which, row, 0, n_cols, x + (row - begin) * n_cols);
  }
}

void TrainingDecoder::Shrink(LayerLinear which, const float* x, int64_t begin, int64_t end,
                             int worker) const {
  const LoraPair* pair = PairOf(which);
  if (pair == nullptr) return;
  float* h = at_.tapes[static_cast<size_t>(layer_)].h[static_cast<int>(which)] + begin * pair->rank;
  training_.forward_f32(parameters_->A(*pair), 0, pair->rank, {x, end - begin, pair->shape.in},
                        {h, pair->rank, false}, ProductScratch(worker));
  for (int64_t i = 0; i < (end - begin) * pair->rank; ++i) h[i] *= parameters_->scale();
}

void TrainingDecoder::ShrinkBackward(LayerLinear which, const float* dy, int64_t begin, int64_t end,
                                     int worker) const {
  const LoraPair* pair = PairOf(which);
  if (pair == nullptr) return;
  float* dh = at_.dh[static_cast<int>(which)] + begin * pair->rank;
  training_.forward_f32(parameters_->Bt(*pair), 0, pair->rank, {dy, end - begin, pair->shape.out},
                        {dh, pair->rank, false}, ProductScratch(worker));
  for (int64_t i = 0; i < (end - begin) * pair->rank; ++i) dh[i] *= parameters_->scale();
}

}  // namespace coterie
