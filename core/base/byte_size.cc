#include "core/base/byte_size.h"

#include <array>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "core/base/check.h"

namespace coterie {
namespace {

struct Unit {
  absl::string_view name;
  int64_t bytes;
};

constexpr std::array<Unit, 11> kUnits = {{{"", 1},
                                          {"B", 1},
                                          {"kB", 1000},
                                          {"KB", 1000},
                                          {"MB", 1000 * 1000},
                                          {"GB", 1000 * 1000 * 1000},
                                          {"TB", int64_t{1000} * 1000 * 1000 * 1000},
                                          {"KiB", int64_t{1} << 10},
                                          {"MiB", int64_t{1} << 20},
                                          {"GiB", int64_t{1} << 30},
                                          {"TiB", int64_t{1} << 40}}};

absl::Status Malformed(absl::string_view text, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(
      "not a size in bytes: ", why, "; write it like 2GiB, 500MB or 1500000000: \"", text, "\""));
}

absl::string_view TakeDigits(absl::string_view& rest) {
  size_t n = 0;
  while (n < rest.size() && absl::ascii_isdigit(static_cast<unsigned char>(rest[n]))) ++n;
  const absl::string_view digits = rest.substr(0, n);
  rest.remove_prefix(n);
  return digits;
}

// floor(0.digits * unit), in integers. Digits beyond the 18th cannot matter for a unit of 2^40.
int64_t FractionBytes(absl::string_view digits, int64_t unit) {
  __extension__ using Wide = __int128;
  Wide numerator = 0;
  Wide denominator = 1;
  for (char digit : digits.substr(0, 18)) {
    numerator = numerator * 10 + (digit - '0');
    denominator *= 10;
  }
  return static_cast<int64_t>(numerator * unit / denominator);
}

}  // namespace

absl::StatusOr<int64_t> ParseByteSize(absl::string_view text) {
  absl::string_view rest = text;
  const absl::string_view whole_digits = TakeDigits(rest);
  if (whole_digits.empty()) return Malformed(text, "it must begin with a digit");
  absl::string_view fraction_digits;
  if (!rest.empty() && rest.front() == '.') {
    rest.remove_prefix(1);
    fraction_digits = TakeDigits(rest);
    if (fraction_digits.empty()) return Malformed(text, "no digits after the point");
  }
  if (rest.size() > 1 && rest.front() == ' ') rest.remove_prefix(1);
  int64_t unit = 0;
  for (const Unit& candidate : kUnits) {
    if (candidate.name == rest) unit = candidate.bytes;
  }
  if (unit == 0) return Malformed(text, "the unit is not one of B, kB, MB, GB, TB, KiB, ..., TiB");
  if (!fraction_digits.empty() && unit == 1) return Malformed(text, "bytes have no fraction");
  int64_t whole = 0;
  const int64_t fraction = FractionBytes(fraction_digits, unit);
  if (!absl::SimpleAtoi(whole_digits, &whole) ||
      whole > (std::numeric_limits<int64_t>::max() - fraction) / unit) {
    return Malformed(text, "too large");
  }
  return whole * unit + fraction;
}

std::string FormatBytes(int64_t bytes) {
  COTERIE_CHECK(bytes >= 0, "a size is not negative");
  if (bytes < 1000) return absl::StrCat(bytes, " B");
  static constexpr std::array<const char*, 6> kNames = {"kB", "MB", "GB", "TB", "PB", "EB"};
  double value = static_cast<double>(bytes) / 1000;
  size_t unit = 0;
  // 999.5 and above would be printed as "1000".
  for (; value >= 999.5; value /= 1000) ++unit;
  const int n_decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return absl::StrFormat("%.*f %s", n_decimals, value, kNames[unit]);
}

}  // namespace coterie
