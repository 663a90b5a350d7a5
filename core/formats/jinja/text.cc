#include "core/formats/jinja/text.h"

#include <algorithm>
#include <utility>

#include "core/base/check.h"

namespace coterie::jinja {

size_t Text::RunIndexAt(size_t offset) const {
  auto it = std::upper_bound(runs_.begin(), runs_.end(), offset,
                             [](size_t value, const Run& run) { return value < run.end; });
  return static_cast<size_t>(it - runs_.begin());
}

Origin Text::OriginAt(size_t offset) const {
  COTERIE_CHECK(offset < size(), "an origin is asked of a byte inside the text");
  return runs_[RunIndexAt(offset)].origin;
}

void Text::Append(absl::string_view bytes, Origin origin) {
  if (bytes.empty()) return;
  bytes_.append(bytes.data(), bytes.size());
  if (!runs_.empty() && runs_.back().origin == origin) {
    runs_.back().end = bytes_.size();
  } else {
    runs_.push_back({bytes_.size(), origin});
  }
}

void Text::AppendRange(const Text& other, size_t begin, size_t end) {
  COTERIE_CHECK(begin <= end && end <= other.size(), "a range lies inside its text");
  if (begin == end) return;
  for (size_t i = other.RunIndexAt(begin); begin < end; ++i) {
    const Run run = other.runs_[i];  // A copy: `other` may be this text.
    const size_t run_end = std::min(run.end, end);
    const std::string part(other.bytes_, begin, run_end - begin);
    Append(part, run.origin);
    begin = run_end;
  }
}

Text Text::Substring(size_t begin, size_t end) const {
  Text result;
  result.AppendRange(*this, begin, end);
  result.markup_ = markup_;
  return result;
}

void Text::SettleRole(Role role) {
  if (role == Role::kNone) return;
  std::vector<Run> settled;
  settled.reserve(runs_.size());
  for (Run run : runs_) {
    if (run.origin.trusted && run.origin.role == Role::kNone) run.origin.role = role;
    if (!settled.empty() && settled.back().origin == run.origin) {
      settled.back().end = run.end;
    } else {
      settled.push_back(run);
    }
  }
  runs_ = std::move(settled);
}

}  // namespace coterie::jinja
