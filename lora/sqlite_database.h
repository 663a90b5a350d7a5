#pragma once

// SQLite as this project uses it: one connection, statements that cannot leak, absl::Status.

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace coterie {

// A prepared statement. Parameters count from 1, columns from 0, as in SQLite. Move-only,
// thread-compatible; its database outlives it.
class SqliteStatement {
 public:
  SqliteStatement& Bind(int parameter, int64_t value);
  SqliteStatement& Bind(int parameter, absl::string_view text);
  SqliteStatement& BindBlob(int parameter, absl::string_view bytes);

  // True if there is a row. Errors as SqliteDatabase.
  absl::StatusOr<bool> Step();
  // For a statement without rows.
  absl::Status Run() { return Step().status(); }

  int64_t Integer(int column) const { return sqlite3_column_int64(statement_.get(), column); }
  // Text or blob; empty for NULL.
  std::string Bytes(int column) const;
  bool IsNull(int column) const {
    return sqlite3_column_type(statement_.get(), column) == SQLITE_NULL;
  }

 private:
  friend class SqliteDatabase;
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  SqliteStatement(const class SqliteDatabase* database, sqlite3_stmt* statement)
      : database_(database), statement_(statement) {}

  const class SqliteDatabase* database_;
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
  int bind_error_ = SQLITE_OK;
};

// A connection to a file of this user alone. Thread-compatible.
//   kDataLoss            the file is no SQLite database, or damaged
//   kFailedPrecondition  it cannot be opened or written
//   kUnavailable         no room on the disk, or another process holds it for too long
class SqliteDatabase {
 public:
  // Makes the file, readable by this user only, if it is not there. Write-ahead log, foreign keys,
  // deleted bytes overwritten with zeros. `what` names the file in messages: "the interaction log".
  static absl::StatusOr<std::unique_ptr<SqliteDatabase>> Open(const std::string& path,
                                                              absl::string_view what,
                                                              absl::Duration busy_timeout);

  // Statements without parameters and rows.
  absl::Status Run(absl::string_view sql);
  absl::StatusOr<SqliteStatement> Prepare(absl::string_view sql) const;
  // The first column of the first row.
  absl::StatusOr<int64_t> ReadInteger(absl::string_view sql) const;
  // Rows that the last statement inserted, changed or deleted.
  int64_t n_changed() const { return sqlite3_changes64(connection_.get()); }
  int64_t last_row() const { return sqlite3_last_insert_rowid(connection_.get()); }

  absl::Status ErrorOf(int code) const;
  const std::string& path() const { return path_; }

 private:
  struct Close {
    void operator()(sqlite3* connection) const { sqlite3_close(connection); }
  };
  SqliteDatabase(std::string path, absl::string_view what) : path_(std::move(path)), what_(what) {}

  absl::Status UseWriteAheadLog(absl::Duration patience);

  const std::string path_;
  const std::string what_;
  std::unique_ptr<sqlite3, Close> connection_;
};

// A write: all of it or, unless Commit is reached, nothing.
class SqliteTransaction {
 public:
  static absl::StatusOr<SqliteTransaction> Begin(SqliteDatabase& database);
  SqliteTransaction(SqliteTransaction&& other) noexcept
      : database_(std::exchange(other.database_, nullptr)) {}
  SqliteTransaction& operator=(SqliteTransaction&&) = delete;
  ~SqliteTransaction();
  absl::Status Commit();

 private:
  explicit SqliteTransaction(SqliteDatabase* database) : database_(database) {}

  SqliteDatabase* database_;
};

}  // namespace coterie
