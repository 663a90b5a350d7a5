#include "lora/interaction_log.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "core/base/byte_size.h"
#include "core/base/quote.h"
#include "core/base/status_macros.h"
#include "core/formats/utf8.h"
#include "lora/record_cipher.h"
#include "lora/sqlite_database.h"

namespace coterie {
namespace {

constexpr absl::Duration kBusyTimeout = absl::Seconds(5);

// "cotl": tells the file from other programs' databases.
constexpr int64_t kApplicationId = 0x636f746c;

// Version i + 1 is what migration i makes of version i. Never changed, only added to.
constexpr absl::string_view kMigrations[] = {R"sql(
  CREATE TABLE state (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    change INTEGER NOT NULL,            -- See InteractionLog::LastChange.
    key_check BLOB                      -- Sealed by the master key; NULL: plain text.
  );
  INSERT INTO state VALUES (1, 0, NULL);
  CREATE TABLE interaction (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    time_us INTEGER NOT NULL,
    expert TEXT NOT NULL,
    base TEXT NOT NULL,
    adapter TEXT NOT NULL,
    verdict INTEGER NOT NULL DEFAULT 0,
    right_domain TEXT NOT NULL DEFAULT '',
    feedback_us INTEGER NOT NULL DEFAULT 0,
    change INTEGER NOT NULL DEFAULT 0   -- 0: no feedback.
  );
  CREATE TABLE content (
    seq INTEGER PRIMARY KEY REFERENCES interaction (seq) ON DELETE CASCADE,
    body BLOB NOT NULL,
    edit BLOB
  );
  CREATE TABLE record_key (
    seq INTEGER PRIMARY KEY REFERENCES interaction (seq) ON DELETE CASCADE,
    wrapped BLOB NOT NULL
  );
  CREATE TABLE trained (expert TEXT PRIMARY KEY, change INTEGER NOT NULL);
  CREATE INDEX interaction_rated ON interaction (expert, change) WHERE change > 0;
  CREATE INDEX interaction_unrated ON interaction (seq) WHERE change = 0;
)sql",
                                             R"sql(
  ALTER TABLE interaction ADD COLUMN in_adapter INTEGER NOT NULL DEFAULT 0;
)sql"};
constexpr int64_t kSchemaVersion = std::size(kMigrations);

constexpr char kKeyCheck[] = "coterie interaction log";
constexpr char kRowColumns[] =
    "id, time_us, expert, base, adapter, verdict, right_domain, feedback_us, change, "
    "interaction.seq, body, edit";

absl::Status CheckText(absl::string_view what, absl::string_view text, int64_t max_bytes) {
  if (static_cast<int64_t>(text.size()) > max_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(what, " is too long for the interaction log: ",
                                                   FormatBytes(static_cast<int64_t>(text.size())),
                                                   ", allowed=", FormatBytes(max_bytes)));
  }
  if (const size_t bad = FindInvalidUtf8(text); bad < text.size()) {
    return absl::InvalidArgumentError(absl::StrCat(what, " is not UTF-8: byte=", bad));
  }
  return absl::OkStatus();
}

absl::Status UnknownId(absl::string_view id) {
  return absl::NotFoundError(
      absl::StrCat("no interaction has this id; `coterie interactions list` "
                   "names those that are kept: id=",
                   Quote(id)));
}

std::string BodyContext(absl::string_view id) { return absl::StrCat("body:", id); }
std::string EditContext(absl::string_view id) { return absl::StrCat("edit:", id); }
std::string KeyContext(absl::string_view id) { return absl::StrCat("key:", id); }

}  // namespace

InteractionLog::InteractionLog(InteractionLogOptions options) : options_(std::move(options)) {}

InteractionLog::~InteractionLog() { WipeKey(options_.key); }

absl::StatusOr<std::unique_ptr<InteractionLog>> InteractionLog::Open(
    InteractionLogOptions options) {
  auto log = std::unique_ptr<InteractionLog>(new InteractionLog(std::move(options)));
  MutexLock lock(log->mutex_);
  COTERIE_RETURN_IF_ERROR(log->Prepare());
  return log;
}

