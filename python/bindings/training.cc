// coterie.Trainer, and what Assistant.train takes and gives.

#include "python/bindings/training.h"

#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "pybind11/numpy.h"
#include "pybind11/stl.h"

#include "lora/trainer.h"
#include "python/bindings/gil.h"
#include "python/bindings/native_thread.h"
#include "python/bindings/python_expert.h"

namespace py = pybind11;

namespace coterie {
namespace {

LayerLinear LinearFrom(const std::string& name) {
  for (int i = 0; i < kLayerLinearCount; ++i) {
    if (LayerLinearName(static_cast<LayerLinear>(i)) == name) return static_cast<LayerLinear>(i);
  }
  throw py::value_error(absl::StrCat("there is no linear layer \"", name,
                                     "\"; there are q, k, v, o, gate, up and down"));
}

// Reads the options that are there into what has their defaults.
class OptionReader {
 public:
  explicit OptionReader(const Fields& options) : options_(options) {}

  template <typename T>
  void Read(const char* name, T& value) const {
    if (auto given = Optional<T>(options_, name)) value = *std::move(given);
  }

 private:
  const Fields& options_;
};

TrainerOptions TrainerOptionsFrom(const Fields& fields) {
  const OptionReader reader(fields);
  TrainerOptions options;
  reader.Read("rank", options.rank);
  options.alpha = 2 * static_cast<float>(options.rank);
  reader.Read("alpha", options.alpha);
  reader.Read("rslora", options.rslora);
  reader.Read("dropout", options.dropout);
  reader.Read("top_layers", options.top_layers);
  reader.Read("learning_rate", options.learning_rate);
  reader.Read("warmup_steps", options.warmup_steps);
  reader.Read("total_steps", options.total_steps);
  reader.Read("clip_norm", options.clip_norm);
  reader.Read("weight_decay", options.weight_decay);
  reader.Read("preference_beta", options.preference_beta);
  reader.Read("preference_weight", options.preference_weight);
  reader.Read("seed", options.seed);
  std::string precision = "auto";
  reader.Read("precision", precision);
  options.precision = ValueOrRaise(PrecisionFromName(precision));
  reader.Read("device", options.device);
  std::vector<std::string> targets;
  reader.Read("targets", targets);
  for (const std::string& target : targets) options.targets.push_back(LinearFrom(target));
  return options;
}

// One trainer with a budget of its own, for scripts, tests and parity. Calls must not overlap.
class __attribute__((visibility("hidden"))) PythonTrainer {
 public:
  PythonTrainer(std::shared_ptr<PythonExpert> base, const Fields& options, int64_t max_tokens)
      : base_(std::move(base)) {
    const TrainerOptions trainer_options = TrainerOptionsFrom(options);
    absl::StatusOr<std::unique_ptr<Trainer>> made = absl::UnknownError("");
    {
      GilReleased released;
      made = MakeTrainer(*base_->expert(), pool_, budget_, trainer_options, max_tokens);
    }
    trainer_ = ValueOrRaise(std::move(made));
  }

  using Pair = std::pair<std::vector<TokenId>, std::vector<bool>>;

  static Fields Step(std::shared_ptr<PythonTrainer> self, const std::vector<Pair>& batch) {
    std::vector<TrainingExample> examples;
    for (const Pair& pair : batch) {
      TrainingExample example;
      example.sequence = {pair.first, pair.second};
      examples.push_back(std::move(example));
    }
    const StepReport report = ValueOrRaise(
        CallInterruptibly([self, examples = std::move(examples)](std::stop_token stop) {
          return self->trainer_->Step(examples, std::move(stop));
        }));
    Fields d;
    d["step"] = report.step;
    d["loss"] = report.loss;
    d["gradient_norm"] = report.gradient_norm;
    d["learning_rate"] = report.learning_rate;
    d["tokens"] = report.n_tokens;
    d["target_tokens"] = report.n_target_tokens;
    return d;
  }

  // Of each sequence: summed negative log-likelihood of its targets, and their number.
  static std::vector<std::pair<double, int64_t>> Evaluate(std::shared_ptr<PythonTrainer> self,
                                                          const std::vector<Pair>& pairs,
                                                          bool adapted) {
    std::vector<TrainingSequence> sequences;
    for (const Pair& pair : pairs) sequences.push_back({pair.first, pair.second});
    const auto likelihoods = ValueOrRaise(
        CallInterruptibly([self, sequences = std::move(sequences), adapted](std::stop_token stop) {
          return self->trainer_->Evaluate(sequences, adapted, std::move(stop));
        }));
    std::vector<std::pair<double, int64_t>> out;
    for (const Trainer::Likelihood& one : likelihoods) out.emplace_back(one.nll, one.n_tokens);
    return out;
  }

  // (layer, linear, a [rank, in], b [out, rank]) in Hugging Face's order of rows.
  using Matrix = std::tuple<int64_t, std::string, py::array_t<float>, py::array_t<float>>;
  std::vector<Matrix> Gradients() const { return Matrices(trainer_->Gradients()); }
  std::vector<Matrix> Deltas() const { return Matrices(trainer_->Deltas()); }

  void Load(const PythonAdapter& adapter) {
    RaiseIfError(trainer_->LoadDeltas(ServedDeltas(adapter.adapter, base_->expert()->spec())));
  }

  std::shared_ptr<PythonAdapter> MakeAdapter(const std::string& name) const {
    const Expert& expert = *base_->expert();
    auto made = std::make_shared<PythonAdapter>();
    made->adapter.name = name;
    made->adapter.base = IdentityOf(expert, "", "");
    made->adapter.deltas = DeltasFromServed(trainer_->Deltas(), expert.spec());
    made->spec = expert.spec();
    made->deltas = ValueOrRaise(Serve(made->adapter, expert.spec(), absl::StrCat(name, "@0")));
    return made;
  }

