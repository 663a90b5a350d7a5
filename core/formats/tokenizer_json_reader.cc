#include "core/formats/tokenizer_json_reader.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "core/base/quote.h"

namespace coterie {
namespace {

using nlohmann::json;

constexpr size_t kMaxDepth = 16;
constexpr size_t kMaxTokens = size_t{1} << 20;
constexpr size_t kMaxMerges = size_t{1} << 21;
constexpr size_t kMaxValues = size_t{1} << 18;
constexpr uint64_t kMaxId = (uint64_t{1} << 24) - 1;
constexpr size_t kMaxTextBytes = size_t{1} << 28;

// Builds the parts while the text is parsed.
class PartsBuilder : public nlohmann::json_sax<json> {
 public:
  explicit PartsBuilder(TokenizerJsonParts* parts) : parts_(*parts) {}

  const std::string& complaint() const { return complaint_; }

  bool null() override { return Put(json()); }
  bool boolean(bool value) override { return Put(value); }
  bool number_integer(number_integer_t value) override { return Put(value); }
  bool number_float(number_float_t value, const string_t&) override { return Put(value); }
  bool number_unsigned(number_unsigned_t value) override {
    if (place_ != Place::kVocabulary) return Put(value);
    if (value > kMaxId) return Fail(absl::StrCat("the id of a token is too large: ", value));
    if (parts_.vocabulary.size() == kMaxTokens) return Fail("there are too many tokens");
    parts_.vocabulary.push_back({token_, static_cast<uint32_t>(value)});
    return true;
  }
  bool string(string_t& value) override;
  bool binary(binary_t&) override { return Fail("binary data"); }
  bool key(string_t& name) override;
  bool start_object(std::size_t) override { return Open(json::object()); }
  bool end_object() override { return Close(); }
  bool start_array(std::size_t) override { return Open(json::array()); }
  bool end_array() override { return Close(); }
  bool parse_error(std::size_t position, const std::string&, const json::exception&) override {
    return Fail(absl::StrCat("the text is not valid JSON at byte ", position));
  }

 private:
  enum class Place { kRest, kVocabulary, kMerges, kPair };
  struct Frame {
    json* value;
    std::string key;  // Of the value that comes next.
  };

  bool Fail(std::string complaint) {
    if (complaint_.empty()) complaint_ = std::move(complaint);
    return false;
  }
  // Puts a value where it belongs; null if it may not be there.
  json* Insert(json value);
  bool Put(json value) { return Insert(std::move(value)) != nullptr; }
  bool Open(json container);
  bool Close();
  bool EndPair();
  TokenizerJsonParts::Text Keep(absl::string_view text);

  TokenizerJsonParts& parts_;
  Place place_ = Place::kRest;
  std::vector<Frame> frames_;
  size_t n_values_ = 0;
  TokenizerJsonParts::Text token_ = {0, 0};  // Whose id comes next.
  std::vector<std::string> pair_;
  std::string complaint_;
};

TokenizerJsonParts::Text PartsBuilder::Keep(absl::string_view text) {
  const auto begin = static_cast<uint32_t>(parts_.texts.size());
  absl::StrAppend(&parts_.texts, text);
  return {begin, static_cast<uint32_t>(parts_.texts.size())};
}

json* PartsBuilder::Insert(json value) {
  const auto refuse = [this](std::string complaint) -> json* {
    Fail(std::move(complaint));
    return nullptr;
  };
  if (place_ == Place::kVocabulary) return refuse("the id of a token is no number from 0 on");
  if (place_ != Place::kRest) return refuse("a merge is not two tokens");
  if (++n_values_ > kMaxValues) return refuse("there are too many values");
  if (frames_.empty()) {
    if (!value.is_object()) return refuse("the text is not a JSON object");
    parts_.rest = std::move(value);
    return &parts_.rest;
  }
  json& parent = *frames_.back().value;
  if (parent.is_array()) {
    parent.push_back(std::move(value));
    return &parent.back();
  }
  return &(parent[frames_.back().key] = std::move(value));
}

bool PartsBuilder::key(string_t& name) {
  if (place_ == Place::kVocabulary) {
    token_ = Keep(name);
    return true;
  }
  Frame& frame = frames_.back();
  if (frame.value->contains(name)) {
    return Fail(absl::StrCat("a name stands twice in one object: ", Quote(name)));
  }
  frame.key = name;
  return true;
}

bool PartsBuilder::string(string_t& value) {
  if (place_ == Place::kRest) return Put(value);
  if (place_ == Place::kVocabulary) return Fail("the id of a token is no number from 0 on");
  if (place_ == Place::kPair) {
    if (pair_.size() == 2) return Fail("a merge is not two tokens");
    pair_.push_back(std::move(value));
    return true;
  }
  if (parts_.merges.size() == kMaxMerges) return Fail("there are too many merges");
  parts_.merges.push_back(Keep(value));
  return true;
}

bool PartsBuilder::Open(json container) {
  if (place_ == Place::kMerges && container.is_array()) {
    pair_.clear();
    place_ = Place::kPair;
    return true;
  }
  const bool in_model = place_ == Place::kRest && frames_.size() == 2 && frames_[0].key == "model";
  const bool is_vocabulary = in_model && frames_[1].key == "vocab" && container.is_object();
  const bool is_merges = in_model && frames_[1].key == "merges" && container.is_array();
  if (in_model && frames_[1].key == "vocab" && !is_vocabulary) {
    return Fail("model.vocab is no object, as it is for BPE and WordPiece");
  }
  if (is_vocabulary || is_merges) {
    if (!Put(json())) return false;
    place_ = is_vocabulary ? Place::kVocabulary : Place::kMerges;
    return true;
  }
  if (frames_.size() == kMaxDepth) return Fail("the text is nested too deep");
  json* const value = Insert(std::move(container));
  if (value == nullptr) return false;
  frames_.push_back({value, ""});
  return true;
}

bool PartsBuilder::Close() {
  if (place_ == Place::kPair) return EndPair();
  if (place_ != Place::kRest) {
    place_ = Place::kRest;
    return true;
  }
  frames_.pop_back();
  return true;
}

bool PartsBuilder::EndPair() {
  place_ = Place::kMerges;
  const bool is_good = pair_.size() == 2 && pair_[0].find(' ') == std::string::npos &&
                       pair_[1].find(' ') == std::string::npos;
  if (!is_good) return Fail("a merge is not two tokens without spaces");
  if (parts_.merges.size() == kMaxMerges) return Fail("there are too many merges");
  parts_.merges.push_back(Keep(absl::StrCat(pair_[0], " ", pair_[1])));
  return true;
}

}  // namespace

absl::StatusOr<TokenizerJsonParts> ReadTokenizerJson(absl::string_view text,
                                                     absl::string_view name) {
  TokenizerJsonParts parts;
  PartsBuilder builder(&parts);
  std::string complaint;
  if (text.size() > kMaxTextBytes) {
    complaint = absl::StrCat("the text is too long: bytes=", text.size());
  } else if (text.find('\0') != absl::string_view::npos) {
    // The JSON reader takes a zero byte for the end, behind which anything could hide.
    complaint = "the text is not valid JSON: it holds a zero byte";
  } else if (!json::sax_parse(text.begin(), text.end(), &builder)) {
    complaint = builder.complaint().empty() ? "the text is not valid JSON" : builder.complaint();
  }
  if (complaint.empty()) return parts;
  return absl::DataLossError(absl::StrCat(complaint, ": file=", name));
}

}  // namespace coterie