absl::Status InteractionLog::Prepare() {
  COTERIE_ASSIGN_OR_RETURN(
      database_, SqliteDatabase::Open(options_.path, "the interaction log", kBusyTimeout));
  COTERIE_RETURN_IF_ERROR(Migrate());
  return CheckKey();
}

absl::Status InteractionLog::Migrate() {
  COTERIE_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(*database_));
  COTERIE_ASSIGN_OR_RETURN(const int64_t application,
                           database_->ReadInteger("PRAGMA application_id"));
  COTERIE_ASSIGN_OR_RETURN(const int64_t version, database_->ReadInteger("PRAGMA user_version"));
  COTERIE_ASSIGN_OR_RETURN(const int64_t n_objects,
                           database_->ReadInteger("SELECT COUNT(*) FROM sqlite_schema"));
  if (application != kApplicationId && (n_objects > 0 || version != 0)) {
    return absl::DataLossError(
        absl::StrCat("the file is the database of another program, not an interaction log: file=",
                     options_.path));
  }
  if (version > kSchemaVersion) {
    return absl::UnimplementedError(absl::StrCat(
        "the interaction log was written by a later version of coterie; update, or move the file "
        "away: file=",
        options_.path, ", version=", version, ", known=", kSchemaVersion));
  }
  for (int64_t from = std::max<int64_t>(version, 0); from < kSchemaVersion; ++from) {
    COTERIE_RETURN_IF_ERROR(database_->Run(kMigrations[from]));
  }
  if (version == kSchemaVersion) return absl::OkStatus();
  COTERIE_RETURN_IF_ERROR(database_->Run(absl::StrCat("PRAGMA application_id = ", kApplicationId,
                                                      "; PRAGMA user_version = ", kSchemaVersion)));
  return transaction.Commit();
}

absl::Status InteractionLog::CheckKey() {
  std::string check;
  {
    COTERIE_ASSIGN_OR_RETURN(SqliteStatement state,
                             database_->Prepare("SELECT key_check FROM state"));
    COTERIE_RETURN_IF_ERROR(state.Step().status());
    check = state.Bytes(0);
  }
  if (check.empty()) return is_encrypted() ? EncryptAll() : absl::OkStatus();
  if (!is_encrypted()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the interaction log is encrypted; name its key_file under [learning]: file=",
                     options_.path));
  }
  if (Unseal(options_.key, check, kKeyCheck).ok()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the interaction log was encrypted with another key: file=", options_.path));
}

absl::Status InteractionLog::EncryptAll() {
  {
    COTERIE_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(*database_));
    std::vector<int64_t> rows;
    COTERIE_ASSIGN_OR_RETURN(SqliteStatement all, database_->Prepare("SELECT seq FROM content"));
    while (true) {
      COTERIE_ASSIGN_OR_RETURN(const bool found, all.Step());
      if (!found) break;
      rows.push_back(all.Integer(0));
    }
    for (const int64_t row : rows) COTERIE_RETURN_IF_ERROR(Encrypt(row));
    COTERIE_ASSIGN_OR_RETURN(SqliteStatement check,
                             database_->Prepare("UPDATE state SET key_check = ?1"));
    COTERIE_RETURN_IF_ERROR(check.BindBlob(1, Seal(options_.key, kKeyCheck, kKeyCheck)).Run());
    COTERIE_RETURN_IF_ERROR(transaction.Commit());
  }
  return database_->Run("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)");
}

absl::Status InteractionLog::Encrypt(int64_t row) {
  std::string id, body, edit;
  {
    COTERIE_ASSIGN_OR_RETURN(
        SqliteStatement plain,
        database_->Prepare("SELECT id, body, edit FROM content JOIN interaction USING (seq) "
                           "WHERE seq = ?1"));
    COTERIE_RETURN_IF_ERROR(plain.Bind(1, row).Run());
    id = plain.Bytes(0), body = plain.Bytes(1), edit = plain.Bytes(2);
  }
  COTERIE_RETURN_IF_ERROR(WriteBody(row, id, body));
  return edit.empty() ? absl::OkStatus() : WriteEdit(row, id, edit);
}

