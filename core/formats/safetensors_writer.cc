#include "core/formats/safetensors_writer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

#include "core/base/quote.h"
#include "core/base/status_macros.h"
#include "core/base/write_file.h"

namespace coterie {
namespace {

// Tensor data begins at a multiple of this; the header is padded with spaces.
constexpr size_t kAlignment = 8;

}  // namespace

void SafetensorsWriter::SetMetadata(absl::string_view name, absl::string_view text) {
  const bool is_new = metadata_.emplace(name, text).second;
  if (is_new || !status_.ok()) return;
  status_ = absl::InvalidArgumentError(
      absl::StrCat("a safetensors metadata name was set twice: name=", Quote(name)));
}

void SafetensorsWriter::AddTensor(absl::string_view name, SafetensorsType type,
                                  absl::Span<const int64_t> shape,
                                  absl::Span<const uint8_t> bytes) {
  int64_t n_bits = BitsPerElement(type);
  for (const int64_t extent : shape) n_bits *= extent;
  if (status_.ok() && n_bits != static_cast<int64_t>(bytes.size()) * 8) {
    status_ = absl::InvalidArgumentError(
        absl::StrCat("a safetensors tensor's bytes do not match its shape: name=", Quote(name)));
  }
  tensors_.push_back({std::string(name), type, {shape.begin(), shape.end()}, bytes});
}

absl::StatusOr<std::string> SafetensorsWriter::Serialize() const {
  COTERIE_RETURN_IF_ERROR(status_);
  nlohmann::json header = nlohmann::json::object();
  if (!metadata_.empty()) header["__metadata__"] = metadata_;
  size_t offset = 0;
  for (const Tensor& tensor : tensors_) {
    if (header.contains(tensor.name)) {
      return absl::InvalidArgumentError(
          absl::StrCat("a safetensors tensor was added twice: name=", Quote(tensor.name)));
    }
    header[tensor.name] = {{"dtype", std::string(SafetensorsTypeName(tensor.type))},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + tensor.bytes.size()}}};
    offset += tensor.bytes.size();
  }
  // Replaces what is not UTF-8, where dump() alone would throw.
  std::string text = header.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  text.resize((text.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
  const uint64_t length = text.size();
  std::string file(reinterpret_cast<const char*>(&length), sizeof(length));
  file.reserve(file.size() + text.size() + offset);
  file += text;
  for (const Tensor& tensor : tensors_) {
    file.append(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size());
  }
  return file;
}

absl::Status SafetensorsWriter::Write(absl::string_view path) const {
  COTERIE_ASSIGN_OR_RETURN(const std::string file, Serialize());
  return WriteFileAtomically(path, file);
}

}  // namespace coterie
