// coterie.Adapter and the store of adapters.

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "pybind11/stl.h"

#include "lora/adapter_files.h"
#include "lora/adapter_store.h"
#include "lora/merged_model.h"
#include "python/bindings/bindings.h"
#include "python/bindings/gil.h"
#include "python/bindings/python_expert.h"

namespace py = pybind11;

namespace coterie {
namespace {

using AdapterPointer = std::shared_ptr<PythonAdapter>;

// Binds an adapter to a base and makes what passes apply.
absl::StatusOr<AdapterPointer> MakeServable(Adapter adapter, const Expert& expert,
                                            const BaseIdentity& base, const std::string& label) {
  auto made = std::make_shared<PythonAdapter>();
  absl::StatusOr<std::string> warning = Bind(adapter, expert.spec(), base);
  if (!warning.ok()) return warning.status();
  absl::StatusOr<DeltaSnapshot> deltas = Serve(adapter, expert.spec(), label);
  if (!deltas.ok()) return deltas.status();
  made->adapter = std::move(adapter);
  made->spec = expert.spec();
  made->deltas = *std::move(deltas);
  made->warning = *std::move(warning);
  return made;
}

AdapterPointer OpenAdapter(const std::string& path, const PythonExpert& base,
                           const std::string& base_id, const std::string& base_name) {
  absl::StatusOr<AdapterPointer> made;
  {
    GilReleased released;
    const Expert& expert = *base.expert();
    absl::StatusOr<Adapter> adapter = ReadAdapter(path, expert.spec());
    made = adapter.ok() ? MakeServable(*std::move(adapter), expert,
                                       IdentityOf(expert, base_id, base_name), path)
                        : absl::StatusOr<AdapterPointer>(adapter.status());
  }
  return ValueOrRaise(std::move(made));
}

AdapterPointer LoadAdapter(const AdapterStore& store, const std::string& name,
                           const PythonExpert& base, std::optional<int64_t> version) {
  absl::StatusOr<AdapterPointer> made;
  {
    GilReleased released;
    const Expert& expert = *base.expert();
    absl::StatusOr<StoredAdapter> stored =
        version ? store.Load(name, *version) : store.Current(name);
    made = stored.ok()
               ? MakeServable(stored->adapter, expert, IdentityOf(expert, "", ""), stored->label())
               : absl::StatusOr<AdapterPointer>(stored.status());
    if (made.ok() && !stored->problem.empty()) (*made)->warning = stored->problem;
  }
  return ValueOrRaise(std::move(made));
}

Fields IdentityFields(const BaseIdentity& base) {
  Fields d;
  d["id"] = base.id;
  d["name"] = TextFrom(base.name);
  d["architecture"] = TextFrom(base.architecture);
  d["tokenizer"] = base.tokenizer;
  d["chat_template"] = base.chat_template;
  return d;
}

Fields DescribeAdapter(const Adapter& adapter) {
  Fields d;
  d["name"] = adapter.name;
  d["base"] = IdentityFields(adapter.base);
  std::set<int64_t> layers, ranks;
  std::set<std::string> linears;
  int64_t n_parameters = 0;
  for (const LinearDelta& delta : adapter.deltas) {
    layers.insert(delta.layer);
    ranks.insert(delta.rank);
    linears.emplace(LayerLinearName(delta.linear));
    n_parameters += static_cast<int64_t>(delta.a.size() + delta.b.size());
  }
  d["layers"] = std::vector<int64_t>(layers.begin(), layers.end());
  d["ranks"] = std::vector<int64_t>(ranks.begin(), ranks.end());
  d["linears"] = std::vector<std::string>(linears.begin(), linears.end());
  d["parameters"] = n_parameters;
  d["served_bytes"] = n_parameters * static_cast<int64_t>(sizeof(uint16_t));
  d["rslora"] = adapter.rslora;
  return d;
}

void Save(const PythonAdapter& adapter, const std::string& path, const std::string& format) {
  absl::Status status;
  {
    GilReleased released;
    status = format == "peft" ? WritePeftAdapter(adapter.adapter, path)
             : format == "gguf"
                 ? WriteGgufAdapter(adapter.adapter, adapter.spec, path)
                 : absl::InvalidArgumentError("a format is 'peft' or 'gguf', not '" + format + "'");
  }
  RaiseIfError(status);
}

void Merge(const PythonAdapter& adapter, const std::string& path, const PythonExpert& base,
           const std::string& format, const std::string& type) {
  absl::Status status;
  {
    GilReleased released;
    const absl::StatusOr<TensorType> wanted = ParseMergedType(type);
    const ModelFiles& files = base.expert()->files();
    status = !wanted.ok() ? wanted.status()
             : format == "gguf"
                 ? WriteMergedGguf(adapter.adapter, files, adapter.spec, *wanted, path)
                 : WriteMergedHuggingFace(adapter.adapter, files, adapter.spec, *wanted, path);
  }
  RaiseIfError(status);
}

int64_t Publish(AdapterStore& store, const PythonAdapter& adapter, const std::string& name,
                const std::string& metrics) {
  absl::StatusOr<int64_t> version;
  {
    GilReleased released;
    Adapter named = adapter.adapter;
    named.name = name;
    version = store.Publish(named, {{}, "", metrics});
  }
  return ValueOrRaise(std::move(version));
}

std::vector<Fields> ListAdapters(const AdapterStore& store) {
  std::vector<Fields> adapters;
  for (const AdapterSummary& summary : ValueOrRaise(store.List())) {
    Fields d;
    d["name"] = TextFrom(summary.name);
    d["current"] = summary.current;
    d["base"] = IdentityFields(summary.base);
    py::list versions;
    for (const AdapterVersionSummary& version : summary.versions) {
      Fields row;
      row["version"] = version.version;
      row["file_bytes"] = version.file_bytes;
      row["interactions"] = version.n_interactions;
      row["problem"] = TextFrom(version.problem);
      row["path"] = store.FolderOf(summary.name, version.version);
      versions.append(row);
    }
    d["versions"] = versions;
    adapters.push_back(std::move(d));
  }
  return adapters;
}

Fields ShowAdapter(const AdapterStore& store, const std::string& name,
                   std::optional<int64_t> version) {
  const StoredAdapter stored =
      ValueOrRaise(version ? store.Load(name, *version) : store.Current(name));
  Fields d = DescribeAdapter(stored.adapter);
  d["version"] = stored.version;
  d["path"] = store.FolderOf(name, stored.version);
  d["interactions"] = stored.ledger.interactions;
  d["trainer"] = TextFrom(stored.ledger.trainer);
  d["metrics"] = TextFrom(stored.ledger.metrics);
  d["problem"] = TextFrom(stored.problem);
  return d;
}

}  // namespace

void BindAdapter(py::module_& module) {
  // Named in signatures before it is defined.
  py::class_<PythonExpert, std::shared_ptr<PythonExpert>> expert(
      module, "Expert", "One model file; coterie.Expert is the public face.");
  py::class_<PythonAdapter, AdapterPointer>(
      module, "Adapter", "A LoRA adapter bound to a base; coterie.Adapter is the public face.")
      .def_static("open", &OpenAdapter, py::arg("path"), py::kw_only(), py::arg("base"),
                  py::arg("base_id") = "", py::arg("base_name") = "",
                  "Reads a PEFT folder or a GGUF adapter and binds it to a base.")
      .def("save", &Save, py::arg("path"), py::kw_only(), py::arg("format"),
           "Writes a PEFT folder ('peft') or a GGUF file ('gguf').")
      .def("merge", &Merge, py::arg("path"), py::kw_only(), py::arg("base"), py::arg("format"),
           py::arg("type"),
           "Writes the base with the adapter added to its weights: 'gguf' or 'hf'; type: 'F16', "
           "'BF16' or 'Q8_0'.")
      .def_property_readonly(
          "description",
          [](const PythonAdapter& adapter) { return DescribeAdapter(adapter.adapter); },
          "Name, base, layers, ranks, linear layers, parameters and bytes.")
      .def_property_readonly(
          "warning", [](const PythonAdapter& adapter) { return TextFrom(adapter.warning); },
          "What could not be checked; empty if all was.");
  py::class_<AdapterStore>(module, "AdapterStore", "Versions of adapters in a model store.")
      .def(py::init<std::string>(), py::arg("home"), "home: the model store.")
      .def("list", &ListAdapters, "Adapters by name, with their versions.")
      .def("show", &ShowAdapter, py::arg("name"), py::arg("version") = py::none(),
           "What is in a version; None: in the current one.")
      .def("load", &LoadAdapter, py::arg("name"), py::kw_only(), py::arg("base"),
           py::arg("version") = py::none(), "Opens a version for an expert.")
      .def("publish", &Publish, py::arg("adapter"), py::kw_only(), py::arg("name"),
           py::arg("metrics") = "", "Adds a version, makes it current and returns its number.")
      .def(
          "rollback",
          [](AdapterStore& store, const std::string& name, int64_t version) {
            RaiseIfError(store.Rollback(name, version));
          },
          py::arg("name"), py::arg("version"), "Makes a version current.")
      .def(
          "remove",
          [](AdapterStore& store, const std::string& name, std::optional<int64_t> version) {
            RaiseIfError(version ? store.RemoveVersion(name, *version) : store.Remove(name));
          },
          py::arg("name"), py::arg("version") = py::none(),
          "Deletes a version that is not current; None: all of them.");
}

}  // namespace coterie
