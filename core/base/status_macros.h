#pragma once

// Early-return helpers for absl::Status, under the names upstream Abseil later gave them.

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Evaluates an expression of type absl::Status and returns it from the enclosing function if it is
// not OK.
#define COTERIE_RETURN_IF_ERROR(expression)            \
  do {                                                 \
    ::absl::Status coterie_status_ = (expression);     \
    if (!coterie_status_.ok()) return coterie_status_; \
  } while (false)

// Evaluates an expression of type absl::StatusOr<T>; on success moves the value into `lhs` (which
// may declare a variable), otherwise returns the status from the enclosing function.
#define COTERIE_ASSIGN_OR_RETURN(lhs, expression) \
  COTERIE_ASSIGN_OR_RETURN_(COTERIE_STATUS_CONCAT_(coterie_statusor_, __LINE__), lhs, expression)

#define COTERIE_ASSIGN_OR_RETURN_(statusor, lhs, expression) \
  auto statusor = (expression);                              \
  if (!statusor.ok()) return std::move(statusor).status();   \
  lhs = *std::move(statusor)

#define COTERIE_STATUS_CONCAT_(a, b) COTERIE_STATUS_CONCAT_INNER_(a, b)
#define COTERIE_STATUS_CONCAT_INNER_(a, b) a##b
