#pragma once

// One function per concept; each adds its classes to the module, docstrings beside the binding.

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "pybind11/pybind11.h"

#include "core/formats/chat_template.h"

namespace coterie {

void BindExpert(pybind11::module_& module);
void BindRouter(pybind11::module_& module);
void BindAdapter(pybind11::module_& module);
void BindAssistant(pybind11::module_& module);
void BindInteractions(pybind11::module_& module);
void BindSimulation(pybind11::module_& module);
void BindTraining(pybind11::module_& module);

// A dict as it is written out for Python: names and values of any type.
class __attribute__((visibility("hidden"))) Fields : public pybind11::dict {
 public:
  using pybind11::dict::dict;
};

// What `options` has under a name, if anything but None. Raises TypeError for another type.
template <typename T>
std::optional<T> Optional(const Fields& options, const char* key) {
  if (!options.contains(key) || options[key].is_none()) return std::nullopt;
  try {
    return options[key].cast<T>();
  } catch (const pybind11::cast_error&) {
    throw pybind11::type_error(absl::StrCat("not a value for ", key, ": ",
                                            pybind11::repr(options[key]).cast<std::string>()));
  }
}

// Raises the Python exception of a status: ValueError for kInvalidArgument, KeyError for kNotFound,
// MemoryError for kResourceExhausted, TimeoutError for kDeadlineExceeded, coterie.Busy for
// kUnavailable, OSError for kDataLoss, and coterie.Error with .code for the rest. Needs the GIL.
[[noreturn]] void RaiseStatus(const absl::Status& status);

inline void RaiseIfError(const absl::Status& status) {
  if (!status.ok()) RaiseStatus(status);
}

template <typename T>
T ValueOrRaise(absl::StatusOr<T> value) {
  if (!value.ok()) RaiseStatus(value.status());
  return *std::move(value);
}

// A prompt as conversation: a str is one message of the user, a list holds dicts with
// "role" and "content". Raises TypeError or ValueError otherwise.
std::vector<Message> MessagesFrom(const pybind11::object& prompt_or_messages);

// The UTF-8 of a str. Raises ValueError for a lone surrogate, which is how Python carries bytes
// that were no UTF-8.
std::string Utf8From(const pybind11::handle& text);

// Text for Python; bytes that are not UTF-8 become U+FFFD.
pybind11::str TextFrom(const std::string& utf8);

}  // namespace coterie

template <>
struct pybind11::detail::handle_type_name<coterie::Fields> {
  static constexpr auto name = const_name("dict[str, typing.Any]");
};
