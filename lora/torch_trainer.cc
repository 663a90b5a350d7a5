#include "lora/torch_trainer.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "core/base/byte_size.h"
#include "core/base/status_macros.h"
#include "experts/decoder.h"
#include "lora/torch_kernels.h"
#include "lora/trainer_library.h"

#include <ATen/core/grad_mode.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/DeviceGuard.h>

namespace coterie {
namespace {

// What torch and the libraries below it want for themselves: cuBLAS's workspace, rounding.
constexpr int64_t kLibraryBytes = int64_t{96} << 20;

// The status of what torch threw.
absl::Status StatusOf(const std::exception& error, absl::string_view what) {
  const std::string message = absl::StrCat(what, ": ", error.what());
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr) {
    return absl::ResourceExhaustedError(message);
  }
  return absl::InternalError(message);
}

c10::DeviceAllocator* AllocatorOf(const at::Device& device) {
  return dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(device.type()));
}

absl::StatusOr<at::Device> DeviceOf(const std::string& name) {
  if (name == "torch:cpu") return at::Device(at::kCPU);
  absl::string_view rest = name;
  absl::ConsumePrefix(&rest, "cuda");
  if (!at::hasCUDA()) {
    return absl::UnimplementedError(absl::StrCat(
        "the PyTorch that libcoterie_train uses sees no GPU: device=", name, "; train on the CPU"));
  }
  const at::Device device(rest.empty() ? "cuda:0" : name);
  const auto* const guard = c10::impl::getDeviceGuardImpl(device.type());
  if (device.index() >= guard->deviceCount()) {
    return absl::InvalidArgumentError(
        absl::StrCat("there is no such GPU: device=", name, ", GPUs=", guard->deviceCount()));
  }
  return device;
}

// Bytes of the device that torch may still take, what it holds unused included.
absl::StatusOr<int64_t> FreeBytes(const at::Device& device) {
  at::empty({1}, at::TensorOptions(device));  // The driver answers once there is a context.
  COTERIE_ASSIGN_OR_RETURN(const TorchKernels::Memory memory, TorchKernels::DeviceMemory());
  int64_t free = static_cast<int64_t>(memory.free);
  if (c10::DeviceAllocator* allocator = AllocatorOf(device)) {
    const auto stats = allocator->getDeviceStats(device.index());
    free += stats.reserved_bytes[0].current - stats.allocated_bytes[0].current;
  }
  return free;
}

// Chooses the least recomputation that the device has room for. Returns the bytes it will take.
absl::StatusOr<int64_t> ChooseShape(const ArchSpec& spec, const DecoderWeights& weights,
                                    const TrainerOptions& options, const LoraPlan& plan,
                                    const at::Device& device, TorchDecoderShape& shape) {
  const int64_t fixed = TorchWeights::DeviceBytes(spec, weights, plan, shape.value_bytes()) +
                        plan.n_values() * 4 * static_cast<int64_t>(sizeof(float));
  int64_t free = -1;
  if (device.is_cuda()) {
    COTERIE_ASSIGN_OR_RETURN(free, FreeBytes(device));
  }
  int64_t needed = 0;
  for (const Recompute recompute : {Recompute::kNone, Recompute::kPartial, Recompute::kFull}) {
    if (options.recompute && *options.recompute != recompute) continue;
    shape.recompute = recompute;
    needed = fixed + TorchDecoder::DeviceBytes(spec, plan, shape);
    if (free < 0 || needed + kLibraryBytes <= free) return needed;
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("training does not fit the GPU: it needs ", FormatBytes(needed + kLibraryBytes),
                   " for passes of ", shape.max_tokens, " tokens, and ", FormatBytes(free),
                   " are free: device=", options.device));
}

}  // namespace

TorchTrainer::TorchTrainer(const ArchSpec& spec, const DecoderWeights& weights, WorkerPool& pool,
                           const TrainerOptions& options, const LoraPlan& plan,
                           const TorchDecoderShape& shape, const at::Device& device,
                           int64_t planned_bytes, Reservation reservation)
    : LoraTrainer(spec, options, plan, shape.max_tokens),
      spec_(spec),
      decoder_weights_(weights),
      shape_(shape),
      device_(device),
      planned_bytes_(planned_bytes),
      reservation_(std::move(reservation)),
      ops_(device, shape.is_bf16, spec),
      weights_(TorchWeights::From(spec, weights, this->plan(), pool, device,
                                  shape.is_bf16 ? at::kBFloat16 : at::kFloat)),
      decoder_(spec, this->plan(), weights_, ops_, shape, device) {
  for (at::Tensor& array : arrays_) {
    array = at::zeros({plan.n_values()}, at::TensorOptions(at::kFloat).device(device));
  }
  ops_.SetPlaces(weights_.places);
  Write(Array::kValues, plan.InitialValues(options.seed));
}