  int64_t memory_bytes() const { return trainer_->memory_bytes(); }
  bool is_bf16() const { return trainer_->is_bf16(); }

 private:
  std::vector<Matrix> Matrices(std::vector<LinearDelta> served) const {
    std::vector<Matrix> out;
    for (const LinearDelta& delta : DeltasFromServed(std::move(served), base_->expert()->spec())) {
      const auto array = [&](const std::vector<float>& values, int64_t n_rows) {
        const int64_t n_cols = static_cast<int64_t>(values.size()) / n_rows;
        return py::array_t<float>({n_rows, n_cols}, values.data());
      };
      out.emplace_back(delta.layer, std::string(LayerLinearName(delta.linear)),
                       array(delta.a, delta.rank),
                       array(delta.b, static_cast<int64_t>(delta.b.size()) / delta.rank));
    }
    return out;
  }

  std::shared_ptr<PythonExpert> base_;
  WorkerPool pool_;
  MemoryBudget budget_{int64_t{1} << 50};  // Charged by nobody else.
  std::unique_ptr<Trainer> trainer_;
};

}  // namespace

TrainingRequest TrainingRequestFrom(const std::string& expert, const Fields& fields) {
  const OptionReader reader(fields);
  TrainingRequest request;
  request.expert = expert;
  request.options = TrainerOptionsFrom(fields);
  request.set.seed = request.options.seed;
  reader.Read("adapter", request.adapter);
  reader.Read("epochs", request.n_epochs);
  reader.Read("batch_examples", request.batch_examples);
  reader.Read("episode_share", request.episode_share);
  reader.Read("replay_share", request.replay_share);
  reader.Read("replay", request.replay);
  reader.Read("largest_forgetting", request.gate.largest_forgetting);
  reader.Read("held_out_share", request.set.held_out_share);
  reader.Read("report_cases", request.n_report_cases);
  reader.Read("max_tokens", request.set.max_tokens);
  return request;
}

Fields TrainingReportFields(const TrainingReport& report) {
  const GateReport& gate = report.result.gate;
  Fields d;
  d["expert"] = report.expert;
  d["adapter"] = report.adapter;
  d["promoted"] = !report.adapter.empty();
  d["verdict"] = gate.verdict;
  d["examples"] = report.n_examples;
  d["held_out"] = report.n_held_out;
  d["gain"] = gate.gain.mean;
  d["gain_interval"] = py::make_tuple(gate.gain.low, gate.gain.high);
  d["held_out_before"] = gate.held_out_before;
  d["held_out_after"] = gate.held_out_after;
  d["forgetting"] = gate.forgetting;
  py::dict compared;
  if (report.compared.n_cases > 0) {
    compared["base"] = report.compared.base;
    compared["base_retrieval"] = report.compared.base_retrieval;
    compared["adapter"] = report.compared.adapter;
    compared["adapter_retrieval"] = report.compared.adapter_retrieval;
  }
  d["compared"] = compared;
  d["compared_cases"] = report.compared.n_cases;
  d["seconds"] = report.result.seconds;
  d["tokens_per_second"] = report.result.tokens_per_second;
  d["memory_bytes"] = report.result.memory_bytes;
  d["served_difference"] = report.result.served_difference;
  std::vector<double> losses;
  for (const StepReport& step : report.result.steps) losses.push_back(step.loss);
  d["losses"] = losses;
  py::list left_out;
  for (const LeftOut& one : report.left_out) left_out.append(py::make_tuple(one.id, one.reason));
  d["left_out"] = left_out;
  return d;
}

Fields TrainingProgressFields(const TrainingProgress& progress) {
  static constexpr const char* kPhases[] = {"measuring", "training", "judging", "paused: memory"};
  Fields d;
  d["phase"] = kPhases[static_cast<int>(progress.phase)];
  d["step"] = progress.step;
  d["steps"] = progress.n_steps;
  d["epoch"] = progress.epoch;
  d["loss"] = progress.loss;
  d["tokens_per_second"] = progress.tokens_per_second;
  d["seconds_left"] = progress.seconds_left;
  d["memory_bytes"] = progress.memory_bytes;
  return d;
}

void BindTraining(py::module_& module) {
  py::class_<PythonTrainer, std::shared_ptr<PythonTrainer>>(
      module, "Trainer",
      "Trains one adapter step by step; coterie.Trainer is the public face. Thread-compatible.")
      .def(py::init<std::shared_ptr<PythonExpert>, const Fields&, int64_t>(), py::arg("base"),
           py::arg("options"), py::arg("max_tokens"))
      .def("step", &PythonTrainer::Step, py::arg("batch"),
           "One optimiser step over (token ids, whether each is a target) pairs. Ctrl-C ends it "
           "and changes nothing.")
      .def("evaluate", &PythonTrainer::Evaluate, py::arg("sequences"), py::arg("adapted") = true,
           "(summed negative log-likelihood in nats, number of targets) of each pair.")
      .def("gradients", &PythonTrainer::Gradients,
           "Of the last step before clipping: (layer, linear, a [rank, in], b [out, rank]).")
      .def("matrices", &PythonTrainer::Deltas, "The adapter's own, in the same form.")
      .def("load", &PythonTrainer::Load, py::arg("adapter"), "Goes on from an adapter.")
      .def("adapter", &PythonTrainer::MakeAdapter, py::arg("name"), "The adapter as it is now.")
      .def_property_readonly("memory_bytes", &PythonTrainer::memory_bytes,
                             "Bytes beside the expert's weights.")
      .def_property_readonly("is_bf16", &PythonTrainer::is_bf16,
                             "Whether products are in bf16, else in f32.");
}

}  // namespace coterie
