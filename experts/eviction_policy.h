#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

#include "experts/base_source.h"

namespace coterie {

// A use counts half as much after this long without another.
inline constexpr absl::Duration kUseHalfLife = absl::Minutes(10);

// What a policy knows about one resident base.
struct EntryView {
  BaseId id;
  int64_t bytes = 0;
  absl::Time last_use = absl::InfinitePast();  // InfinitePast: prefetched and not used since.
  int64_t n_uses = 0;
  double recent_uses = 0;      // n_uses, each halved per kUseHalfLife of age, as of last_use.
  absl::Duration reload_time;  // Moving average of measured loads.
  absl::Time loaded_at = absl::InfinitePast();
  // Moving average of the time from the end of a use to the next request; infinite: not known.
  absl::Duration reuse_gap = absl::InfiniteDuration();
  bool idle = false;  // No lease, and no earlier request waits for it.
  bool pinned = false;

  bool evictable() const { return idle && !pinned; }
};

// recent_uses at `now` rather than at last_use.
double RecentUsesAt(const EntryView& entry, absl::Time now);

// How long a base that has just been loaded is kept for the request that is expected next.
struct HoldOptions {
  double load_times = 2.0;  // A stay of so many reload times is worth having loaded; 0: off.
  absl::Duration longest = absl::Seconds(2);  // And a bound on it: others wait for it to end.
};

// Until when the base is worth keeping for its next request, though others wait for its room: not
// past the stay that `options` grant after a load, and only while the next request may still be
// expected, twice the usual gap after the last use. Two clients that take turns thus do not make
// each request load: each gets a few answers per load. A base that is used now and then is not
// held at all. Pure. (As disks wait for the next read near by: Iyer and Druschel, SOSP 2001.)
absl::Time HeldUntil(const EntryView& entry, const HoldOptions& options);

// Chooses which bases make room. Pure: the same entries give the same victims. Thread-safe.
class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;

  // Evictable entries that together occupy at least `bytes`; empty if all of them do not, or if
  // bytes <= 0. The order of `entries` does not matter.
  virtual std::vector<BaseId> PickVictims(absl::Span<const EntryView> entries,
                                          int64_t bytes) const = 0;

  // What the choice of `victim` rested on, in words and numbers, for people who read events.
  virtual std::string Reason(const EntryView& victim, absl::Time now) const = 0;
};

// Gives up the set whose loss is least, where the loss of a base is the reload time that it is
// expected to cost: recent uses x measured reload time. Size counts because the set must free
// enough and not more than it must; ageing because uses fade. Equal losses: the smaller set, then
// fewer bytes, then the least recently used, then the id.
// Exact for up to kExactEntries evictable entries; beyond that greedy by loss per byte, as in
// Greedy-Dual-Size-Frequency (Cherkasova 1998, HPL-98-69), without superfluous victims.
class ReloadCostPolicy : public EvictionPolicy {
 public:
  static constexpr int kExactEntries = 12;

  std::vector<BaseId> PickVictims(absl::Span<const EntryView> entries,
                                  int64_t bytes) const override;
  std::string Reason(const EntryView& victim, absl::Time now) const override;
};

// Gives up the least recently used until enough is free. For comparison.
class LruPolicy : public EvictionPolicy {
 public:
  std::vector<BaseId> PickVictims(absl::Span<const EntryView> entries,
                                  int64_t bytes) const override;
  std::string Reason(const EntryView& victim, absl::Time now) const override;
};

}  // namespace coterie
