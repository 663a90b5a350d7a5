#pragma once

// The filters, tests, global functions and methods that templates may use, each with the behaviour
// of its namesake in Jinja 3.1.6 or Python.

#include <ctime>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "core/formats/jinja/value.h"
#include "core/formats/jinja/work.h"

namespace coterie::jinja {

// The evaluated arguments of a call.
struct CallArguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  const Value* FindNamed(absl::string_view name) const;
};

// Arguments in the order of a builtin's parameters; null where not given.
using BoundArguments = absl::InlinedVector<const Value*, 6>;

// Lays `arguments` out by the parameter names in `parameters`, separated by commas.
// kInvalidArgument for too many or unknown ones.
absl::StatusOr<BoundArguments> Bind(absl::string_view function, absl::string_view parameters,
                                    const CallArguments& arguments);

// What filters and functions may use beside their arguments.
struct Environment {
  Work work;
  std::tm now = {};  // Local time, for strftime_now.
  // Where namespaces live until the rendering ends.
  std::deque<Namespace> namespaces;
};

// True for names that the parser refuses: Jinja has them, this subset has not. Names unknown to
// both fail only where they are evaluated, as templates guard uses of what some hosts add.
bool IsUnsupportedFilter(absl::string_view name);
bool IsUnsupportedTest(absl::string_view name);

// kUnimplemented naming a filter or test that does not exist; kInvalidArgument where Python would
// raise.
absl::StatusOr<Value> ApplyFilter(absl::string_view name, const Value& input,
                                  const CallArguments& arguments, Environment& environment);
absl::StatusOr<bool> ApplyTest(absl::string_view name, const Value& input,
                               const CallArguments& arguments, Environment& environment);

// Whether `name` is a global function, among them those that Jinja has and this subset refuses.
bool IsGlobalFunction(absl::string_view name);
absl::StatusOr<Value> CallGlobal(absl::string_view name, const CallArguments& arguments,
                                 Environment& environment);

// obj.name and obj[key], undefined where there is no such thing and for what Jinja's immutable
// sandbox forbids. kInvalidArgument where obj is undefined, kUnimplemented for methods of Python
// that this subset lacks.
absl::StatusOr<Value> GetAttribute(const Value& object, absl::string_view name);
absl::StatusOr<Value> GetItem(const Value& object, const Value& key, Work& work);
absl::StatusOr<Value> CallMethod(const Value& self, absl::string_view name,
                                 const CallArguments& arguments, Environment& environment);

}  // namespace coterie::jinja
