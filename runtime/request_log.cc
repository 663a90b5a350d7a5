#include "runtime/request_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"

namespace coterie {

absl::StatusOr<std::unique_ptr<RequestLog>> RequestLog::Open(const std::string& path) {
  const int file = open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the request log cannot be written: file=", path, ": ", std::strerror(errno)));
  }
  return std::unique_ptr<RequestLog>(new RequestLog(file));
}

RequestLog::~RequestLog() { close(file_); }

void RequestLog::Append(const RequestRecord& record) {
  const std::string line = absl::StrFormat(
      "{\"t\":%.3f,\"base\":%s,\"base_bytes\":%d,\"kv_bytes\":%d,\"load_s\":%.3f,\"hold_s\":%.3f}"
      "\n",
      absl::ToDoubleSeconds(record.arrival - absl::UnixEpoch()),
      nlohmann::json(record.base).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace),
      record.base_bytes, record.kv_bytes, absl::ToDoubleSeconds(record.load_time),
      absl::ToDoubleSeconds(record.hold_time));
  // One write: lines of several threads or processes do not mix.
  (void)!write(file_, line.data(), line.size());
}

}  // namespace coterie
