// coterie.Router: which domain a prompt belongs to.

#include "router/router.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "pybind11/stl.h"

#include "core/threads/worker_pool.h"
#include "python/bindings/bindings.h"
#include "python/bindings/gil.h"
#include "python/bindings/native_thread.h"
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

Fields FieldsOf(const DomainScores& found) {
  Fields d;
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
  py::list nearest;
  for (const NearestExample& example : found.why.nearest) {
    nearest.append(py::make_tuple(TextFrom(example.text), example.domain, example.cosine));
  }
  py::dict explanation;
  explanation["summary"] = found.why.summary;
  explanation["tier"] = found.why.tier;
  explanation["margin"] = found.why.margin;
  explanation["features"] = features;
  explanation["nearest"] = nearest;
  d["explanation"] = explanation;
  d["router_version"] = found.router_version;
  return d;
}

// A router with the pool its encoder runs on; the pool outlives every version that shares it.
class PythonRouter {
 public:
  static std::shared_ptr<PythonRouter> Load(const std::string& path) {
    auto pool = std::make_shared<WorkerPool>();
    auto router =
        CallInterruptibly([path, pool](std::stop_token) { return Router::Load(path, pool.get()); });
    return Wrap(std::move(pool), ValueOrRaise(std::move(router)));
  }

  static std::shared_ptr<PythonRouter> Fit(const RowList& rows) {
    auto router = CallInterruptibly(
        [prompts = PromptsFrom(rows)](std::stop_token) { return Router::Fit(prompts); });
    return Wrap(nullptr, ValueOrRaise(std::move(router)));
  }

  Fields Classify(const py::str& prompt) const {
    const std::string text = Utf8From(prompt);
    absl::StatusOr<DomainScores> scores;
    {
      GilReleased released;
      scores = router_->Classify(text);
    }
    return FieldsOf(ValueOrRaise(std::move(scores)));
  }

  Fields Explain(const py::str& prompt) const {
    auto scores = CallInterruptibly([pool = pool_, router = router_, text = Utf8From(prompt)](
                                        std::stop_token) { return router->Explain(text); });
    return FieldsOf(ValueOrRaise(std::move(scores)));
  }

  std::shared_ptr<PythonRouter> AddDomain(const std::string& name,
                                          const std::vector<std::string>& examples) const {
    auto router =
        CallInterruptibly([pool = pool_, router = router_, name, examples](std::stop_token) {
          return router->AddDomain(name, examples);
        });
    return Wrap(pool_, ValueOrRaise(std::move(router)));
  }

  std::shared_ptr<PythonRouter> WithExamples(const RowList& rows) const {
    auto router = CallInterruptibly([pool = pool_, router = router_, prompts = PromptsFrom(rows)](
                                        std::stop_token) { return router->WithExamples(prompts); });
    return Wrap(pool_, ValueOrRaise(std::move(router)));
  }

  std::shared_ptr<PythonRouter> Correct(const std::string& text, const std::string& label) const {
    auto router = CallInterruptibly([pool = pool_, router = router_, text, label](std::stop_token) {
      return router->Correct(text, label);
    });
    return Wrap(pool_, ValueOrRaise(std::move(router)));
  }

  void Save(const std::string& path) const {
    absl::Status status;
    {
      GilReleased released;
      status = router_->Save(path);
    }
    RaiseIfError(status);
  }

  Fields EvaluateRows(const RowList& rows) const {
    const Evaluation found = ValueOrRaise(
        CallInterruptibly([pool = pool_, router = router_, prompts = PromptsFrom(rows)](
                              std::stop_token) { return router->Evaluate(prompts); }));
    Fields d;
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
  static std::shared_ptr<PythonRouter> Wrap(std::shared_ptr<WorkerPool> pool,
                                            std::unique_ptr<const Router> router) {
    auto wrapped = std::make_unique<PythonRouter>();
    wrapped->pool_ = std::move(pool);
    wrapped->router_ = std::move(router);
    return OwnedByPython(std::move(wrapped));
  }

  std::shared_ptr<WorkerPool> pool_;
  std::shared_ptr<const Router> router_;
};

}  // namespace

void BindRouter(py::module_& module) {
  module.def(
      "default_router_path", [] { return ValueOrRaise(DefaultRouterPath()); },
      "The file of the router that ships, or $COTERIE_ROUTER.");
  py::class_<PythonRouter, std::shared_ptr<PythonRouter>>(
      module, "Router", "A classifier of prompts; coterie.Router is the public face.")
      .def_static("load", &PythonRouter::Load, py::arg("path"), "Opens a router file.")
      .def_static("fit", &PythonRouter::Fit, py::arg("rows"), "Fits to (text, label) rows.")
      .def("classify", &PythonRouter::Classify, py::arg("text"),
           "The fields of coterie.DomainScores.")
      .def("explain", &PythonRouter::Explain, py::arg("text"),
           "The same, with what decided and the nearest examples.")
      .def("add_domain", &PythonRouter::AddDomain, py::arg("name"), py::arg("examples"),
           "A router that knows one more domain.")
      .def("with_examples", &PythonRouter::WithExamples, py::arg("rows"),
           "A router with these (text, label) rows as its examples.")
      .def("correct", &PythonRouter::Correct, py::arg("text"), py::arg("label"),
           "A router that gives this text its label from now on.")
      .def("save", &PythonRouter::Save, py::arg("path"), "Writes one file, atomically.")
      .def("evaluate", &PythonRouter::EvaluateRows, py::arg("rows"),
           "Measures it on (text, label) rows.")
      .def_property_readonly(
          "domains", [](const PythonRouter& r) { return r.router().domains(); }, "The labels.")
      .def_property_readonly(
          "tier", [](const PythonRouter& r) { return std::string(r.router().tier()); },
          "'encoder' or 'lexical'.")
      .def_property_readonly(
          "version", [](const PythonRouter& r) { return r.router().version(); },
          "Of the fitted model, and the number of corrections.");
}

}  // namespace coterie
