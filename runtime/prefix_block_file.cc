#include "runtime/prefix_block_file.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "lora/record_cipher.h"
#include "lora/sha256.h"

namespace coterie {
namespace {

constexpr absl::string_view kMagic = "coterieP";
constexpr uint32_t kVersion = 2;  // 2: keys in tiles.
constexpr size_t kNameBytes = 64;
constexpr size_t kChecksumAt = kMagic.size() + 16 + kNameBytes;
constexpr size_t kHeadBytes = kChecksumAt + sizeof(uint64_t);

template <typename T>
void Append(T value, std::string* bytes) {
  bytes->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

// Of damage, not of forgery. Every step is a bijection of its lane, so that no single change of
// eight bytes goes unseen; four lanes, because one would wait for its own multiplications.
uint64_t ChecksumOf(absl::string_view bytes) {
  constexpr uint64_t kPrime = 0x9e3779b97f4a7c15u;
  std::array<uint64_t, 4> lanes = {1, 2, 3, 4};
  size_t i = 0;
  const auto step = [&](size_t lane, uint64_t word) {
    uint64_t mixed = (lanes[lane] ^ word) * kPrime;
    lanes[lane] = mixed ^ (mixed >> 32);
  };
  for (; i + 32 <= bytes.size(); i += 32) {
    for (size_t lane = 0; lane < 4; ++lane) {
      uint64_t word;
      std::memcpy(&word, bytes.data() + i + 8 * lane, sizeof(word));
      step(lane, word);
    }
  }
  for (; i < bytes.size(); ++i) step(i % 4, static_cast<uint8_t>(bytes[i]));
  uint64_t sum = bytes.size();
  for (const uint64_t lane : lanes) sum = (sum ^ lane) * kPrime;
  return sum;
}

absl::string_view BytesOf(absl::Span<const TokenId> tokens) {
  return {reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(TokenId)};
}

// Not sealed: what is the same for every file of this place but its checksum.
std::string HeadOf(const BlockPlace& place, bool is_sealed) {
  COTERIE_CHECK(place.name.size() == kNameBytes && place.before.size() == kNameBytes,
                "a block has a name");
  std::string head(kMagic);
  Append(kVersion, &head);
  Append(static_cast<uint32_t>(is_sealed), &head);
  Append(static_cast<uint64_t>(place.block_bytes), &head);
  return head + place.name;
}

size_t BodyBytes(const BlockPlace& place) {
  return kNameBytes + place.tokens.size() * sizeof(TokenId) +
         static_cast<size_t>(place.block_bytes);
}

// Attention needs finite keys and values, those included that a token does not see.
bool AreFinite(absl::string_view halves) {
  constexpr uint16_t kExponent = 0x7c00;
  uint16_t worst = 0;
  for (size_t i = 0; i + 1 < halves.size(); i += 2) {
    uint16_t half;
    std::memcpy(&half, halves.data() + i, sizeof(half));
    worst = std::max(worst, static_cast<uint16_t>(half & kExponent));
  }
  return worst < kExponent;
}

}  // namespace

std::string BlockName(absl::string_view before, absl::Span<const TokenId> tokens) {
  return std::string(absl::StripPrefix(Sha256Of(absl::StrCat(before, BytesOf(tokens))), "sha256:"));
}

std::string FirstBlockName(absl::string_view scope, absl::string_view key) {
  const std::string text = absl::StrCat("coterie prefixes ", kVersion, "\n", key, "\n", scope);
  return std::string(absl::StripPrefix(Sha256Of(text), "sha256:"));
}

int64_t BlockFileBytes(const BlockPlace& place, absl::string_view key) {
  return static_cast<int64_t>(kHeadBytes + BodyBytes(place) +
                              (key.empty() ? 0 : kSealedExtraBytes));
}

std::string WriteBlockFile(const BlockPlace& place, absl::Span<const uint8_t> block,
                           absl::string_view key) {
  COTERIE_CHECK(static_cast<int64_t>(block.size()) == place.block_bytes, "a block has its size");
  const absl::string_view values(reinterpret_cast<const char*>(block.data()), block.size());
  const std::string body = absl::StrCat(place.before, BytesOf(place.tokens), values);
  std::string head = HeadOf(place, !key.empty());
  Append(key.empty() ? ChecksumOf(body) : uint64_t{0}, &head);
  return absl::StrCat(head, key.empty() ? body : Seal(key, body, head));
}

absl::Status ReadBlockFile(absl::string_view file, const BlockPlace& place, absl::string_view key,
                           uint8_t* block) {
  if (static_cast<int64_t>(file.size()) != BlockFileBytes(place, key)) {
    return absl::DataLossError(
        absl::StrCat("a file of a prefix has another length: bytes=", file.size(),
                     ", expected=", BlockFileBytes(place, key)));
  }
  if (file.substr(0, kChecksumAt) != HeadOf(place, !key.empty())) {
    return absl::DataLossError("a file of a prefix is of another version, kind or block");
  }
  uint64_t checksum;
  std::memcpy(&checksum, file.data() + kChecksumAt, sizeof(checksum));
  const absl::string_view head = file.substr(0, kHeadBytes);
  absl::string_view body = file.substr(kHeadBytes);
  std::string plain;
  if (!key.empty()) {
    COTERIE_ASSIGN_OR_RETURN(plain, Unseal(key, body, head));
    body = plain;
  }
  if (checksum != (key.empty() ? ChecksumOf(body) : 0)) {
    return absl::DataLossError("a file of a prefix was damaged: its checksum differs");
  }
  const absl::string_view tokens = BytesOf(place.tokens);
  if (body.substr(0, kNameBytes) != place.before ||
      body.substr(kNameBytes, tokens.size()) != tokens) {
    return absl::DataLossError("a file of a prefix holds other tokens than its name says");
  }
  const absl::string_view values = body.substr(kNameBytes + tokens.size());
  if (!AreFinite(values)) {
    return absl::DataLossError("a file of a prefix holds values that are not finite");
  }
  std::memcpy(block, values.data(), values.size());
  return absl::OkStatus();
}

}  // namespace coterie
