#include "core/formats/jinja/value.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "core/formats/jinja/work.h"

namespace coterie::jinja {
namespace {

using Kind = Value::Kind;

constexpr int64_t kMaxWalkCost = std::numeric_limits<int64_t>::max() / 4;

int64_t AddSaturated(int64_t a, int64_t b) { return std::min(a + b, kMaxWalkCost); }

absl::Status TooDeep() {
  return absl::ResourceExhaustedError(
      absl::StrCat("values are nested deeper than ", kMaxValueDepth, " levels"));
}

// Distinct for keys that differ, equal for keys that Python takes as one (1, 1.0 and True).
absl::StatusOr<std::string> IndexKey(const Value& key) {
  double number = 0;
  if (key.is_string()) return absl::StrCat("s", key.text().bytes());
  if (key.is_none()) return std::string("n");
  if (key.is(Kind::kInt)) return absl::StrCat("i", key.integer());
  if (key.AsReal(&number)) {
    if (number == std::floor(number) && std::fabs(number) < 9e15) {
      return absl::StrCat("i", static_cast<int64_t>(number));
    }
    return absl::StrCat("f", absl::string_view(reinterpret_cast<const char*>(&number), 8));
  }
  return absl::InvalidArgumentError(absl::StrCat("unhashable type: '", key.TypeName(), "'"));
}

bool EqualSequences(const Sequence& a, const Sequence& b) {
  return &a == &b || (a.form == b.form && a.is_indexable() && a.items.size() == b.items.size() &&
                      std::equal(a.items.begin(), a.items.end(), b.items.begin(), Equal));
}

bool EqualMappings(const Mapping& a, const Mapping& b) {
  if (a.entries().size() != b.entries().size()) return false;
  return std::all_of(a.entries().begin(), a.entries().end(), [&b](const auto& entry) {
    const Value* other = b.Find(entry.first);
    return other != nullptr && Equal(entry.second, *other);
  });
}

absl::Status NotOrdered(const Value& a, const Value& b) {
  return absl::InvalidArgumentError(absl::StrCat("'<' not supported between instances of '",
                                                 a.TypeName(), "' and '", b.TypeName(), "'"));
}

}  // namespace

Value Value::MakeUndefined(std::string complaint) {
  Value value;
  value.data_ = Undefined{std::make_shared<const std::string>(std::move(complaint))};
  return value;
}

absl::string_view Value::complaint() const {
  const auto& text = std::get<Undefined>(data_).complaint;
  return text == nullptr ? absl::string_view("the value is undefined") : *text;
}

bool Value::AsInteger(int64_t* out) const {
  if (is(Kind::kInt)) return *out = integer(), true;
  if (is(Kind::kBool)) return *out = boolean(), true;
  return false;
}

bool Value::AsReal(double* out) const {
  if (is(Kind::kFloat)) return *out = real(), true;
  int64_t number = 0;
  if (!AsInteger(&number)) return false;
  *out = static_cast<double>(number);
  return true;
}

bool Value::Truth() const {
  switch (kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
      return boolean();
    case Kind::kInt:
      return integer() != 0;
    case Kind::kFloat:
      return real() != 0;
    case Kind::kString:
      return !text().empty();
    case Kind::kSequence:
      return sequence().form == Sequence::Form::kGenerator || !sequence().items.empty();
    case Kind::kMapping:
      return !mapping().entries().empty();
    case Kind::kNamespace:
    case Kind::kCallable:
    case Kind::kLoop:
      break;
  }
  return true;
}

absl::string_view Value::TypeName() const {
  switch (kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return text().markup() ? "Markup" : "str";
    case Kind::kSequence:
      if (sequence().form == Sequence::Form::kGenerator) return "generator";
      if (sequence().form == Sequence::Form::kView) return "dict view";
      return sequence().form == Sequence::Form::kList ? "list" : "tuple";
    case Kind::kMapping:
      return "dict";
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kCallable:
      return callable().form == Callable::Form::kMacro ? "Macro" : "function";
    case Kind::kLoop:
      break;
  }
  return "LoopContext";
}

int Value::depth() const {
  if (is(Kind::kSequence)) return sequence().depth;
  if (is(Kind::kMapping)) return mapping().depth();
  if (is(Kind::kCallable)) return callable().self.depth() + 1;
  if (is(Kind::kLoop)) return loop().items->depth + 1;
  return 0;
}

int64_t Value::walk_cost() const {
  if (is(Kind::kString)) return 1 + text().cost_bytes() / 16;
  if (is(Kind::kSequence)) return sequence().walk_cost;
  if (is(Kind::kMapping)) return mapping().walk_cost();
  return 1;
}

absl::StatusOr<Value> MakeSequence(Sequence::Form form, std::vector<Value> items) {
  auto sequence = std::make_shared<Sequence>();
  sequence->form = form;
  for (const Value& item : items) {
    sequence->depth = std::max(sequence->depth, item.depth() + 1);
    sequence->walk_cost = AddSaturated(sequence->walk_cost, item.walk_cost());
  }
  if (sequence->depth > kMaxValueDepth) return TooDeep();
  sequence->items = std::move(items);
  return Value(std::shared_ptr<const Sequence>(std::move(sequence)));
}

const Value* Mapping::Find(const Value& key) const {
  absl::StatusOr<std::string> index_key = IndexKey(key);
  if (!index_key.ok()) return nullptr;
  auto it = index_.find(*index_key);
  return it == index_.end() ? nullptr : &entries_[it->second].second;
}

const Value* Mapping::Find(absl::string_view key) const {
  auto it = index_.find(absl::StrCat("s", key));
  return it == index_.end() ? nullptr : &entries_[it->second].second;
}

absl::Status Mapping::Set(const Value& key, Value value) {
  COTERIE_ASSIGN_OR_RETURN(std::string index_key, IndexKey(key));
  depth_ = std::max(depth_, value.depth() + 1);
  if (depth_ > kMaxValueDepth) return TooDeep();
  walk_cost_ = AddSaturated(walk_cost_, AddSaturated(key.walk_cost(), value.walk_cost()));
  const auto [it, inserted] = index_.emplace(std::move(index_key), entries_.size());
  if (inserted) {
    entries_.emplace_back(key, std::move(value));
  } else {
    entries_[it->second].second = std::move(value);
  }
  return absl::OkStatus();
}

const Value* Namespace::Find(absl::string_view name) const {
  for (const auto& [key, value] : attributes) {
    if (key == name) return &value;
  }
  return nullptr;
}

absl::Status Namespace::Set(absl::string_view name, Value value) {
  for (auto& [key, old] : attributes) {
    if (key == name) {
      old = std::move(value);
      return absl::OkStatus();
    }
  }
  if (attributes.size() == kMaxAttributes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a namespace has more than ", kMaxAttributes, " attributes"));
  }
  attributes.emplace_back(std::string(name), std::move(value));
  return absl::OkStatus();
}

bool Equal(const Value& a, const Value& b) {
  int64_t left = 0, right = 0;
  if (a.AsInteger(&left) && b.AsInteger(&right)) return left == right;
  double x = 0, y = 0;
  if (a.AsReal(&x) && b.AsReal(&y)) return x == y;
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kString:
      return a.text().bytes() == b.text().bytes();
    case Kind::kSequence:
      return EqualSequences(a.sequence(), b.sequence());
    case Kind::kMapping:
      return &a.mapping() == &b.mapping() || EqualMappings(a.mapping(), b.mapping());
    case Kind::kNamespace:
      return a.space() == b.space();
    case Kind::kCallable:
      return &a.callable() == &b.callable();
    case Kind::kLoop:
      return &a.loop() == &b.loop();
    default:
      return false;
  }
}

absl::StatusOr<bool> Less(const Value& a, const Value& b) {
  int64_t left = 0, right = 0;
  if (a.AsInteger(&left) && b.AsInteger(&right)) return left < right;
  double x = 0, y = 0;
  if (a.AsReal(&x) && b.AsReal(&y)) return x < y;
  if (a.kind() != b.kind()) return NotOrdered(a, b);
  if (a.is_string()) return a.text().bytes() < b.text().bytes();
  if (!a.is(Kind::kSequence) || a.sequence().form != b.sequence().form ||
      !a.sequence().is_indexable()) {
    return NotOrdered(a, b);
  }
  const std::vector<Value>& p = a.sequence().items;
  const std::vector<Value>& q = b.sequence().items;
  for (size_t i = 0; i < std::min(p.size(), q.size()); ++i) {
    if (!Equal(p[i], q[i])) return Less(p[i], q[i]);
  }
  return p.size() < q.size();
}

}  // namespace coterie::jinja
