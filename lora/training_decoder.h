#pragma once

// The back end of experts/decoder.h that training walks, forward and backward, on the CPU: products
// with the served weights in place, the adapter's matrices beside them, and what the backward pass
// needs kept on a tape.

#include <cstdint>
#include <functional>
#include <optional>
#include <stop_token>
#include <vector>

#include "absl/types/span.h"

#include "core/kernels/kernels.h"
#include "core/kernels/training_kernels.h"
#include "core/threads/worker_pool.h"
#include "experts/arch_spec.h"
#include "experts/decoder_weights.h"
#include "lora/lora_parameters.h"
#include "lora/training_memory.h"
#include "lora/training_rows.h"

namespace coterie {

// One pass over some rows. The operations are called by RunDecoder and RunDecoderBackward in order;
// once `stop` was requested they do nothing. The layout has room for the rows.
class TrainingDecoder {
 public:
  // parameters: null for a pass of the base alone.
  TrainingDecoder(const ArchSpec& spec, const TrainingRows& rows, const TrainingLayout& layout,
                  const TrainingShape& shape, LoraParameters* parameters, WorkerPool& pool,
                  const std::stop_token& stop);

  void Embed(const MatrixView& embedding);
  void NormQkvRopeAppend(int64_t layer, const LayerWeights& w);
  void Attend(int64_t layer);
  void ProjectResidual(int64_t layer, const LayerWeights& w);
  void NormGateUpActivate(int64_t layer, const LayerWeights& w);
  void DownResidual(int64_t layer, const LayerWeights& w);
  // Negative log-likelihoods of the loss rows and, in layout.hidden [n_loss_rows, d_model], the
  // gradient of each with respect to the stream.
  void NormHead(const float* norm, const LinearWeights& head);

  // Between the passes: the gradient of the loss is what NormHead found times each row's weight.
  void WeighLoss(absl::Span<const float> weights);  // [n_loss_rows]

  void BeginBackward(int64_t layer, const LayerWeights& w);
  void BackwardDownResidual(int64_t layer, const LayerWeights& w);
  void BackwardNormGateUpActivate(int64_t layer, const LayerWeights& w);
  void BackwardProjectResidual(int64_t layer, const LayerWeights& w);
  void BackwardAttend(int64_t layer);
  void BackwardNormQkvRope(int64_t layer, const LayerWeights& w);

  const std::vector<float>& nll() const { return nll_; }  // [n_loss_rows]
  bool stopped() const { return stopped_; }

 private:
  // A phase is jobs whose pieces run in any order on all workers.
  struct Job {
    int64_t n_pieces = 0;
    std::function<void(int64_t piece, int worker)> body;
  };
  // One product y = W in + bias, with the adapter's part, and `plus` where there is one. `in` is
  // not read, but at_.quantized, where the product runs as served.
  struct Product {
    const LinearWeights* linear = nullptr;
    LayerLinear which = LayerLinear::kQ;
    const ActivationRows* in = nullptr;
    float* y = nullptr;           // [n_rows, out]
    const float* plus = nullptr;  // [n_rows, out]
  };
  // Which roundings of an input its products read.
  struct Reads {
    bool rounded = false;
    bool quantized = false;
  };
  // What one linear layer passes on: its part of dx from the gradient of its output. Those that are
  // passed on together read the same input.
  struct Return {
    const LinearWeights* linear = nullptr;
    LayerLinear which = LayerLinear::kQ;
    const ActivationRows* dy = nullptr;
    uint8_t* quantized = nullptr;  // dy rounded to 8 bits, read instead where IsBackwardQ8.
  };
  // A part of the gradient of an input.
  struct ReturnPiece {
    int64_t begin, end;  // Columns.
    int64_t first_row, end_row;
    float* dx;  // [n_rows, n_cols], all of it.
    int64_t n_cols;
    int worker;
  };
  // Columns of a piece of a backward product: whole blocks of every type.
  static constexpr int64_t kBlockColumns = 256;
  enum class Direction : uint8_t { kForward, kBackward };

  // Past the last attention only the rows in the loss go on, one after another: nothing comes of
  // the others.
  bool IsCut(int64_t layer) const;
  void Begin(int64_t layer, bool past_attention);
  void GatherLossRows(const float* from, float* to) const;
  void SpreadLossRows(float* values, int64_t n_cols) const;
  ActivationRows Attended(const LayerTape& tape, bool for_gradient) const;

