#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "core/threads/mutex.h"

namespace coterie {

// One answered request, as a cache sees it. Says nothing of what was asked or answered.
struct RequestRecord {
  absl::Time arrival;
  std::string base;  // The expert's name, as far as it has its base for itself.
  int64_t base_bytes = 0;
  int64_t kv_bytes = 0;      // KV and scratch.
  absl::Duration load_time;  // Of the load it waited for; zero for a hit.
  absl::Duration hold_time;  // How long it held its base.
};

// A line of JSON per request, for `coterie simulate`:
//   {"t":1800000000.123,"base":"code","base_bytes":491000000,"kv_bytes":26000000,"load_s":0.41,
//    "hold_s":2.5}
// Thread-safe. A line that cannot be written is dropped.
class RequestLog {
 public:
  // Appends to the file, which is made if it is not there.
  static absl::StatusOr<std::unique_ptr<RequestLog>> Open(const std::string& path);
  ~RequestLog();

  void Append(const RequestRecord& record);

 private:
  explicit RequestLog(int file) : file_(file) {}

  const int file_;
};

}  // namespace coterie
