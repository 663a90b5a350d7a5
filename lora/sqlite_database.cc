#include "lora/sqlite_database.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "core/base/status_macros.h"

namespace coterie {

SqliteStatement& SqliteStatement::Bind(int parameter, int64_t value) {
  const int code = sqlite3_bind_int64(statement_.get(), parameter, value);
  if (code != SQLITE_OK) bind_error_ = code;
  return *this;
}

SqliteStatement& SqliteStatement::Bind(int parameter, absl::string_view text) {
  // A null pointer would bind NULL.
  const char* data = text.empty() ? "" : text.data();
  const int code = sqlite3_bind_text64(statement_.get(), parameter, data, text.size(),
                                       SQLITE_TRANSIENT, SQLITE_UTF8);
  if (code != SQLITE_OK) bind_error_ = code;
  return *this;
}

SqliteStatement& SqliteStatement::BindBlob(int parameter, absl::string_view bytes) {
  const char* data = bytes.empty() ? "" : bytes.data();
  const int code =
      sqlite3_bind_blob64(statement_.get(), parameter, data, bytes.size(), SQLITE_TRANSIENT);
  if (code != SQLITE_OK) bind_error_ = code;
  return *this;
}

absl::StatusOr<bool> SqliteStatement::Step() {
  if (bind_error_ != SQLITE_OK) return database_->ErrorOf(bind_error_);
  const int code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return database_->ErrorOf(code);
}

std::string SqliteStatement::Bytes(int column) const {
  const void* bytes = sqlite3_column_blob(statement_.get(), column);
  const int n_bytes = sqlite3_column_bytes(statement_.get(), column);
  if (bytes == nullptr) return "";
  return {static_cast<const char*>(bytes), static_cast<size_t>(n_bytes)};
}

absl::StatusOr<std::unique_ptr<SqliteDatabase>> SqliteDatabase::Open(const std::string& path,
                                                                     absl::string_view what,
                                                                     absl::Duration busy_timeout) {
  // SQLite would make the file by the umask, and its companions by the file's mode.
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(what, " cannot be opened: file=", path, ": ", std::strerror(errno)));
  }
  close(file);
  auto database = std::unique_ptr<SqliteDatabase>(new SqliteDatabase(path, what));
  sqlite3* connection = nullptr;
  const int code = sqlite3_open_v2(path.c_str(), &connection,
                                   SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr);
  database->connection_.reset(connection);  // Even of a failure there is one, which knows why.
  if (code != SQLITE_OK) return database->ErrorOf(code);
  sqlite3_busy_timeout(connection, static_cast<int>(absl::ToInt64Milliseconds(busy_timeout)));
  sqlite3_db_config(connection, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  COTERIE_RETURN_IF_ERROR(
      database->Run("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;"
                    "PRAGMA secure_delete = ON; PRAGMA foreign_keys = ON;"));
  COTERIE_RETURN_IF_ERROR(database->UseWriteAheadLog(busy_timeout));
  return database;
}

// Two processes that turn a new file into one with a write-ahead log would wait for each other, so
// that SQLite says "busy" to one of them without waiting.
absl::Status SqliteDatabase::UseWriteAheadLog(absl::Duration patience) {
  const absl::Time deadline = absl::Now() + patience;
  while (true) {
    const absl::Status status = Run("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;");
    const bool is_busy = (sqlite3_errcode(connection_.get()) & 0xFF) == SQLITE_BUSY;
    if (status.ok() || !is_busy || absl::Now() > deadline) return status;
    absl::SleepFor(absl::Milliseconds(5));
  }
}

absl::Status SqliteDatabase::Run(absl::string_view sql) {
  const int code =
      sqlite3_exec(connection_.get(), std::string(sql).c_str(), nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? absl::OkStatus() : ErrorOf(code);
}

absl::StatusOr<SqliteStatement> SqliteDatabase::Prepare(absl::string_view sql) const {
  sqlite3_stmt* statement = nullptr;
  const int code = sqlite3_prepare_v2(connection_.get(), sql.data(), static_cast<int>(sql.size()),
                                      &statement, nullptr);
  if (code != SQLITE_OK) return ErrorOf(code);
  return SqliteStatement(this, statement);
}

absl::StatusOr<int64_t> SqliteDatabase::ReadInteger(absl::string_view sql) const {
  COTERIE_ASSIGN_OR_RETURN(SqliteStatement statement, Prepare(sql));
  COTERIE_ASSIGN_OR_RETURN(const bool found, statement.Step());
  return found ? statement.Integer(0) : 0;
}

absl::Status SqliteDatabase::ErrorOf(int code) const {
  const std::string detail =
      absl::StrCat(": file=", path_, ": ", sqlite3_errmsg(connection_.get()));
  switch (code & 0xFF) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError(
          absl::StrCat(what_, " is damaged; move the file away and a new one is begun", detail));
    case SQLITE_FULL:
    case SQLITE_IOERR:
      return absl::UnavailableError(
          absl::StrCat(what_, " cannot be written; is the disk full?", detail));
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return absl::UnavailableError(absl::StrCat(what_, " is held by another process", detail));
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_AUTH:
      return absl::FailedPreconditionError(
          absl::StrCat(what_, " cannot be opened for writing", detail));
    case SQLITE_NOMEM:
      return absl::ResourceExhaustedError(absl::StrCat(what_, ": no memory", detail));
    default:
      return absl::InternalError(absl::StrCat(what_, " failed", detail));
  }
}

absl::StatusOr<SqliteTransaction> SqliteTransaction::Begin(SqliteDatabase& database) {
  // Writing from the start: a read that turned into a write could not wait for another writer.
  COTERIE_RETURN_IF_ERROR(database.Run("BEGIN IMMEDIATE"));
  return SqliteTransaction(&database);
}

SqliteTransaction::~SqliteTransaction() {
  if (database_ != nullptr) (void)database_->Run("ROLLBACK");
}

absl::Status SqliteTransaction::Commit() {
  COTERIE_RETURN_IF_ERROR(database_->Run("COMMIT"));
  database_ = nullptr;
  return absl::OkStatus();
}

}  // namespace coterie
