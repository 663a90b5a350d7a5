#pragma once

// What was asked and answered on this machine, and what the user said of it: a SQLite file that
// answers, training, retrieval and the router's corrections share.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "core/threads/mutex.h"
#include "lora/interaction.h"

namespace coterie {

class SqliteDatabase;
class SqliteStatement;

struct InteractionLogOptions {
  std::string path;
  // Of the file. Beyond them the oldest interactions without feedback go first, then the oldest
  // with it, and those that an adapter was trained on last.
  int64_t max_bytes = 64'000'000;
  // Master key (kSealKeyBytes); empty: plain text. A log that was in plain text is encrypted, and
  // rewritten, when it is first opened with a key.
  std::string key;
};

struct InteractionFilter {
  std::string expert = {};     // Empty: any.
  bool with_feedback = false;  // Only those with a verdict or a domain.
  bool with_domain = false;    // Only those with Feedback::domain.
  int64_t changed_after = 0;   // Only those whose `change` is greater.
  bool newest_first = false;   // By the order in which they were logged.
  int64_t limit = 0;           // 0: all.
};

struct FeedbackCounts {
  int64_t n_accepted = 0, n_rejected = 0, n_edited = 0;
  int64_t total() const { return n_accepted + n_rejected + n_edited; }
};

// Thread-safe, also against other processes on the same file. What a call has returned from
// survives the death of the process. Its mutex is held during I/O: nobody else waits for it.
//
// In plain text even with a key: ids, times, the names of expert, base and adapter, the verdict and
// the corrected domain. Messages, replies, edits and the rest are sealed, each interaction under a
// key of its own that is wrapped by the master key; deleting an interaction deletes its key first.
//
//   kNotFound            no interaction has this id
//   kInvalidArgument     text that is empty, too long or not UTF-8; an id that exists
//   kUnavailable         the disk is full, or another process holds the file for seconds
//   kFailedPrecondition  the file cannot be written; the key is missing or another
//   kDataLoss            the file is damaged, or something else
//   kUnimplemented       a later version of this program wrote it
class InteractionLog {
 public:
  // Of the messages and the reply of one interaction, and of one edit.
  static constexpr int64_t kMaxTextBytes = 1 << 20;

  static absl::StatusOr<std::unique_ptr<InteractionLog>> Open(InteractionLogOptions options);
  ~InteractionLog();

  // Adds one; its feedback is ignored.
  absl::Status Append(const Interaction& interaction);

  // Replaces what was said before; earlier feedback is not kept. kNone without a domain takes it
  // back. The same again changes nothing; an edit equal to the reply is an acceptance. Returns the
  // feedback as it is now.
  absl::StatusOr<Feedback> SetFeedback(absl::string_view id, Feedback feedback);

  absl::StatusOr<Interaction> Get(absl::string_view id) const;
  absl::StatusOr<std::vector<Interaction>> List(const InteractionFilter& filter) const;
  // The id and `change` of what List would give.
  absl::StatusOr<std::vector<std::pair<std::string, int64_t>>> ListChanges(
      const InteractionFilter& filter) const;

  // Erases one: its key, its text, and what the write-ahead log still had of it.
  absl::Status Forget(absl::string_view id);

  // A number that grows with every change of feedback and every deletion of an interaction that had
  // some: whoever derived something from feedback is up to date while it stands.
  absl::StatusOr<int64_t> LastChange() const;

  // Verdicts by expert that no training has seen yet.
  absl::StatusOr<std::map<std::string, FeedbackCounts>> NewFeedback() const;
  // A training of this expert has seen all feedback up to this change.
  absl::Status MarkTrained(absl::string_view expert, int64_t through_change);

  // An adapter was trained on these: without them it could not be trained again as it was. Ids that
  // are not there are passed over.
  absl::Status MarkInAdapter(absl::Span<const std::string> ids);

  // Bytes in use of the file.
  absl::StatusOr<int64_t> used_bytes() const;
  bool is_encrypted() const { return !options_.key.empty(); }
  const std::string& path() const { return options_.path; }

 private:
  explicit InteractionLog(InteractionLogOptions options);

  absl::Status Prepare() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Migrate() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckKey() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status EncryptAll() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Encrypt(int64_t row) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::StatusOr<int64_t> RowOf(absl::string_view id) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<Interaction> GetLocked(absl::string_view id) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<SqliteStatement> Select(absl::string_view columns,
                                         const InteractionFilter& filter) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<Interaction> ReadRow(const SqliteStatement& row) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status WriteBody(int64_t row, absl::string_view id, absl::string_view body)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status WriteEdit(int64_t row, absl::string_view id, absl::string_view edit)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<std::string> RecordKey(int64_t row, absl::string_view id) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status DeleteRow(int64_t row) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<int64_t> FirstToGo(int64_t kept_row) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status MakeRoom(int64_t kept_row) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<int64_t> NextChange() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<int64_t> UsedBytesLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  InteractionLogOptions options_;
  mutable Mutex mutex_;
  std::unique_ptr<SqliteDatabase> database_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace coterie
