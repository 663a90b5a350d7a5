#include "core/base/exception_guard.h"

#include <new>
#include <stdexcept>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::IsOk;
using ::coterie::testing::StatusIs;
using ::testing::HasSubstr;

TEST(GuardExceptionsTest, AQuietBodyIsOk) {
  int n_calls = 0;
  EXPECT_THAT(GuardExceptions([&] { ++n_calls; }), IsOk());
  EXPECT_EQ(n_calls, 1);
}

TEST(GuardExceptionsTest, PassesAStatusThrough) {
  EXPECT_THAT(GuardExceptions([] { return absl::NotFoundError("no such file"); }),
              StatusIs(absl::StatusCode::kNotFound, "no such file"));
}

TEST(GuardExceptionsTest, KeepsTheWordsOfAnException) {
  EXPECT_THAT(GuardExceptions([] { throw std::runtime_error("shape mismatch"); }),
              StatusIs(absl::StatusCode::kInternal, "shape mismatch"));
}

TEST(GuardExceptionsTest, LackOfMemoryIsResourceExhausted) {
  EXPECT_THAT(GuardExceptions([] { throw std::bad_alloc(); }),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("memory")));
}

TEST(GuardExceptionsTest, CatchesWhatIsNoException) {
  EXPECT_THAT(GuardExceptions([] { throw 7; }),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("not a std::exception")));
}

}  // namespace
}  // namespace coterie
