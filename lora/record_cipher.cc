#include "lora/record_cipher.h"

#include <sodium.h>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

#include "core/base/check.h"
#include "core/base/read_file.h"
#include "core/base/status_macros.h"

namespace coterie {
namespace {

static_assert(kSealKeyBytes == crypto_aead_xchacha20poly1305_ietf_KEYBYTES);
constexpr size_t kNonceBytes = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES;
constexpr size_t kTagBytes = crypto_aead_xchacha20poly1305_ietf_ABYTES;
static_assert(kSealedExtraBytes == kNonceBytes + kTagBytes);

unsigned char* Bytes(std::string& text) { return reinterpret_cast<unsigned char*>(text.data()); }
const unsigned char* Bytes(absl::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

void StartSodium() {
  static const bool started = sodium_init() >= 0;
  COTERIE_CHECK(started, "libsodium starts wherever there is a source of random numbers");
}

}  // namespace

std::string Seal(absl::string_view key, absl::string_view plain, absl::string_view context) {
  StartSodium();
  COTERIE_CHECK(key.size() == kSealKeyBytes, "a key has its length");
  std::string sealed(kNonceBytes + plain.size() + kTagBytes, '\0');
  randombytes_buf(sealed.data(), kNonceBytes);
  crypto_aead_xchacha20poly1305_ietf_encrypt(Bytes(sealed) + kNonceBytes, nullptr, Bytes(plain),
                                             plain.size(), Bytes(context), context.size(), nullptr,
                                             Bytes(sealed), Bytes(key));
  return sealed;
}

absl::StatusOr<std::string> Unseal(absl::string_view key, absl::string_view sealed,
                                   absl::string_view context) {
  StartSodium();
  COTERIE_CHECK(key.size() == kSealKeyBytes, "a key has its length");
  if (sealed.size() < kNonceBytes + kTagBytes) {
    return absl::DataLossError("encrypted bytes are cut short");
  }
  std::string plain(sealed.size() - kNonceBytes - kTagBytes, '\0');
  const int failed = crypto_aead_xchacha20poly1305_ietf_decrypt(
      Bytes(plain), nullptr, nullptr, Bytes(sealed) + kNonceBytes, sealed.size() - kNonceBytes,
      Bytes(context), context.size(), Bytes(sealed), Bytes(key));
  if (failed != 0) {
    return absl::DataLossError("encrypted bytes were changed, or sealed with another key");
  }
  return plain;
}

std::string NewSealKey() {
  StartSodium();
  std::string key(kSealKeyBytes, '\0');
  randombytes_buf(key.data(), key.size());
  return key;
}

absl::StatusOr<std::string> ReadKeyFile(absl::string_view path) {
  absl::StatusOr<std::string> text = ReadSmallFile(path, 256);
  if (absl::IsNotFound(text.status())) {
    return absl::NotFoundError(
        absl::StrCat("the key file does not exist; make one, and keep a copy elsewhere, with "
                     "`(umask 077; head -c 32 /dev/urandom | od -An -vtx1 | tr -d ' \\n' > FILE)`: "
                     "file=",
                     path));
  }
  COTERIE_RETURN_IF_ERROR(text.status());
  if (text->size() == kSealKeyBytes) return *std::move(text);
  const absl::string_view digits = absl::StripAsciiWhitespace(*text);
  std::string key(kSealKeyBytes, '\0');
  size_t n_bytes = 0;
  const bool is_hex = digits.size() == 2 * kSealKeyBytes &&
                      sodium_hex2bin(Bytes(key), key.size(), digits.data(), digits.size(), nullptr,
                                     &n_bytes, nullptr) == 0;
  WipeKey(*text);
  if (!is_hex || n_bytes != kSealKeyBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a key file holds 64 hexadecimal digits or 32 bytes: file=", path));
  }
  return key;
}

void WipeKey(std::string& key) { sodium_memzero(key.data(), key.size()); }

}  // namespace coterie
