#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

#include "core/base/status_macros.h"
#include "core/formats/jinja/printing.h"

namespace coterie::jinja {
namespace {

absl::StatusOr<Value> Convert(const nlohmann::ordered_json& json, Origin origin, int depth) {
  using Type = nlohmann::ordered_json::value_t;
  if (depth > kMaxValueDepth) {
    return absl::ResourceExhaustedError(
        absl::StrCat("JSON is nested deeper than ", kMaxValueDepth, " levels"));
  }
  switch (json.type()) {
    case Type::null:
      return Value(None{});
    case Type::boolean:
      return Value(json.get<bool>());
    case Type::number_unsigned:
      if (json.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) break;
      return Value(json.get<int64_t>());
    case Type::number_integer:
      return Value(json.get<int64_t>());
    case Type::number_float:
      return Value(json.get<double>());
    case Type::string:
      return TextValue(json.get_ref<const std::string&>(), origin);
    case Type::array: {
      std::vector<Value> items;
      for (const auto& element : json) {
        COTERIE_ASSIGN_OR_RETURN(Value item, Convert(element, origin, depth + 1));
        items.push_back(std::move(item));
      }
      return MakeSequence(Sequence::Form::kList, std::move(items));
    }
    case Type::object: {
      auto mapping = std::make_shared<Mapping>();
      for (const auto& [key, element] : json.items()) {
        COTERIE_ASSIGN_OR_RETURN(Value item, Convert(element, origin, depth + 1));
        COTERIE_RETURN_IF_ERROR(mapping->Set(TextValue(key, origin), std::move(item)));
      }
      return Value(std::shared_ptr<const Mapping>(std::move(mapping)));
    }
    default:
      break;
  }
  return absl::InvalidArgumentError("JSON holds a number outside the 64-bit integers");
}

}  // namespace

absl::StatusOr<Value> FromJson(absl::string_view json, Origin origin) {
  const auto parsed = nlohmann::ordered_json::parse(json.begin(), json.end(), nullptr,
                                                    /*allow_exceptions=*/false);
  if (parsed.is_discarded()) return absl::InvalidArgumentError("not valid JSON");
  return Convert(parsed, origin, 0);
}

}  // namespace coterie::jinja
