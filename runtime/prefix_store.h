#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "runtime/prefix_block_file.h"

namespace coterie {

// Blocks of prefixes on disk, in a folder that only its owner may enter:
//   FOLDER/NAME.kv      a block (runtime/prefix_block_file.h)
//   FOLDER/forgotten    changes whenever an interaction was forgotten, by whatever process
//   FOLDER/lock         held by who writes, alone by who forgets
// A block is written beside its place, synced and renamed. One that cannot be trusted is removed.
// Those that were used least recently go beyond max_bytes. Thread-safe, and safe beside other
// processes: each looks at the folder as it is.
class PrefixStore {
 public:
  // max_bytes: 0: blocks are neither read nor written. key: kSealKeyBytes, or empty.
  PrefixStore(std::string folder, int64_t max_bytes, std::string key);
  ~PrefixStore();
  PrefixStore(const PrefixStore&) = delete;
  PrefixStore& operator=(const PrefixStore&) = delete;

  bool is_on() const { return max_bytes_ > 0; }
  const std::string& key() const { return key_; }
  int64_t n_damaged() const { return n_damaged_; }    // Files that were removed unread.
  int64_t n_failures() const { return n_failures_; }  // Writes that did not come to their end.

  bool Has(absl::string_view name) const;

  // Reads a block's keys and values; false if it is not there, or is not to be trusted.
  bool Read(const BlockPlace& place, uint8_t* block);

  // Writes the file of a block, unless something was forgotten since `era` (kAborted): it may be in
  // it. kResourceExhausted for a full disk and for a file beyond max_bytes.
  absl::Status Write(absl::string_view name, absl::string_view file, absl::string_view era);

  // These blocks, of one chain from its first on, were used now: its end goes first.
  void NoteUse(const std::vector<std::string>& names);

  // What the file `forgotten` says; empty if nothing ever was. Cheap: one small file.
  std::string Era() const;

  // Removes every block, also those of other processes and other settings, and ends the era. An
  // error names what could not be removed.
  absl::Status Forget();

 private:
  class Lock;

  std::string PathOf(absl::string_view name) const;
  absl::Status MakeRoom(int64_t bytes);

  const std::string folder_;
  const int64_t max_bytes_;
  std::string key_;
  std::atomic<int64_t> n_damaged_{0};
  std::atomic<int64_t> n_failures_{0};
};

}  // namespace coterie
