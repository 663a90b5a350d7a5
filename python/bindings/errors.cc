#include <cctype>
#include <string>

#include "absl/status/status.h"

#include "python/bindings/bindings.h"

namespace py = pybind11;

namespace coterie {
namespace {

// "RESOURCE_EXHAUSTED" -> "resource_exhausted".
std::string CodeName(absl::StatusCode code) {
  std::string name = absl::StatusCodeToString(code);
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return name;
}

py::object BuiltinFor(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
      return py::reinterpret_borrow<py::object>(PyExc_ValueError);
    case absl::StatusCode::kNotFound:
      return py::reinterpret_borrow<py::object>(PyExc_KeyError);
    case absl::StatusCode::kResourceExhausted:
      return py::reinterpret_borrow<py::object>(PyExc_MemoryError);
    case absl::StatusCode::kDeadlineExceeded:
      return py::reinterpret_borrow<py::object>(PyExc_TimeoutError);
    case absl::StatusCode::kDataLoss:
      return py::reinterpret_borrow<py::object>(PyExc_OSError);
    default:
      return py::none();
  }
}

}  // namespace

void RaiseStatus(const absl::Status& status) {
  const std::string message(status.message());
  py::object type = BuiltinFor(status.code());
  if (type.is_none()) {
    const py::module_ errors = py::module_::import("coterie.errors");
    const bool busy = status.code() == absl::StatusCode::kUnavailable;
    type = errors.attr(busy ? "Busy" : "Error");
    const py::object error = type(TextFrom(message), CodeName(status.code()));
    PyErr_SetObject(type.ptr(), error.ptr());
  } else {
    const py::object error = type(TextFrom(message));
    PyErr_SetObject(type.ptr(), error.ptr());
  }
  throw py::error_already_set();
}

py::str TextFrom(const std::string& utf8) {
  return py::reinterpret_steal<py::str>(
      PyUnicode_DecodeUTF8(utf8.data(), static_cast<Py_ssize_t>(utf8.size()), "replace"));
}

std::string Utf8From(const py::handle& text) {
  Py_ssize_t size = 0;
  const char* utf8 = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
  if (utf8 == nullptr) {
    PyErr_Clear();
    throw py::value_error("the text is not valid UTF-8; send text, not the bytes of a file");
  }
  return {utf8, static_cast<size_t>(size)};
}

std::vector<Message> MessagesFrom(const py::object& prompt_or_messages) {
  std::vector<Message> messages;
  if (py::isinstance<py::str>(prompt_or_messages)) {
    messages.push_back({"user", Utf8From(prompt_or_messages), ""});
    return messages;
  }
  if (!py::isinstance<py::sequence>(prompt_or_messages)) {
    throw py::type_error("a prompt is a str or a list of {'role': ..., 'content': ...}");
  }
  for (const py::handle item : prompt_or_messages) {
    Message message;
    if (!py::isinstance<py::dict>(item)) {
      throw py::type_error("a message is a dict with 'role' and 'content'");
    }
    const auto dict = py::reinterpret_borrow<py::dict>(item);
    if (!dict.contains("role") || !dict.contains("content")) {
      throw py::value_error("a message needs 'role' and 'content'");
    }
    message.role = Utf8From(py::str(dict["role"]));
    message.content = Utf8From(py::str(dict["content"]));
    messages.push_back(std::move(message));
  }
  return messages;
}

}  // namespace coterie
