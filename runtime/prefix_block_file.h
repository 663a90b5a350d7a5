#pragma once

// One block of a prefix as a file:
//   0    "coterieP", u32 version, u32 sealed (0 or 1), u64 bytes of keys and values
//   24   the block's name, 64 hexadecimal digits
//   88   u64 checksum of the bytes that follow; 0 if they are sealed
//   96   the name of the block before it, its tokens (i32), keys and values; sealed as one record
//   of
//        lora/record_cipher.h, with the 96 bytes before as its context
// Numbers are little-endian.

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "core/formats/token_table.h"

namespace coterie {

// The name that a block has by what it was computed from: `before`, which for the first of a chain
// is FirstBlockName's, and its tokens. 64 hexadecimal digits of a SHA-256, so that equal names mean
// equal texts.
std::string BlockName(absl::string_view before, absl::Span<const TokenId> tokens);
// With a key, nobody else can tell by the names of files whether a text was among them.
std::string FirstBlockName(absl::string_view scope, absl::string_view key);

// What the file of a block has to be of.
struct BlockPlace {
  std::string before, name;
  absl::Span<const TokenId> tokens;
  int64_t block_bytes = 0;
};

// Size of a block's file.
int64_t BlockFileBytes(const BlockPlace& place, absl::string_view key);

// key: kSealKeyBytes, or empty: the file is not sealed.
std::string WriteBlockFile(const BlockPlace& place, absl::Span<const uint8_t> block,
                           absl::string_view key);

// Copies the keys and values of a file into `block`, [place.block_bytes]. kDataLoss, saying what is
// wrong, for every file but one that was written for this place and under this key, whole, with
// keys and values that are numbers; `block` is of no use then.
absl::Status ReadBlockFile(absl::string_view file, const BlockPlace& place, absl::string_view key,
                           uint8_t* block);

}  // namespace coterie
