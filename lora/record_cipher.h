#pragma once

// Encryption of what users wrote: XChaCha20-Poly1305 (libsodium) under a key of each record's own,
// which lies beside it wrapped by the master key. Without the wrapped key, the record and every
// copy of it is noise.

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace coterie {

// Seals bytes: nonce (24, random), ciphertext, tag (16), kSealedExtraBytes more than they are.
// `context` is authenticated and not stored: what was sealed for one place does not open in
// another.
inline constexpr size_t kSealedExtraBytes = 40;
std::string Seal(absl::string_view key, absl::string_view plain, absl::string_view context);
// kDataLoss if the bytes were not sealed by this key for this context, or were changed.
absl::StatusOr<std::string> Unseal(absl::string_view key, absl::string_view sealed,
                                   absl::string_view context);

// A new random key of kSealKeyBytes.
inline constexpr size_t kSealKeyBytes = 32;
std::string NewSealKey();

// The key in a file: 64 hexadecimal digits, or 32 bytes. kNotFound saying how to make one,
// kInvalidArgument for anything else in the file.
absl::StatusOr<std::string> ReadKeyFile(absl::string_view path);

// Overwrites a key that is not needed any more.
void WipeKey(std::string& key);

}  // namespace coterie