// Writes the private part of a row, under a new key if there is a master key.
absl::Status InteractionLog::WriteBody(int64_t row, absl::string_view id, absl::string_view body) {
  std::string stored(body);
  if (is_encrypted()) {
    std::string key = NewSealKey();
    stored = Seal(key, body, BodyContext(id));
    COTERIE_ASSIGN_OR_RETURN(
        SqliteStatement wrapped,
        database_->Prepare("INSERT OR REPLACE INTO record_key (seq, wrapped) VALUES (?1, ?2)"));
    const std::string sealed_key = Seal(options_.key, key, KeyContext(id));
    WipeKey(key);
    COTERIE_RETURN_IF_ERROR(wrapped.Bind(1, row).BindBlob(2, sealed_key).Run());
  }
  COTERIE_ASSIGN_OR_RETURN(
      SqliteStatement content,
      database_->Prepare("INSERT INTO content (seq, body) VALUES (?1, ?2) "
                         "ON CONFLICT (seq) DO UPDATE SET body = excluded.body"));
  return content.Bind(1, row).BindBlob(2, stored).Run();
}

// Empty: there is none.
absl::Status InteractionLog::WriteEdit(int64_t row, absl::string_view id, absl::string_view edit) {
  std::string stored(edit);
  if (!edit.empty() && is_encrypted()) {
    COTERIE_ASSIGN_OR_RETURN(std::string key, RecordKey(row, id));
    stored = Seal(key, edit, EditContext(id));
    WipeKey(key);
  }
  COTERIE_ASSIGN_OR_RETURN(SqliteStatement update,
                           database_->Prepare("UPDATE content SET edit = ?1 WHERE seq = ?2"));
  if (!stored.empty()) update.BindBlob(1, stored);  // Else NULL.
  return update.Bind(2, row).Run();
}

absl::StatusOr<std::string> InteractionLog::RecordKey(int64_t row, absl::string_view id) const {
  COTERIE_ASSIGN_OR_RETURN(SqliteStatement wrapped,
                           database_->Prepare("SELECT wrapped FROM record_key WHERE seq = ?1"));
  COTERIE_ASSIGN_OR_RETURN(const bool found, wrapped.Bind(1, row).Step());
  if (!found) return absl::DataLossError(absl::StrCat("an interaction has no key: id=", id));
  COTERIE_ASSIGN_OR_RETURN(std::string key, Unseal(options_.key, wrapped.Bytes(0), KeyContext(id)));
  if (key.size() == kSealKeyBytes) return key;
  return absl::DataLossError(absl::StrCat("the key of an interaction has a wrong length: id=", id));
}

absl::Status InteractionLog::Append(const Interaction& interaction) {
  if (interaction.id.empty() || interaction.messages.empty()) {
    return absl::InvalidArgumentError("an interaction needs an id and a message");
  }
  const std::string body = ContentJson(interaction);
  COTERIE_RETURN_IF_ERROR(
      CheckText("an interaction", body, std::min(kMaxTextBytes, options_.max_bytes / 4)));
  MutexLock lock(mutex_);
  COTERIE_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(*database_));
  if (RowOf(interaction.id).ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("an interaction has this id already: id=", Quote(interaction.id)));
  }
  COTERIE_ASSIGN_OR_RETURN(
      SqliteStatement insert,
      database_->Prepare("INSERT INTO interaction (id, time_us, expert, base, adapter) "
                         "VALUES (?1, ?2, ?3, ?4, ?5)"));
  insert.Bind(1, interaction.id).Bind(2, absl::ToUnixMicros(interaction.time));
  insert.Bind(3, interaction.expert).Bind(4, interaction.base).Bind(5, interaction.adapter);
  COTERIE_RETURN_IF_ERROR(insert.Run());
  const int64_t row = database_->last_row();
  COTERIE_RETURN_IF_ERROR(WriteBody(row, interaction.id, body));
  COTERIE_RETURN_IF_ERROR(MakeRoom(row));
  return transaction.Commit();
}

