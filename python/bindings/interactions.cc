// coterie.InteractionLog: what was asked and answered, without opening an expert.

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pybind11/stl.h"

#include "lora/interaction_log.h"
#include "python/bindings/bindings.h"
#include "python/bindings/gil.h"
#include "runtime/configuration.h"
#include "runtime/open_interaction_log.h"

namespace py = pybind11;

namespace coterie {
namespace {

py::list MessageList(const std::vector<Message>& messages) {
  py::list list;
  for (const Message& message : messages) {
    py::dict row;
    row["role"] = TextFrom(message.role);
    row["content"] = TextFrom(message.content);
    if (!message.fields_json.empty()) row["fields"] = TextFrom(message.fields_json);
    list.append(row);
  }
  return list;
}

Fields InteractionFields(const Interaction& interaction) {
  Fields d;
  d["id"] = interaction.id;
  d["time"] = absl::ToUnixMicros(interaction.time) / 1e6;
  d["conversation"] = TextFrom(interaction.conversation);
  d["messages"] = MessageList(interaction.messages);
  d["reply"] = TextFrom(interaction.reply);
  d["expert"] = interaction.expert;
  d["base"] = interaction.base;
  d["adapter"] = interaction.adapter;
  d["domain"] = interaction.route.domain;
  d["confidence"] = interaction.route.confidence;
  d["reason"] = TextFrom(interaction.route.reason);
  d["finish_reason"] = interaction.finish_reason;
  d["feedback"] = std::string(VerdictName(interaction.feedback.verdict));
  d["edit"] = py::none();
  if (interaction.feedback.verdict == Verdict::kEdited) {
    d["edit"] = TextFrom(interaction.feedback.text);
  }
  d["right_domain"] = py::none();
  if (!interaction.feedback.domain.empty()) d["right_domain"] = interaction.feedback.domain;
  d["feedback_time"] = py::none();
  if (interaction.change > 0) {
    d["feedback_time"] = absl::ToUnixMicros(interaction.feedback_time) / 1e6;
  }
  return d;
}

std::shared_ptr<InteractionLog> OpenLog(const std::optional<std::string>& config,
                                        const std::optional<std::string>& home) {
  Configuration configuration =
      ValueOrRaise(config ? Configuration::Load(*config) : Configuration::Default());
  if (home) configuration.home = *home;
  absl::StatusOr<std::unique_ptr<InteractionLog>> log;
  {
    GilReleased released;
    log = OpenInteractionLog(configuration);
  }
  return OwnedByPython(ValueOrRaise(std::move(log)));
}

std::vector<Fields> ListInteractions(const InteractionLog& log, const std::string& expert,
                                     bool with_feedback, bool newest_first, int64_t limit) {
  InteractionFilter filter;
  filter.expert = expert;
  filter.with_feedback = with_feedback;
  filter.newest_first = newest_first;
  filter.limit = limit;
  absl::StatusOr<std::vector<Interaction>> list;
  {
    GilReleased released;
    list = log.List(filter);
  }
  std::vector<Fields> rows;
  for (const Interaction& one : ValueOrRaise(std::move(list))) {
    rows.push_back(InteractionFields(one));
  }
  return rows;
}

Fields GetInteraction(const InteractionLog& log, const std::string& id) {
  absl::StatusOr<Interaction> interaction;
  {
    GilReleased released;
    interaction = log.Get(id);
  }
  return InteractionFields(ValueOrRaise(std::move(interaction)));
}

void ForgetInteraction(InteractionLog& log, const std::string& id) {
  absl::Status status;
  {
    GilReleased released;
    status = log.Forget(id);
  }
  RaiseIfError(status);
}

}  // namespace

void BindInteractions(py::module_& module) {
  py::class_<InteractionLog, std::shared_ptr<InteractionLog>>(
      module, "InteractionLog",
      "What was asked and answered; coterie.InteractionLog is the public face.")
      .def_static("open", &OpenLog, py::arg("config") = py::none(), py::kw_only(),
                  py::arg("home") = py::none(), "Opens the log of a coterie.toml, or the store's.")
      .def("list", &ListInteractions, py::kw_only(), py::arg("expert"), py::arg("with_feedback"),
           py::arg("newest_first"), py::arg("limit"),
           "The fields of coterie.Interaction. expert: \"\" for any; limit: 0 for all.")
      .def("get", &GetInteraction, py::arg("id"), "The fields of one. KeyError if there is none.")
      .def("forget", &ForgetInteraction, py::arg("id"), "Erases one. KeyError if there is none.")
      .def(
          "used_bytes", [](const InteractionLog& log) { return ValueOrRaise(log.used_bytes()); },
          "Bytes of the file that are in use.")
      .def_property_readonly("path", &InteractionLog::path, "Where it lies.")
      .def_property_readonly("encrypted", &InteractionLog::is_encrypted, "Whether under a key.");
}

}  // namespace coterie
