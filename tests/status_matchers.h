#pragma once

// gMock matchers for absl::Status and absl::StatusOr, which the packaged Abseil does not ship yet.

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace coterie::testing {

inline const absl::Status& StatusOf(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& status_or) {
  return status_or.status();
}

MATCHER(IsOk, "is OK") {
  *result_listener << StatusOf(arg).ToString();
  return arg.ok();
}

// Matches a StatusOr that is OK and whose value matches.
MATCHER_P(IsOkAndHolds, value, "") {
  *result_listener << StatusOf(arg).ToString();
  return arg.ok() && ::testing::Value(*arg, value);
}

// Matches a status code and, by a matcher or a plain string, the message.
MATCHER_P2(StatusIs, code, message, "") {
  *result_listener << StatusOf(arg).ToString();
  return StatusOf(arg).code() == code &&
         ::testing::Matches(message)(std::string(StatusOf(arg).message()));
}

}  // namespace coterie::testing

#define COTERIE_ASSERT_OK(expression) ASSERT_THAT(expression, ::coterie::testing::IsOk())
#define COTERIE_EXPECT_OK(expression) EXPECT_THAT(expression, ::coterie::testing::IsOk())

// Moves the value out of a StatusOr into `lhs`, or fails the test.
#define COTERIE_ASSERT_OK_AND_ASSIGN(lhs, expression) \
  COTERIE_ASSERT_OK_AND_ASSIGN_(COTERIE_TEST_CONCAT_(test_statusor_, __LINE__), lhs, expression)
#define COTERIE_ASSERT_OK_AND_ASSIGN_(statusor, lhs, expression) \
  auto statusor = (expression);                                  \
  ASSERT_THAT(statusor, ::coterie::testing::IsOk());             \
  lhs = *std::move(statusor)
#define COTERIE_TEST_CONCAT_(a, b) COTERIE_TEST_CONCAT_INNER_(a, b)
#define COTERIE_TEST_CONCAT_INNER_(a, b) a##b
