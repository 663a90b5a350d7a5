#include "experts/eviction_policy.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "absl/strings/str_format.h"

namespace coterie {
namespace {

// A next request is worth waiting for if it usually comes within this part of the stay: several
// then fit into it. The gap of a client that alternates between bases is a load or longer.
constexpr double kHoldGapShare = 0.125;
// Requests that overlap have no gap; their clients still need a moment to come back.
constexpr absl::Duration kLeastHold = absl::Milliseconds(25);

// Evictable entries, least recently used first.
std::vector<const EntryView*> Candidates(absl::Span<const EntryView> entries) {
  std::vector<const EntryView*> candidates;
  for (const EntryView& entry : entries) {
    if (entry.evictable()) candidates.push_back(&entry);
  }
  std::sort(candidates.begin(), candidates.end(), [](const EntryView* a, const EntryView* b) {
    return std::tie(a->last_use, a->id) < std::tie(b->last_use, b->id);
  });
  return candidates;
}

int64_t TotalBytes(const std::vector<const EntryView*>& candidates) {
  int64_t bytes = 0;
  for (const EntryView* candidate : candidates) bytes += candidate->bytes;
  return bytes;
}

// Fading has the same factor for all at any moment, so the last use of any of them will do as the
// moment of comparison, and the choice does not depend on a clock.
double Loss(const EntryView& entry, absl::Time now) {
  return RecentUsesAt(entry, now) * absl::ToDoubleMilliseconds(entry.reload_time);
}

std::vector<BaseId> Ids(const std::vector<const EntryView*>& victims) {
  std::vector<BaseId> ids;
  for (const EntryView* victim : victims) ids.push_back(victim->id);
  return ids;
}

std::vector<BaseId> CheapestSet(const std::vector<const EntryView*>& candidates,
                                const std::vector<double>& losses, int64_t bytes) {
  // Candidates are in order of last use, so of equal sets the lower mask is the older one.
  uint32_t best_mask = 0;
  std::tuple<double, int, int64_t, uint32_t> best;
  for (uint32_t mask = 1; mask < (uint32_t{1} << candidates.size()); ++mask) {
    double loss = 0;
    int n_victims = 0;
    int64_t freed_bytes = 0;
    for (size_t i = 0; i < candidates.size(); ++i) {
      if ((mask >> i & 1) == 0) continue;
      loss += losses[i];
      ++n_victims;
      freed_bytes += candidates[i]->bytes;
    }
    if (freed_bytes < bytes) continue;
    const auto rank = std::make_tuple(loss, n_victims, freed_bytes, mask);
    if (best_mask != 0 && best <= rank) continue;
    best = rank;
    best_mask = mask;
  }
  std::vector<const EntryView*> victims;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if ((best_mask >> i & 1) != 0) victims.push_back(candidates[i]);
  }
  return Ids(victims);
}

std::vector<BaseId> GreedySet(const std::vector<const EntryView*>& candidates,
                              const std::vector<double>& losses, int64_t bytes) {
  std::vector<size_t> order(candidates.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  const auto loss_per_byte = [&](size_t i) {
    return losses[i] / static_cast<double>(std::max<int64_t>(1, candidates[i]->bytes));
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return loss_per_byte(a) < loss_per_byte(b); });
  std::vector<const EntryView*> victims;
  int64_t freed_bytes = 0;
  for (size_t i = 0; i < order.size() && freed_bytes < bytes; ++i) {
    victims.push_back(candidates[order[i]]);
    freed_bytes += victims.back()->bytes;
  }
  // A large late victim may make earlier ones superfluous; the dearest is spared first.
  for (size_t i = victims.size(); i-- > 0;) {
    if (freed_bytes - victims[i]->bytes < bytes) continue;
    freed_bytes -= victims[i]->bytes;
    victims.erase(victims.begin() + static_cast<std::ptrdiff_t>(i));
  }
  return Ids(victims);
}

std::string IdleTime(const EntryView& victim, absl::Time now) {
  if (victim.last_use == absl::InfinitePast()) return "never used";
  return absl::StrFormat("idle %.1f s", absl::ToDoubleSeconds(now - victim.last_use));
}

}  // namespace

double RecentUsesAt(const EntryView& entry, absl::Time now) {
  if (entry.recent_uses <= 0 || entry.last_use == absl::InfinitePast()) return 0;
  const double half_lives = absl::FDivDuration(now - entry.last_use, kUseHalfLife);
  return entry.recent_uses * std::exp2(-std::max(0.0, half_lives));
}

absl::Time HeldUntil(const EntryView& entry, const HoldOptions& options) {
  const absl::Duration stay = std::min(options.longest, options.load_times * entry.reload_time);
  if (entry.reuse_gap > kHoldGapShare * stay) return absl::InfinitePast();
  return std::min(entry.loaded_at + stay,
                  entry.last_use + std::max(kLeastHold, 2 * entry.reuse_gap));
}

std::vector<BaseId> ReloadCostPolicy::PickVictims(absl::Span<const EntryView> entries,
                                                  int64_t bytes) const {
  const std::vector<const EntryView*> candidates = Candidates(entries);
  if (bytes <= 0 || TotalBytes(candidates) < bytes) return {};
  const absl::Time newest_use = candidates.back()->last_use;
  std::vector<double> losses;
  for (const EntryView* candidate : candidates) losses.push_back(Loss(*candidate, newest_use));
  return candidates.size() <= kExactEntries ? CheapestSet(candidates, losses, bytes)
                                            : GreedySet(candidates, losses, bytes);
}

std::string ReloadCostPolicy::Reason(const EntryView& victim, absl::Time now) const {
  return absl::StrFormat("H=%.0f ms (%.2f recent uses x %.0f ms to reload), %s, %.1f MB",
                         Loss(victim, now), RecentUsesAt(victim, now),
                         absl::ToDoubleMilliseconds(victim.reload_time), IdleTime(victim, now),
                         victim.bytes / 1e6);
}

std::vector<BaseId> LruPolicy::PickVictims(absl::Span<const EntryView> entries,
                                           int64_t bytes) const {
  const std::vector<const EntryView*> candidates = Candidates(entries);
  if (bytes <= 0 || TotalBytes(candidates) < bytes) return {};
  std::vector<BaseId> victims;
  int64_t freed_bytes = 0;
  for (size_t i = 0; i < candidates.size() && freed_bytes < bytes; ++i) {
    victims.push_back(candidates[i]->id);
    freed_bytes += candidates[i]->bytes;
  }
  return victims;
}

std::string LruPolicy::Reason(const EntryView& victim, absl::Time now) const {
  return absl::StrFormat("least recently used: %s, %.1f MB", IdleTime(victim, now),
                         victim.bytes / 1e6);
}

}  // namespace coterie