  const LoraPair* PairOf(LayerLinear which) const;
  uint8_t* ProductScratch(int worker) const { return at_.workers + worker * at_.worker_bytes; }
  float* RowScratch(int worker) const;

  void Run(std::vector<Job> jobs);
  void ForRows(const std::function<void(int64_t begin, int64_t end, int worker)>& body);
  std::vector<Job> ProductJobs(absl::Span<const Product> products) const;
  void Multiply(Direction direction, const MatrixView& w, int64_t begin, int64_t end,
                const ActivationRows& x, int64_t first_row, int64_t n_rows, const ProductOutput& y,
                uint8_t* scratch) const;
  bool IsAsServed(const LinearWeights& linear) const;
  bool IsBackwardQ8(const LinearWeights& linear) const;
  void PutGradient(const Return& part, const float* values, int64_t begin, int64_t end) const;
  Reads ReadsOf(absl::Span<const LinearWeights* const> linears) const;
  void PutInput(const Reads& reads, const ActivationRows& rows, const float* values, int64_t begin,
                int64_t end) const;
  void MultiplyPiece(const Product& product, int64_t begin, int64_t end, int worker) const;
  bool ReturnByAdapters(absl::Span<const Return> parts, const ReturnPiece& piece) const;
  void ReturnByWeights(const Return& part, const ReturnPiece& piece, bool add) const;
  Job ReturnJob(std::vector<Return> parts, float* dx) const;
  void AddGradientJobs(LayerLinear which, const MatrixView& input, const MatrixView& dy,
                       std::vector<Job>& jobs);
  Job GradientJob(const MatrixView& rows, const float* factors, int64_t rank, float* gradient);

  // Drops of values [begin, end) of a row what adapters of `which` shall not read.
  void Drop(LayerLinear which, int64_t row, int64_t begin, int64_t end, float* x) const;
  void DropRows(LayerLinear which, int64_t begin, int64_t end, int64_t n_cols, float* x) const;

  void Turn(const float* h, int64_t rank, float* to) const;

  // h = scale * A x of rows [begin, end), and the like of gradients: dh = scale * B^T dy.
  void Shrink(LayerLinear which, const float* x, int64_t begin, int64_t end, int worker) const;
  void ShrinkBackward(LayerLinear which, const float* dy, int64_t begin, int64_t end,
                      int worker) const;
  void NormInto(const float* norm, const float* x, absl::Span<const LinearWeights* const> linears,
                absl::Span<const LayerLinear> targets);
  void PutAttended(const LayerTape& tape, const LinearWeights& o, bool for_gradient);
  void AddToStream(const LinearWeights& linear, const float* norm, LayerLinear which,
                   const ActivationRows& in, const float* from, float* raw, float* to);
  void BackwardResidual(const LinearWeights& linear, const float* norm, LayerLinear which,
                        const ActivationRows& in, const float* raw, float* d_in);
  void NormBackward(const float* norm, const float* x, const float* dy);
  void ComputeRotations(const RopeAngles& angles, float* cos, float* sin) const;
  void PrepareHeads(const ActivationRows& raw, const ActivationRows& to, const float* norm,
                    int64_t n_heads, float* values, int64_t row, float* buffer) const;
  void BackwardHeads(const ActivationRows& raw, const float* norm, int64_t n_heads, float* d,
                     int64_t row, float* buffer) const;
  void Rotate(float* head, int64_t row, bool back) const;
  // Of the rows of a chunk: as bf16 or f32, or, where the head's backward product is one of 8-bit
  // operands, quantized.
  struct LogitGradients {
    ActivationRows rows;
    std::optional<QuantizedActivations> quantized;
  };
  LogitGradients GradientsInPlace(const LinearWeights& head, int64_t n) const;
  void PutLogitGradient(const LogitGradients& gradients, int64_t i, float* buffer) const;
  void HeadChunk(const float* norm, const LinearWeights& head, int64_t first, int64_t n);

  const ArchSpec& spec_;
  const KernelTable& kernels_ = Kernels();
  const TrainingKernelTable& training_ = TrainingKernels();
  const TrainingRows& rows_;
  const TrainingLayout& at_;
  const TrainingShape& shape_;
  LoraParameters* const parameters_;
  WorkerPool& pool_;
  const std::stop_token& stop_;
  const int64_t n_rows_;
  int64_t n_live_;  // Rows of the operation at hand: all, or where IsCut those in the loss.
  int64_t layer_ = 0;
  bool stopped_ = false;
  std::vector<float> nll_;
};

}  // namespace coterie
