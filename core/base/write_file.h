#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace coterie {

// Writes beside `path`, syncs and renames, so that a reader sees the old file or the new one, never
// a part, whatever kills the process or the power. A killed process may leave `path`.XXXXXX behind.
// kNotFound if the folder does not exist, kPermissionDenied, kResourceExhausted for a full disk,
// else kInternal; all name the file and the system's reason.
absl::Status WriteFileAtomically(absl::string_view path, absl::string_view bytes);
// The same from pieces, which stand in the file one after another.
absl::Status WriteFileAtomically(absl::string_view path,
                                 absl::Span<const absl::string_view> pieces);

// Makes renames in a folder survive a power cut. What cannot be synced (some network folders) is
// none the worse.
void SyncFolder(const std::string& folder);

}  // namespace coterie