absl::StatusOr<int64_t> InteractionLog::UsedBytesLocked() const {
  COTERIE_ASSIGN_OR_RETURN(const int64_t n_pages, database_->ReadInteger("PRAGMA page_count"));
  COTERIE_ASSIGN_OR_RETURN(const int64_t n_free, database_->ReadInteger("PRAGMA freelist_count"));
  COTERIE_ASSIGN_OR_RETURN(const int64_t page_bytes, database_->ReadInteger("PRAGMA page_size"));
  return (n_pages - n_free) * page_bytes;
}

// The row that is missed least; 0: there is none but the one kept.
absl::StatusOr<int64_t> InteractionLog::FirstToGo(int64_t kept_row) const {
  for (const char* which : {"in_adapter = 0 AND change = 0", "in_adapter = 0", "TRUE"}) {
    COTERIE_ASSIGN_OR_RETURN(
        SqliteStatement oldest,
        database_->Prepare(absl::StrCat("SELECT seq FROM interaction WHERE ", which,
                                        " AND seq != ?1 ORDER BY seq LIMIT 1")));
    COTERIE_ASSIGN_OR_RETURN(const bool found, oldest.Bind(1, kept_row).Step());
    if (found) return oldest.Integer(0);
  }
  return 0;
}

absl::Status InteractionLog::MakeRoom(int64_t kept_row) {
  while (true) {
    COTERIE_ASSIGN_OR_RETURN(const int64_t bytes, UsedBytesLocked());
    if (bytes <= options_.max_bytes) return absl::OkStatus();
    COTERIE_ASSIGN_OR_RETURN(const int64_t row, FirstToGo(kept_row));
    if (row == 0) return absl::OkStatus();  // It is alone; Append has bounded it.
    COTERIE_RETURN_IF_ERROR(DeleteRow(row));
  }
}

