#include "core/base/status_macros.h"

#include <memory>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::IsOk;
using ::coterie::testing::StatusIs;

absl::Status ReturnsEarly(const absl::Status& status, bool& went_on) {
  COTERIE_RETURN_IF_ERROR(status);
  went_on = true;
  return absl::OkStatus();
}

TEST(ReturnIfErrorTest, ReturnsAnErrorAndGoesOnWhenOk) {
  bool went_on = false;
  EXPECT_THAT(ReturnsEarly(absl::DataLossError("torn"), went_on),
              StatusIs(absl::StatusCode::kDataLoss, "torn"));
  EXPECT_FALSE(went_on);
  EXPECT_THAT(ReturnsEarly(absl::OkStatus(), went_on), IsOk());
  EXPECT_TRUE(went_on);
}

absl::Status Counts(int& n_calls) {
  ++n_calls;
  return absl::OkStatus();
}

absl::Status CallsOnce(int& n_calls) {
  COTERIE_RETURN_IF_ERROR(Counts(n_calls));
  return absl::OkStatus();
}

TEST(ReturnIfErrorTest, EvaluatesItsExpressionOnce) {
  int n_calls = 0;
  EXPECT_THAT(CallsOnce(n_calls), IsOk());
  EXPECT_EQ(n_calls, 1);
}

// An unbraced if-else must keep its meaning around the macro.
absl::Status InABranch(bool check, const absl::Status& status) {
  if (check)
    COTERIE_RETURN_IF_ERROR(status);
  else
    return absl::AbortedError("else");
  return absl::OkStatus();
}

TEST(ReturnIfErrorTest, IsOneStatement) {
  EXPECT_THAT(InABranch(true, absl::OkStatus()), IsOk());
  EXPECT_THAT(InABranch(true, absl::NotFoundError("x")),
              StatusIs(absl::StatusCode::kNotFound, "x"));
  EXPECT_THAT(InABranch(false, absl::OkStatus()), StatusIs(absl::StatusCode::kAborted, "else"));
}

absl::StatusOr<std::unique_ptr<int>> Make(bool ok, int value) {
  if (!ok) return absl::UnavailableError("not now");
  return std::make_unique<int>(value);
}

absl::StatusOr<int> Sum(bool first_ok, bool second_ok) {
  COTERIE_ASSIGN_OR_RETURN(const std::unique_ptr<int> first, Make(first_ok, 40));
  std::unique_ptr<int> second;
  COTERIE_ASSIGN_OR_RETURN(second, Make(second_ok, 2));
  return *first + *second;
}

TEST(AssignOrReturnTest, MovesTheValueOutOrReturnsTheStatus) {
  COTERIE_ASSERT_OK_AND_ASSIGN(const int sum, Sum(true, true));
  EXPECT_EQ(sum, 42);
  EXPECT_THAT(Sum(false, true), StatusIs(absl::StatusCode::kUnavailable, "not now"));
  EXPECT_THAT(Sum(true, false), StatusIs(absl::StatusCode::kUnavailable, "not now"));
}

}  // namespace
}  // namespace coterie
