#include "core/formats/safetensors_file.h"

#include <algorithm>
#include <limits>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"

#include "core/base/quote.h"
#include "core/base/status_macros.h"

namespace coterie {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100000000;
// Far above what models have, and few enough that what is kept for each stays below 64 MB.
constexpr size_t kMaxTensors = 1 << 16;
constexpr size_t kMaxMetadataEntries = 1 << 16;
constexpr size_t kMaxRank = 64;
// A JSON token is held several times while it is read.
constexpr size_t kMaxTokenBytes = 8 << 20;
constexpr int64_t kMaxInt64 = std::numeric_limits<int64_t>::max();
constexpr absl::string_view kMetadataName = "__metadata__";

struct TypeTraits {
  absl::string_view name;
  int bits;
};

// In the order of SafetensorsType.
constexpr TypeTraits kTypes[] = {
    {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
    {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
    {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
    {"I64", 64},        {"U64", 64},
};

std::optional<SafetensorsType> TypeFromName(absl::string_view name) {
  for (size_t i = 0; i < std::size(kTypes); ++i) {
    if (kTypes[i].name == name) return static_cast<SafetensorsType>(i);
  }
  return std::nullopt;
}

uint64_t LoadLittleEndian64(const uint8_t* bytes) {
  uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | bytes[i];
  return value;
}

// Whether the quotes of a JSON text stand so close that no token between them can be long.
bool HasOnlyShortTokens(absl::string_view json) {
  size_t begin = 0;
  bool is_string = false;
  for (size_t i = 0; i < json.size(); ++i) {
    if (is_string && json[i] == '\\') {
      ++i;
    } else if (json[i] == '"') {
      is_string = !is_string;
      begin = i;
    }
    if (i - begin > kMaxTokenBytes) return false;
  }
  return true;
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

}  // namespace

// Receives the header's JSON piece by piece, so that a name that occurs twice is seen. The shape of
// the document is
//   { "__metadata__": { name: text }, name: { dtype, shape: [n], data_offsets: [begin, end] } }
class SafetensorsFile::HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderReader(SafetensorsFile& file) : file_(file) {}

  const std::string& complaint() const { return complaint_; }

  bool null() override { return Misplaced(); }
  bool boolean(bool) override { return Misplaced(); }
  bool number_float(number_float_t, const string_t&) override { return Misplaced(); }
  bool number_integer(number_integer_t) override {
    return Fail("a dimension or offset is negative");
  }
  bool number_unsigned(number_unsigned_t value) override;
  bool string(string_t& value) override;
  bool binary(binary_t&) override { return Misplaced(); }
  bool start_object(std::size_t) override;
  bool key(string_t& name) override;
  bool end_object() override;
  bool start_array(std::size_t) override;
  bool end_array() override;
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::json::exception&) override {
    return Fail(absl::StrCat("the header is not valid JSON at byte ", position));
  }

 private:
  enum class Place { kStart, kNames, kMetadata, kTensor, kShape, kOffsets, kEnd };

  bool Fail(std::string complaint) {
    if (complaint_.empty()) complaint_ = std::move(complaint);
    return false;
  }
  bool Misplaced() {
    return Fail(name_.empty() ? std::string("the header is not an object of tensors")
                              : absl::StrCat("a field of ", Quote(name_), " has the wrong type"));
  }
  bool TensorKey(const std::string& field);
  bool EndTensor();

  SafetensorsFile& file_;
  std::string complaint_;
  Place place_ = Place::kStart;
  std::set<std::string, std::less<>> names_;
  std::string name_;   // Of the tensor being read.
  std::string field_;  // Of the tensor or the metadata being read.
  Entry entry_;
  std::vector<int64_t> offsets_;
  bool has_type_ = false, has_shape_ = false, has_offsets_ = false;
};

bool SafetensorsFile::HeaderReader::number_unsigned(number_unsigned_t value) {
  if (place_ != Place::kShape && place_ != Place::kOffsets) return Misplaced();
  if (value > static_cast<uint64_t>(kMaxInt64)) {
    return Fail(absl::StrCat("a dimension or offset of ", Quote(name_), " is beyond 63 bits"));
  }
  auto& numbers = place_ == Place::kShape ? entry_.shape : offsets_;
  if (numbers.size() == kMaxRank) {
    return Fail(absl::StrCat("a field of ", Quote(name_), " has more than ", kMaxRank, " numbers"));
  }
  numbers.push_back(static_cast<int64_t>(value));
  return true;
}

bool SafetensorsFile::HeaderReader::string(string_t& value) {
  if (place_ == Place::kMetadata) {
    if (file_.metadata_.size() == kMaxMetadataEntries) {
      return Fail(absl::StrCat("there are more than ", kMaxMetadataEntries, " metadata entries"));
    }
    if (file_.metadata_.emplace(field_, value).second) return true;
    return Fail(absl::StrCat("the metadata name ", Quote(field_), " occurs twice"));
  }
  if (place_ != Place::kTensor || field_ != "dtype") return Misplaced();
  const std::optional<SafetensorsType> type = TypeFromName(value);
  if (!type.has_value()) {
    return Fail(absl::StrCat("tensor ", Quote(name_), " has the unknown dtype ", Quote(value)));
  }
  entry_.type = *type;
  return true;
}

bool SafetensorsFile::HeaderReader::start_object(std::size_t) {
  if (place_ == Place::kStart) {
    place_ = Place::kNames;
    return true;
  }
  if (place_ != Place::kNames) return Misplaced();
  place_ = name_ == kMetadataName ? Place::kMetadata : Place::kTensor;
  entry_ = Entry();
  entry_.name = name_;
  offsets_.clear();
  has_type_ = has_shape_ = has_offsets_ = false;
  return true;
}

bool SafetensorsFile::HeaderReader::key(string_t& name) {
  if (place_ == Place::kTensor) return TensorKey(name);
  if (place_ == Place::kMetadata) {
    field_ = name;
    return true;
  }
  if (names_.size() == kMaxTensors) {
    return Fail(absl::StrCat("there are more than ", kMaxTensors, " tensors"));
  }
  if (!names_.insert(name).second) {
    return Fail(absl::StrCat("the name ", Quote(name), " occurs twice"));
  }
  name_ = name;
  return true;
}

bool SafetensorsFile::HeaderReader::TensorKey(const std::string& field) {
  bool* const has = field == "dtype"          ? &has_type_
                    : field == "shape"        ? &has_shape_
                    : field == "data_offsets" ? &has_offsets_
                                              : nullptr;
  if (has == nullptr) {
    return Fail(absl::StrCat("tensor ", Quote(name_), " has the unknown field ", Quote(field)));
  }
  if (std::exchange(*has, true)) {
    return Fail(absl::StrCat("tensor ", Quote(name_), " has the field ", Quote(field), " twice"));
  }
  field_ = field;
  return true;
}

bool SafetensorsFile::HeaderReader::start_array(std::size_t) {
  if (place_ != Place::kTensor || field_ == "dtype") return Misplaced();
  place_ = field_ == "shape" ? Place::kShape : Place::kOffsets;
  return true;
}

bool SafetensorsFile::HeaderReader::end_array() {
  place_ = Place::kTensor;
  return true;
}

bool SafetensorsFile::HeaderReader::end_object() {
  if (place_ == Place::kTensor && !EndTensor()) return false;
  place_ = place_ == Place::kNames ? Place::kEnd : Place::kNames;
  return true;
}

bool SafetensorsFile::HeaderReader::EndTensor() {
  if (!has_type_ || !has_shape_ || !has_offsets_) {
    return Fail(absl::StrCat("tensor ", Quote(name_), " lacks dtype, shape or data_offsets"));
  }
  if (offsets_.size() != 2 || offsets_[0] > offsets_[1]) {
    return Fail(absl::StrCat("data_offsets of tensor ", Quote(name_),
                             " are no range: ", ShapeText(offsets_)));
  }
  entry_.begin = offsets_[0];
  entry_.end = offsets_[1];
  // Any zero makes the tensor empty, whatever the other dimensions would multiply to.
  const bool is_empty =
      std::find(entry_.shape.begin(), entry_.shape.end(), 0) != entry_.shape.end();
  int64_t n_bits = is_empty ? 0 : BitsPerElement(entry_.type);
  for (int64_t dimension : entry_.shape) {
    if (!is_empty && __builtin_mul_overflow(n_bits, dimension, &n_bits)) {
      return Fail(absl::StrCat("the size of tensor ", Quote(name_), " is beyond 63 bits: shape ",
                               ShapeText(entry_.shape)));
    }
  }
  if (n_bits % 8 != 0) {
    return Fail(absl::StrCat("tensor ", Quote(name_), " does not fill whole bytes: shape ",
                             ShapeText(entry_.shape)));
  }
  if (n_bits / 8 != entry_.end - entry_.begin) {
    return Fail(absl::StrCat("the shape of tensor ", Quote(name_),
                             " does not match its byte range: shape ", ShapeText(entry_.shape),
                             ", ", n_bits / 8, " bytes, range ", entry_.end - entry_.begin));
  }
  file_.entries_.push_back(std::move(entry_));
  return true;
}

absl::string_view SafetensorsTypeName(SafetensorsType type) {
  return kTypes[static_cast<size_t>(type)].name;
}

int BitsPerElement(SafetensorsType type) { return kTypes[static_cast<size_t>(type)].bits; }

std::optional<TensorType> TensorTypeOf(SafetensorsType type) {
  switch (type) {
    case SafetensorsType::kF32:
      return TensorType::kF32;
    case SafetensorsType::kF16:
      return TensorType::kF16;
    case SafetensorsType::kBF16:
      return TensorType::kBF16;
    default:
      return std::nullopt;
  }
}

int64_t SafetensorsTensor::n_elements() const {
  return static_cast<int64_t>(bytes.size()) * 8 / BitsPerElement(type);
}

absl::StatusOr<MatrixView> SafetensorsTensor::matrix() const {
  const std::optional<TensorType> tensor_type = TensorTypeOf(type);
  if (!tensor_type.has_value()) {
    return absl::UnimplementedError(
        absl::StrCat("there are no kernels for the dtype of a tensor: tensor=", Quote(name),
                     ", dtype=", SafetensorsTypeName(type)));
  }
  const uintptr_t alignment = static_cast<uintptr_t>(BitsPerElement(type) / 8);
  if (reinterpret_cast<uintptr_t>(bytes.data()) % alignment != 0) {
    return absl::UnimplementedError(
        absl::StrCat("a tensor is not aligned to its elements in the file: tensor=", Quote(name)));
  }
  MatrixView view;
  view.type = *tensor_type;
  view.n_cols = shape.empty() ? 1 : shape.back();
  view.n_rows = view.n_cols == 0 ? 0 : n_elements() / view.n_cols;
  view.data = bytes.data();
  return view;
}

absl::StatusOr<std::unique_ptr<const SafetensorsFile>> SafetensorsFile::Open(
    absl::string_view path) {
  COTERIE_ASSIGN_OR_RETURN(MappedFile mapping, MappedFile::Open(path));
  std::unique_ptr<SafetensorsFile> file(new SafetensorsFile);
  file->path_ = std::string(path);
  file->mapping_ = std::make_unique<MappedFile>(std::move(mapping));
  COTERIE_RETURN_IF_ERROR(file->Read(file->mapping_->bytes()));
  return std::unique_ptr<const SafetensorsFile>(std::move(file));
}

absl::StatusOr<std::unique_ptr<const SafetensorsFile>> SafetensorsFile::Parse(
    absl::Span<const uint8_t> bytes, absl::string_view name) {
  std::unique_ptr<SafetensorsFile> file(new SafetensorsFile);
  file->path_ = std::string(name);
  COTERIE_RETURN_IF_ERROR(file->Read(bytes));
  return std::unique_ptr<const SafetensorsFile>(std::move(file));
}

absl::Status SafetensorsFile::Error(absl::string_view message) const {
  return absl::DataLossError(absl::StrCat(path_, ": ", message));
}

absl::Status SafetensorsFile::Read(absl::Span<const uint8_t> bytes) {
  if (bytes.size() < 8) {
    return Error(absl::StrCat("too short for a safetensors file: ", bytes.size(), " bytes"));
  }
  const uint64_t n_header = LoadLittleEndian64(bytes.data());
  if (n_header > kMaxHeaderBytes) {
    return Error(
        absl::StrCat("the header is too long: ", n_header, " bytes, limit ", kMaxHeaderBytes));
  }
  if (n_header > bytes.size() - 8) {
    return Error(absl::StrCat("the header ends after the file: ", n_header, " bytes, ",
                              bytes.size() - 8, " left"));
  }
  absl::string_view header(reinterpret_cast<const char*>(bytes.data()) + 8, n_header);
  if (header.empty() || header[0] != '{') return Error("the header does not begin with '{'");
  // The JSON reader takes a zero byte for the end, behind which anything could hide.
  if (header.find('\0') != absl::string_view::npos) {
    return Error("the header is not valid JSON: it holds a zero byte");
  }
  while (header.back() == ' ') header.remove_suffix(1);
  if (!HasOnlyShortTokens(header)) {
    return Error(absl::StrCat("the header holds a text or a number of more than ", kMaxTokenBytes,
                              " bytes"));
  }
  HeaderReader reader(*this);
  const bool parsed = nlohmann::json::sax_parse(header.begin(), header.end(), &reader);
  if (!reader.complaint().empty()) return Error(reader.complaint());
  if (!parsed) return Error("the header is not valid JSON");
  data_ = bytes.subspan(8 + static_cast<size_t>(n_header));
  std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  COTERIE_RETURN_IF_ERROR(CheckLayout(static_cast<int64_t>(data_.size())));
  for (size_t i = 0; i < entries_.size(); ++i) tensors_.emplace(entries_[i].name, i);
  tensor_bytes_ = static_cast<int64_t>(data_.size());
  return absl::OkStatus();
}

absl::Status SafetensorsFile::CheckLayout(int64_t n_data_bytes) const {
  int64_t at = 0;
  for (const Entry& entry : entries_) {
    if (entry.begin < at) {
      return Error(absl::StrCat("tensor ", Quote(entry.name), " overlaps another: it begins at ",
                                entry.begin, ", the one before ends at ", at));
    }
    if (entry.begin > at) {
      return Error(absl::StrCat("there is a hole before tensor ", Quote(entry.name), ": bytes ", at,
                                " to ", entry.begin));
    }
    at = entry.end;
    if (at > n_data_bytes) {
      return Error(absl::StrCat("tensor ", Quote(entry.name), " ends after the file: ", at,
                                " bytes of data wanted, ", n_data_bytes, " there"));
    }
  }
  if (at != n_data_bytes) {
    return Error(absl::StrCat("there are ", n_data_bytes - at, " bytes after the last tensor"));
  }
  return absl::OkStatus();
}

absl::StatusOr<SafetensorsTensor> SafetensorsFile::Find(absl::string_view name) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) {
    return absl::NotFoundError(absl::StrCat(path_, ": there is no tensor ", Quote(name)));
  }
  const Entry& entry = entries_[it->second];
  return SafetensorsTensor{entry.name, entry.type, entry.shape,
                           data_.subspan(static_cast<size_t>(entry.begin),
                                         static_cast<size_t>(entry.end - entry.begin))};
}

std::vector<absl::string_view> SafetensorsFile::TensorNames() const {
  std::vector<absl::string_view> names;
  for (const Entry& entry : entries_) names.push_back(entry.name);
  return names;
}

}  // namespace coterie