absl::Status InteractionLog::DeleteRow(int64_t row) {
  COTERIE_ASSIGN_OR_RETURN(SqliteStatement change,
                           database_->Prepare("UPDATE state SET change = change + 1 WHERE EXISTS "
                                              "(SELECT 1 FROM interaction WHERE seq = ?1 AND "
                                              "change > 0)"));
  COTERIE_RETURN_IF_ERROR(change.Bind(1, row).Run());
  for (const char* table : {"record_key", "content", "interaction"}) {
    COTERIE_ASSIGN_OR_RETURN(SqliteStatement erase, database_->Prepare(absl::StrCat(
                                                        "DELETE FROM ", table, " WHERE seq = ?1")));
    COTERIE_RETURN_IF_ERROR(erase.Bind(1, row).Run());
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> InteractionLog::RowOf(absl::string_view id) const {
  COTERIE_ASSIGN_OR_RETURN(SqliteStatement find,
                           database_->Prepare("SELECT seq FROM interaction WHERE id = ?1"));
  COTERIE_ASSIGN_OR_RETURN(const bool found, find.Bind(1, id).Step());
  if (!found) return UnknownId(id);
  return find.Integer(0);
}

absl::StatusOr<int64_t> InteractionLog::NextChange() {
  COTERIE_RETURN_IF_ERROR(database_->Run("UPDATE state SET change = change + 1"));
  return database_->ReadInteger("SELECT change FROM state");
}

absl::StatusOr<Feedback> InteractionLog::SetFeedback(absl::string_view id, Feedback feedback) {
  if (feedback.verdict != Verdict::kEdited) {
    feedback.text.clear();
  } else if (feedback.text.empty()) {
    return absl::InvalidArgumentError("an edit needs the text that the answer should have been");
  }
  COTERIE_RETURN_IF_ERROR(
      CheckText("an edit", feedback.text, std::min(kMaxTextBytes, options_.max_bytes / 4)));
  COTERIE_RETURN_IF_ERROR(CheckText("a domain", feedback.domain, 1000));
  MutexLock lock(mutex_);
  COTERIE_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(*database_));
  COTERIE_ASSIGN_OR_RETURN(const int64_t row, RowOf(id));
  COTERIE_ASSIGN_OR_RETURN(const Interaction before, GetLocked(id));
  if (feedback.verdict == Verdict::kEdited && feedback.text == before.reply) {
    feedback = {Verdict::kAccepted, "", feedback.domain};
  }
  const Feedback& known = before.feedback;
  if (known.verdict == feedback.verdict && known.text == feedback.text &&
      known.domain == feedback.domain) {
    return feedback;
  }
  COTERIE_ASSIGN_OR_RETURN(int64_t change, NextChange());
  if (feedback.verdict == Verdict::kNone && feedback.domain.empty()) change = 0;
  COTERIE_ASSIGN_OR_RETURN(
      SqliteStatement update,
      database_->Prepare("UPDATE interaction SET verdict = ?1, right_domain = ?2, feedback_us = "
                         "?3, change = ?4 WHERE seq = ?5"));
  update.Bind(1, static_cast<int64_t>(feedback.verdict)).Bind(2, feedback.domain);
  update.Bind(3, absl::ToUnixMicros(absl::Now())).Bind(4, change).Bind(5, row);
  COTERIE_RETURN_IF_ERROR(update.Run());
  COTERIE_RETURN_IF_ERROR(WriteEdit(row, id, feedback.text));
  COTERIE_RETURN_IF_ERROR(MakeRoom(row));
  COTERIE_RETURN_IF_ERROR(transaction.Commit());
  return feedback;
}

absl::StatusOr<Interaction> InteractionLog::Get(absl::string_view id) const {
  MutexLock lock(mutex_);
  return GetLocked(id);
}

absl::StatusOr<Interaction> InteractionLog::GetLocked(absl::string_view id) const {
  COTERIE_ASSIGN_OR_RETURN(
      SqliteStatement row,
      database_->Prepare(absl::StrCat("SELECT ", kRowColumns,
                                      " FROM interaction JOIN content USING (seq) WHERE id = ?1")));
  COTERIE_ASSIGN_OR_RETURN(const bool found, row.Bind(1, id).Step());
  if (!found) return UnknownId(id);
  return ReadRow(row);
}

absl::StatusOr<Interaction> InteractionLog::ReadRow(const SqliteStatement& row) const {
  Interaction read;
  read.id = row.Bytes(0);
  read.time = absl::FromUnixMicros(row.Integer(1));
  read.expert = row.Bytes(2);
  read.base = row.Bytes(3);
  read.adapter = row.Bytes(4);
  const int64_t verdict = row.Integer(5);
  if (verdict < 0 || verdict > static_cast<int64_t>(Verdict::kEdited)) {
    return absl::DataLossError(
        absl::StrCat("feedback is of an unknown kind: id=", read.id, ", verdict=", verdict));
  }
  read.feedback.verdict = static_cast<Verdict>(verdict);
  read.feedback.domain = row.Bytes(6);
  read.change = row.Integer(8);
  read.feedback_time =
      read.change == 0 ? absl::InfinitePast() : absl::FromUnixMicros(row.Integer(7));
  std::string body = row.Bytes(10), edit = row.Bytes(11);
  if (is_encrypted()) {
    COTERIE_ASSIGN_OR_RETURN(std::string key, RecordKey(row.Integer(9), read.id));
    COTERIE_ASSIGN_OR_RETURN(body, Unseal(key, body, BodyContext(read.id)));
    if (!edit.empty()) {
      COTERIE_ASSIGN_OR_RETURN(edit, Unseal(key, edit, EditContext(read.id)));
    }
    WipeKey(key);
  }
  read.feedback.text = std::move(edit);
  COTERIE_RETURN_IF_ERROR(ReadContentJson(body, read));
  return read;
}

absl::StatusOr<SqliteStatement> InteractionLog::Select(absl::string_view columns,
                                                       const InteractionFilter& filter) const {
  std::string sql = absl::StrCat("SELECT ", columns,
                                 " FROM interaction JOIN content USING (seq) WHERE change > ?1");
  if (!filter.expert.empty()) absl::StrAppend(&sql, " AND expert = ?2");
  if (filter.with_domain) absl::StrAppend(&sql, " AND right_domain != ''");
  absl::StrAppend(&sql, " ORDER BY interaction.seq", filter.newest_first ? " DESC" : "",
                  " LIMIT ?3");
  COTERIE_ASSIGN_OR_RETURN(SqliteStatement rows, database_->Prepare(sql));
  const bool rated = filter.with_feedback || filter.with_domain || filter.changed_after > 0;
  rows.Bind(1, rated ? std::max<int64_t>(0, filter.changed_after) : -1);
  if (!filter.expert.empty()) rows.Bind(2, filter.expert);
  rows.Bind(3, filter.limit > 0 ? filter.limit : int64_t{-1});
  return rows;
}

absl::StatusOr<std::vector<Interaction>> InteractionLog::List(
    const InteractionFilter& filter) const {
  MutexLock lock(mutex_);
  COTERIE_ASSIGN_OR_RETURN(SqliteStatement rows, Select(kRowColumns, filter));
  std::vector<Interaction> found;
  while (true) {
    COTERIE_ASSIGN_OR_RETURN(const bool is_row, rows.Step());
    if (!is_row) return found;
    COTERIE_ASSIGN_OR_RETURN(found.emplace_back(), ReadRow(rows));
  }
}

absl::StatusOr<std::vector<std::pair<std::string, int64_t>>> InteractionLog::ListChanges(
    const InteractionFilter& filter) const {
  MutexLock lock(mutex_);
  COTERIE_ASSIGN_OR_RETURN(SqliteStatement rows, Select("id, change", filter));
  std::vector<std::pair<std::string, int64_t>> found;
  while (true) {
    COTERIE_ASSIGN_OR_RETURN(const bool is_row, rows.Step());
    if (!is_row) return found;
    found.emplace_back(rows.Bytes(0), rows.Integer(1));
  }
}

absl::Status InteractionLog::Forget(absl::string_view id) {
  MutexLock lock(mutex_);
  {
    COTERIE_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(*database_));
    COTERIE_ASSIGN_OR_RETURN(const int64_t row, RowOf(id));
    COTERIE_RETURN_IF_ERROR(DeleteRow(row));
    COTERIE_RETURN_IF_ERROR(transaction.Commit());
  }
  return database_->Run("PRAGMA wal_checkpoint(TRUNCATE)");
}

