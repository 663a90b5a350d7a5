#pragma once

#include <exception>
#include <new>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"

namespace coterie {

// Calls `body`, which uses a library that throws, and turns what escapes into a status: the only
// place where exceptions are caught. `body` returns void, or a status that is passed through.
//   kResourceExhausted   std::bad_alloc.
//   kInternal            any other exception, with its own words where it has some.
template <typename Body>
absl::Status GuardExceptions(Body&& body) {
  try {
    if constexpr (std::is_void_v<std::invoke_result_t<Body>>) {
      std::forward<Body>(body)();
      return absl::OkStatus();
    } else {
      return std::forward<Body>(body)();
    }
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("the system refused memory to a library");
  } catch (const std::exception& exception) {
    return absl::InternalError(exception.what());
  } catch (...) {
    return absl::InternalError("a library threw something that is not a std::exception");
  }
}

}  // namespace coterie
