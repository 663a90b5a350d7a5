#pragma once

// Adapters on disk, by name and version:
//   ROOT/NAME/v0001/{adapter_config.json, adapter_model.safetensors, ledger.json}
//   ROOT/NAME/current      the number of the version in use, as text
// A version is written beside its place, synced and renamed, and only then named in `current`,
// which is replaced in the same way: a reader sees the old version or the new one, whatever kills
// the writer. Versions never change.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "lora/adapter.h"

namespace coterie {

// Where a version comes from.
struct AdapterLedger {
  std::vector<std::string> interactions;  // Ids of those it was trained on.
  std::string trainer;                    // A JSON object of its maker: options and seed. Or empty.
  std::string metrics;                    // A JSON object of its maker. Or empty.
};

struct StoredAdapter {
  Adapter adapter;
  AdapterLedger ledger;
  int64_t version = 0;
  // Why this is not the version that `current` names, one sentence; empty if it is.
  std::string problem;

  std::string label() const;  // "home@3"
};

struct AdapterVersionSummary {
  int64_t version = 0;
  int64_t file_bytes = 0;
  int64_t n_interactions = 0;
  std::string problem;  // Empty: its ledger and headers are sound.
};

struct AdapterSummary {
  std::string name;
  int64_t current = 0;  // 0: nothing was published to the end.
  BaseIdentity base;    // Of the current version, or the newest readable one below it.
  std::vector<AdapterVersionSummary> versions;  // Rising.
};

// "home@3": unique among the versions of all adapters of a store.
std::string AdapterLabel(absl::string_view name, int64_t version);

// Thread-safe, and safe beside other processes: writers of one adapter take turns. Errors name the
// file: kNotFound for an adapter or version that is not there, kDataLoss for a damaged one,
// kPermissionDenied for a read-only store, kResourceExhausted for a full disk; after any of them
// what was there is there.
class AdapterStore {
 public:
  // Called between the steps of a change with the step's name, for tests that stop there.
  using StepHook = std::function<void(absl::string_view step)>;

  // `home` is the model store; adapters lie in home/adapters, which the first Publish makes.
  explicit AdapterStore(absl::string_view home, StepHook on_step = nullptr);

  // Adds the next version of adapter.name, makes it current, and returns its number.
  absl::StatusOr<int64_t> Publish(const Adapter& adapter, const AdapterLedger& ledger);

  // The version that `current` names, without reading it. Cheap: one small file.
  absl::StatusOr<int64_t> CurrentVersion(absl::string_view name) const;

  // The current version, or, if that cannot be read, the newest one below it that can, with
  // `problem`. The error of the current one if there is none.
  absl::StatusOr<StoredAdapter> Current(absl::string_view name) const;

  absl::StatusOr<StoredAdapter> Load(absl::string_view name, int64_t version) const;

  // Where a version comes from. Its other files are neither read nor checked.
  absl::StatusOr<AdapterLedger> Ledger(absl::string_view name, int64_t version) const;

  // The bytes that a version takes as it is served, without reading it all.
  absl::StatusOr<int64_t> ServedBytes(absl::string_view name, int64_t version) const;

  // Makes an earlier or later version current, after it was read.
  absl::Status Rollback(absl::string_view name, int64_t version);

  // Deletes a version that is not current; kFailedPrecondition if it is.
  absl::Status RemoveVersion(absl::string_view name, int64_t version);

  // Deletes all versions.
  absl::Status Remove(absl::string_view name);

  // By name. An unreadable adapter is listed with its problem.
  absl::StatusOr<std::vector<AdapterSummary>> List() const;

  // Where a version's files are.
  std::string FolderOf(absl::string_view name, int64_t version) const;

 private:
  class Change;

  absl::StatusOr<AdapterLedger> CheckedLedger(const std::string& folder) const;
  absl::StatusOr<std::vector<int64_t>> VersionsOf(absl::string_view name) const;
  std::string AdapterFolder(absl::string_view name) const;
  absl::StatusOr<AdapterSummary> Summarize(const std::string& name) const;
  void Step(absl::string_view step) const;

  std::string root_;
  StepHook on_step_;
};

}  // namespace coterie