absl::StatusOr<std::unique_ptr<Trainer>> TorchTrainer::Make(const ArchSpec& spec,
                                                            const DecoderWeights& weights,
                                                            WorkerPool& pool, MemoryBudget& budget,
                                                            const TrainerOptions& options,
                                                            int64_t max_tokens) {
  COTERIE_RETURN_IF_ERROR(CheckOptions(spec, options, max_tokens));
  try {
    COTERIE_ASSIGN_OR_RETURN(const at::Device device, DeviceOf(options.device));
    const c10::OptionalDeviceGuard guard(device);
    const at::NoGradGuard no_graph;
    const LoraPlan plan(spec, options);
    TorchDecoderShape shape;
    shape.max_tokens = max_tokens;
    shape.drops = options.dropout > 0;
    shape.is_bf16 = options.precision == TrainingPrecision::kBF16 ||
                    (options.precision == TrainingPrecision::kAuto && device.is_cuda());
    COTERIE_ASSIGN_OR_RETURN(const int64_t bytes,
                             ChooseShape(spec, weights, options, plan, device, shape));
    if (device.is_cuda()) AllocatorOf(device)->resetPeakStats(device.index());
    const int64_t ram = TorchWeights::kStagingBytes +
                        2 * plan.n_values() * static_cast<int64_t>(sizeof(float)) +
                        (device.is_cuda() ? 0 : bytes);
    COTERIE_ASSIGN_OR_RETURN(Reservation reservation, budget.Reserve(Purpose::kTraining, ram));
    return std::unique_ptr<Trainer>(new TorchTrainer(spec, weights, pool, options, plan, shape,
                                                     device, bytes, std::move(reservation)));
  } catch (const std::exception& error) {
    return StatusOf(error, "cannot prepare training");
  }
}

int64_t TorchTrainer::memory_bytes() const {
  if (device_.is_cuda()) {
    return AllocatorOf(device_)->getDeviceStats(device_.index()).allocated_bytes[0].peak;
  }
  return planned_bytes_;
}

// Products of other extents add up in another order.
double TorchTrainer::LikelihoodTolerance() const { return shape_.is_bf16 ? 5e-3 : 1e-5; }

absl::Status TorchTrainer::Guarded(absl::FunctionRef<void()> body) const {
  try {
    const c10::OptionalDeviceGuard guard(device_);
    const at::NoGradGuard no_graph;
    body();
    return absl::OkStatus();
  } catch (const std::exception& error) {
    return StatusOf(error, "training failed on its device");
  }
}

absl::StatusOr<std::vector<float>> TorchTrainer::Forward(const TrainingRows& rows, PassKind kind,
                                                         const std::stop_token& stop) {
  std::vector<float> likelihoods;
  bool done = false;
  COTERIE_RETURN_IF_ERROR(Guarded([&] {
    decoder_.Begin(rows, kind != PassKind::kBase, kind == PassKind::kLearning);
    done = RunDecoder(spec_, decoder_weights_, decoder_, stop);
    if (!done) return;
    const at::Tensor nll = decoder_.nll().cpu();
    likelihoods.assign(nll.data_ptr<float>(), nll.data_ptr<float>() + nll.numel());
  }));
  if (!done) return absl::CancelledError("training was stopped");
  return likelihoods;
}

absl::Status TorchTrainer::Backward(absl::Span<const float> weights, const std::stop_token& stop) {
  bool done = false;
  COTERIE_RETURN_IF_ERROR(Guarded([&] {
    decoder_.WeighLoss(weights, Held(Array::kGradients));
    done = RunDecoderBackward(spec_, decoder_weights_, decoder_, stop, plan().first_layer());
  }));
  return done ? absl::OkStatus() : absl::CancelledError("training was stopped");
}

absl::Status TorchTrainer::ClearGradients() {
  return Guarded([&] { Held(Array::kGradients).zero_(); });
}

absl::StatusOr<double> TorchTrainer::GradientNorm() const {
  double norm = 0;
  COTERIE_RETURN_IF_ERROR(Guarded([&] { norm = Held(Array::kGradients).norm().item<double>(); }));
  return norm;
}

absl::Status TorchTrainer::Update(const AdamStep& step) {
  return Guarded([&] {
    const TrainerOptions& o = options();
    const at::Tensor& g = Held(Array::kGradients);
    const at::Tensor& m = Held(Array::kFirstMoments);
    const at::Tensor& v = Held(Array::kSecondMoments);
    const at::Tensor& values = Held(Array::kValues);
    if (o.weight_decay != 0) values.mul_(1 - step.rate * o.weight_decay);
    m.mul_(o.beta1).add_(g, (1 - o.beta1) * step.clip);
    v.mul_(o.beta2).addcmul_(g, g, (1 - o.beta2) * step.clip * step.clip);
    const at::Tensor root = (v * step.correction2).sqrt_().add_(o.epsilon);
    values.addcdiv_(m, root, -step.rate * step.correction1);
    PlaceAdapter();
  });
}

std::vector<float> TorchTrainer::Read(Array array) const {
  const at::Tensor held = Held(array).cpu();
  const float* values = held.data_ptr<float>();
  return std::vector<float>(values, values + held.numel());
}

void TorchTrainer::Write(Array array, std::vector<float> values) {
  const c10::OptionalDeviceGuard guard(device_);
  const at::NoGradGuard no_graph;
  Held(array).copy_(at::from_blob(values.data(), {plan().n_values()}, at::kFloat));
  if (array == Array::kValues) PlaceAdapter();
}

}  // namespace coterie

extern "C" {

__attribute__((visibility("default"))) int64_t coterie_train_version() {
  return coterie::kTrainerLibraryVersion;
}

__attribute__((visibility("default"))) void coterie_train_make(
    const coterie::TrainerLibraryArguments& arguments,
    absl::StatusOr<std::unique_ptr<coterie::Trainer>>* trainer) {
  *trainer =
      coterie::TorchTrainer::Make(*arguments.spec, *arguments.weights, *arguments.pool,
                                  *arguments.budget, *arguments.options, arguments.max_tokens);
}
}
