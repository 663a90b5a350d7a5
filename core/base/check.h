#pragma once

namespace coterie {

// Prints the broken invariant with its place and aborts. Use through COTERIE_CHECK.
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition,
                              const char* invariant);

}  // namespace coterie

// Aborts when an invariant of the program itself is broken; `invariant` says in words what should
// have held. Never for input, files or resources: those return absl::Status.
#define COTERIE_CHECK(condition, invariant)                              \
  do {                                                                   \
    if (!(condition)) [[unlikely]]                                       \
      ::coterie::CheckFailed(__FILE__, __LINE__, #condition, invariant); \
  } while (false)
