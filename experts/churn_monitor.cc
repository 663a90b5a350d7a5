#include "experts/churn_monitor.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace coterie {

void ChurnMonitor::NoteEvicted(const BaseId& base, absl::Time now) { evicted_[base] = now; }

bool ChurnMonitor::NoteLoaded(const BaseId& base, int64_t bytes, absl::Duration took,
                              absl::Time now) {
  const auto evicted = evicted_.find(base);
  if (evicted == evicted_.end()) return false;
  const bool soon = now - evicted->second <= kWindow;
  evicted_.erase(evicted);
  if (soon) reloads_.push_back({now, base, bytes, took});
  return soon;
}

ChurnReport ChurnMonitor::Report(absl::Time now, int64_t limit_bytes) {
  while (!reloads_.empty() && now - reloads_.front().at > kWindow) reloads_.pop_front();
  ChurnReport report;
  report.n_reloads = static_cast<int64_t>(reloads_.size());
  absl::Duration spent;
  std::map<BaseId, int64_t> bytes;
  for (const Reload& reload : reloads_) {
    spent += reload.took;
    bytes[reload.base] = reload.bytes;
  }
  for (const auto& [base, base_bytes] : bytes) {
    report.bases.push_back(base);
    report.bases_bytes += base_bytes;
  }
  report.reload_share = std::min(1.0, absl::FDivDuration(spent, kWindow));
  const double level = thrashing_ ? 0.5 : 1.0;
  thrashing_ = static_cast<double>(report.n_reloads) >= level * kReloads &&
               report.reload_share >= level * kShare;
  report.thrashing = thrashing_;
  if (!thrashing_) return report;
  report.advice = absl::StrFormat(
      "%d reloads in the last minute took %.0f %% of it: %s push each other out of memory; they "
      "occupy %.0f MB together, the budget is %.0f MB: raise it, or leave one of them out",
      report.n_reloads, 100 * report.reload_share, absl::StrJoin(report.bases, ", "),
      static_cast<double>(report.bases_bytes) / 1e6, static_cast<double>(limit_bytes) / 1e6);
  return report;
}

}  // namespace coterie
