#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace coterie::testing {

// GGUF value types, as stored in files.
inline constexpr uint32_t kGgufU8 = 0, kGgufU32 = 4, kGgufF32 = 6, kGgufBool = 7, kGgufString = 8,
                          kGgufArray = 9, kGgufU64 = 10;

// Writes GGUF bytes field by field, so that tests can write wrong ones.
class GgufBytes {
 public:
  GgufBytes(uint64_t n_tensors, uint64_t n_values, uint32_t version = 3) {
    bytes_ = "GGUF";
    Number<uint32_t>(version).Number<uint64_t>(n_tensors).Number<uint64_t>(n_values);
  }

  template <typename T>
  GgufBytes& Number(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  GgufBytes& String(absl::string_view text) {
    Number<uint64_t>(text.size());
    bytes_.append(text.data(), text.size());
    return *this;
  }
  GgufBytes& Key(absl::string_view key, uint32_t type) { return String(key).Number(type); }
  GgufBytes& Array(absl::string_view key, uint32_t type, uint64_t count) {
    return Key(key, kGgufArray).Number(type).Number(count);
  }
  GgufBytes& Tensor(absl::string_view name, std::vector<uint64_t> extents, uint32_t type,
                    uint64_t offset) {
    String(name).Number<uint32_t>(extents.size());
    for (const uint64_t extent : extents) Number(extent);
    return Number(type).Number(offset);
  }
  GgufBytes& Pad(size_t alignment = 32) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment);
    return *this;
  }
  GgufBytes& Zeros(size_t n) {
    bytes_.append(n, '\0');
    return *this;
  }

  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

}  // namespace coterie::testing
