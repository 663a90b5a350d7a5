#include "core/base/byte_size.h"

#include <cstdint>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::coterie::testing::StatusIs;
using ::testing::HasSubstr;

int64_t Parsed(absl::string_view text) {
  const absl::StatusOr<int64_t> bytes = ParseByteSize(text);
  EXPECT_THAT(bytes, ::coterie::testing::IsOk()) << text;
  return bytes.value_or(-1);
}

TEST(ParseByteSizeTest, ReadsPowersOfThousandAndOf1024) {
  EXPECT_EQ(Parsed("0"), 0);
  EXPECT_EQ(Parsed("1500000000"), 1500000000);
  EXPECT_EQ(Parsed("17B"), 17);
  EXPECT_EQ(Parsed("500MB"), 500'000'000);
  EXPECT_EQ(Parsed("3kB"), 3000);
  EXPECT_EQ(Parsed("3KB"), 3000);
  EXPECT_EQ(Parsed("2GiB"), int64_t{2} << 30);
  EXPECT_EQ(Parsed("2 GiB"), int64_t{2} << 30);
  EXPECT_EQ(Parsed("1TB"), 1'000'000'000'000);
}

TEST(ParseByteSizeTest, FractionsAreExactToTheByte) {
  EXPECT_EQ(Parsed("1.5GiB"), int64_t{3} << 29);
  EXPECT_EQ(Parsed("0.1kB"), 100);
  EXPECT_EQ(Parsed("0.0015kB"), 1);
  EXPECT_EQ(Parsed("0.9999999999999999999999TB"), 999'999'999'999);
}

TEST(ParseByteSizeTest, AnythingElseIsRefusedWithAnExample) {
  for (const char* text : {"", " ", "GiB", "-1", "+1", "2G", "2gib", "2GIB", "1.GiB", ".5GiB",
                           "1e9", "1.5", "1.5B", "2  GiB", "2GiB ", "0x10", "1,000", "2 "}) {
    EXPECT_THAT(ParseByteSize(text),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("2GiB")))
        << '"' << text << '"';
  }
}

TEST(ParseByteSizeTest, TheLargestInt64FitsAndOneMoreDoesNot) {
  EXPECT_EQ(Parsed("9223372036854775807"), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(Parsed("8388607TiB"), int64_t{8388607} << 40);
  for (const char* text : {"9223372036854775808", "8388608TiB", "99999999999999999999999"}) {
    EXPECT_THAT(ParseByteSize(text),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("too large")))
        << text;
  }
}

TEST(FormatBytesTest, KeepsThreeDigits) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(999), "999 B");
  EXPECT_EQ(FormatBytes(1000), "1.00 kB");
  EXPECT_EQ(FormatBytes(98362432), "98.4 MB");
  EXPECT_EQ(FormatBytes(491400064), "491 MB");
  EXPECT_EQ(FormatBytes(1117320736), "1.12 GB");
  EXPECT_EQ(FormatBytes(std::numeric_limits<int64_t>::max()), "9.22 EB");
}

TEST(FormatBytesTest, RoundingNeverPrintsAThousand) {
  EXPECT_EQ(FormatBytes(999'499), "999 kB");
  EXPECT_EQ(FormatBytes(999'500), "1.00 MB");
  EXPECT_EQ(FormatBytes(9'996), "10.0 kB");
  EXPECT_EQ(FormatBytes(99'960), "100 kB");
}

}  // namespace
}  // namespace coterie
