#include "core/formats/pair_filter.h"

#include "core/formats/utf8.h"

namespace coterie {

void PairFilter::Add(absl::string_view token) {
  if (token.empty()) return;
  Utf8Char left = DecodeUtf8(token.data());
  for (size_t i = left.n_bytes; i < token.size();) {
    const Utf8Char right = DecodeUtf8(token.data() + i);
    if ((left.code_point | right.code_point) < kAscii) {
      ascii_[left.code_point][right.code_point / 64] |= uint64_t{1} << right.code_point % 64;
    } else {
      const uint32_t bit = BitOf(left.code_point, right.code_point);
      others_[bit / 64] |= uint64_t{1} << bit % 64;
    }
    left = right;
    i += right.n_bytes;
  }
}

}  // namespace coterie
