// coterie.Router: which domain a prompt belongs to.

#include "router/router.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "pybind11/stl.h"

#include "core/threads/worker_pool.h"
#include "python/bindings/bindings.h"
#include "runtime/default_router.h"

namespace py = pybind11;

namespace coterie {
namespace {

using RowList = std::vector<std::pair<std::string, std::string>>;

std::vector<LabelledPrompt> PromptsFrom(const RowList& rows) {
  std::vector<LabelledPrompt> prompts;
  for (const auto& [text, label] : rows) prompts.push_back({text, label, ""});
  return prompts;
}

// A router with the pool its encoder runs on; the pool outlives every version that shares it.
class PythonRouter {
 public:
  static std::unique_ptr<PythonRouter> Load(const std::string& path) {
    auto pool = std::make_shared<WorkerPool>();
    absl::StatusOr<std::unique_ptr<const Router>> router;
    {
      py::gil_scoped_release release;
      router = Router::Load(path, pool.get());
    }
    return Wrap(std::move(pool), ValueOrRaise(std::move(router)));
  }

  static std::unique_ptr<PythonRouter> Fit(const RowList& rows) {
    const std::vector<LabelledPrompt> prompts = PromptsFrom(rows);
    absl::StatusOr<std::unique_ptr<const Router>> router;
    {
      py::gil_scoped_release release;
      router = Router::Fit(prompts);
    }
    return Wrap(nullptr, ValueOrRaise(std::move(router)));
  }

  py::dict Classify(const py::str& prompt) const {
    const std::string text = Utf8From(prompt);
    absl::StatusOr<DomainScores> scores;
    {
      py::gil_scoped_release release;
      scores = router_->Classify(text);
    }
    const DomainScores found = ValueOrRaise(std::move(scores));
    py::dict d;
    d["domain"] = std::string(found.domain());
    py::dict probabilities;
    for (const Score& score : found.ranked) {
      probabilities[py::str(score.domain)] = score.probability;
    }
    d["probabilities"] = probabilities;
    d["abstained"] = found.abstained;
    py::list features;
    for (const DecidingFeature& feature : found.why.features) {
      features.append(py::make_tuple(TextFrom(feature.text), feature.weight));
    }
    py::dict explanation;
    explanation["summary"] = found.why.summary;
    explanation["tier"] = found.why.tier;
    explanation["margin"] = found.why.margin;
    explanation["features"] = features;
    d["explanation"] = explanation;
    d["router_version"] = found.router_version;
    return d;
  }

  std::unique_ptr<PythonRouter> Correct(const std::string& text, const std::string& label) const {
    absl::StatusOr<std::unique_ptr<const Router>> router;
    {
      py::gil_scoped_release release;
      router = router_->Correct(text, label);
    }
    return Wrap(pool_, ValueOrRaise(std::move(router)));
  }

  void Save(const std::string& path) const {
    absl::Status status;
    {
      py::gil_scoped_release release;
      status = router_->Save(path);
    }
    RaiseIfError(status);
  }

  py::dict EvaluateRows(const RowList& rows) const {
    const std::vector<LabelledPrompt> prompts = PromptsFrom(rows);
    absl::StatusOr<Evaluation> evaluation;
    {
      py::gil_scoped_release release;
      evaluation = router_->Evaluate(prompts);
    }
    const Evaluation found = ValueOrRaise(std::move(evaluation));
    py::dict d;
    d["n"] = found.n;
    d["accuracy"] = found.accuracy;
    d["macro_f1"] = found.macro_f1;
    d["wrong_expert_rate"] = found.wrong_expert_rate;
    d["ece"] = found.ece;
    d["abstained_rate"] = found.abstained_rate;
    d["recall_by_label"] = found.recall_by_label;
    return d;
  }

  const Router& router() const { return *router_; }

 private:
  static std::unique_ptr<PythonRouter> Wrap(std::shared_ptr<WorkerPool> pool,
                                            std::unique_ptr<const Router> router) {
    auto wrapped = std::make_unique<PythonRouter>();
    wrapped->pool_ = std::move(pool);
    wrapped->router_ = std::move(router);
    return wrapped;
  }

  std::shared_ptr<WorkerPool> pool_;
  std::unique_ptr<const Router> router_;
};

}  // namespace

void BindRouter(py::module_& module) {
  module.def("default_router_path", [] { return ValueOrRaise(DefaultRouterPath()); });
  py::class_<PythonRouter>(module, "Router")
      .def_static("load", &PythonRouter::Load, py::arg("path"))
      .def_static("fit", &PythonRouter::Fit, py::arg("rows"))
      .def("classify", &PythonRouter::Classify, py::arg("text"))
      .def("correct", &PythonRouter::Correct, py::arg("text"), py::arg("label"))
      .def("save", &PythonRouter::Save, py::arg("path"))
      .def("evaluate", &PythonRouter::EvaluateRows, py::arg("rows"))
      .def_property_readonly("domains", [](const PythonRouter& r) { return r.router().domains(); })
      .def_property_readonly("tier",
                             [](const PythonRouter& r) { return std::string(r.router().tier()); })
      .def_property_readonly("version", [](const PythonRouter& r) { return r.router().version(); });
}

}  // namespace coterie