absl::StatusOr<int64_t> InteractionLog::LastChange() const {
  MutexLock lock(mutex_);
  return database_->ReadInteger("SELECT change FROM state");
}

absl::StatusOr<std::map<std::string, FeedbackCounts>> InteractionLog::NewFeedback() const {
  MutexLock lock(mutex_);
  COTERIE_ASSIGN_OR_RETURN(
      SqliteStatement rows,
      database_->Prepare(
          "SELECT expert, SUM(verdict = 1), SUM(verdict = 2), SUM(verdict = 3) FROM interaction "
          "LEFT JOIN trained USING (expert) "
          "WHERE interaction.change > COALESCE(trained.change, 0) AND verdict > 0 "
          "GROUP BY expert"));
  std::map<std::string, FeedbackCounts> counts;
  while (true) {
    COTERIE_ASSIGN_OR_RETURN(const bool found, rows.Step());
    if (!found) return counts;
    counts[rows.Bytes(0)] = {rows.Integer(1), rows.Integer(2), rows.Integer(3)};
  }
}

absl::Status InteractionLog::MarkTrained(absl::string_view expert, int64_t through_change) {
  MutexLock lock(mutex_);
  COTERIE_ASSIGN_OR_RETURN(
      SqliteStatement mark,
      database_->Prepare("INSERT INTO trained (expert, change) VALUES (?1, ?2) "
                         "ON CONFLICT (expert) DO UPDATE SET change = excluded.change"));
  return mark.Bind(1, expert).Bind(2, through_change).Run();
}

absl::Status InteractionLog::MarkInAdapter(absl::Span<const std::string> ids) {
  MutexLock lock(mutex_);
  COTERIE_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(*database_));
  for (const std::string& id : ids) {
    COTERIE_ASSIGN_OR_RETURN(
        SqliteStatement mark,
        database_->Prepare("UPDATE interaction SET in_adapter = 1 WHERE id = ?1"));
    COTERIE_RETURN_IF_ERROR(mark.Bind(1, id).Run());
  }
  return transaction.Commit();
}

absl::StatusOr<int64_t> InteractionLog::used_bytes() const {
  MutexLock lock(mutex_);
  return UsedBytesLocked();
}

}  // namespace coterie
