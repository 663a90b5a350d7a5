#pragma once

// Values of the template language: what Jinja takes from Python, and nothing else. There is no
// attribute but those of the kinds below, so a template can reach nothing of the host.

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "core/formats/jinja/text.h"

namespace coterie::jinja {

class Value;
struct Sequence;
class Mapping;
struct Namespace;
struct Callable;
struct Loop;
struct Statement;
struct Scope;

struct None {};

// A missing name or attribute. Prints as nothing, is false and empty; any other use of it is an
// error, whose text is `complaint`.
struct Undefined {
  std::shared_ptr<const std::string> complaint;
};

// An immutable value, cheap to copy. Namespaces alone can change; they belong to the rendering and
// are held by address, so values never form a cycle. Sharing between threads is safe as long as no
// namespace or loop is shared: the constants inside a parsed template hold neither.
class Value {
 public:
  enum class Kind {
    kUndefined,
    kNone,
    kBool,
    kInt,
    kFloat,
    kString,
    kSequence,
    kMapping,
    kNamespace,
    kCallable,
    kLoop,
  };

  Value() = default;
  explicit Value(None) : data_(None{}) {}
  explicit Value(bool value) : data_(value) {}
  explicit Value(int64_t value) : data_(value) {}
  explicit Value(double value) : data_(value) {}
  explicit Value(Text text) : data_(std::make_shared<const Text>(std::move(text))) {}
  explicit Value(std::shared_ptr<const Sequence> sequence) : data_(std::move(sequence)) {}
  explicit Value(std::shared_ptr<const Mapping> mapping) : data_(std::move(mapping)) {}
  explicit Value(Namespace* space) : data_(space) {}
  explicit Value(std::shared_ptr<const Callable> callable) : data_(std::move(callable)) {}
  explicit Value(std::shared_ptr<const Loop> loop) : data_(std::move(loop)) {}
  static Value MakeUndefined(std::string complaint);

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool is(Kind kind) const { return data_.index() == static_cast<size_t>(kind); }
  bool is_undefined() const { return is(Kind::kUndefined); }
  bool is_none() const { return is(Kind::kNone); }
  bool is_string() const { return is(Kind::kString); }
  bool is_number() const { return is(Kind::kBool) || is(Kind::kInt) || is(Kind::kFloat); }

  // Each requires the kind that it names.
  bool boolean() const { return std::get<bool>(data_); }
  int64_t integer() const { return std::get<int64_t>(data_); }
  double real() const { return std::get<double>(data_); }
  const Text& text() const { return *std::get<std::shared_ptr<const Text>>(data_); }
  const Sequence& sequence() const { return *std::get<std::shared_ptr<const Sequence>>(data_); }
  const Mapping& mapping() const { return *std::get<std::shared_ptr<const Mapping>>(data_); }
  Namespace* space() const { return std::get<Namespace*>(data_); }
  const Callable& callable() const { return *std::get<std::shared_ptr<const Callable>>(data_); }
  const Loop& loop() const { return *std::get<std::shared_ptr<const Loop>>(data_); }
  absl::string_view complaint() const;

  // The integer behind an int or a bool.
  bool AsInteger(int64_t* out) const;
  // The number behind an int, a bool or a float.
  bool AsReal(double* out) const;

  bool Truth() const;
  // Python's name of the kind: "str", "NoneType".
  absl::string_view TypeName() const;

  // Levels of nesting below and including this value; 0 for scalars.
  int depth() const;
  // Work of walking the whole value, counting what is shared as often as it is met. Saturates.
  int64_t walk_cost() const;

 private:
  std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>,
               std::shared_ptr<const Sequence>, std::shared_ptr<const Mapping>, Namespace*,
               std::shared_ptr<const Callable>, std::shared_ptr<const Loop>>
      data_;
};

// A list or tuple, a view of a dict (can be iterated and measured, not indexed), or what a
// generator would yield (can be iterated only).
struct Sequence {
  enum class Form { kList, kTuple, kView, kGenerator };

  Form form = Form::kList;
  std::vector<Value> items;
  int depth = 1;
  int64_t walk_cost = 1;

  bool is_indexable() const { return form == Form::kList || form == Form::kTuple; }
};

// kResourceExhausted if the nesting gets too deep.
absl::StatusOr<Value> MakeSequence(Sequence::Form form, std::vector<Value> items);

// A dict: entries in order of insertion, found by key. Keys are strings, numbers and None.
class Mapping {
 public:
  const std::vector<std::pair<Value, Value>>& entries() const { return entries_; }
  const Value* Find(const Value& key) const;
  const Value* Find(absl::string_view key) const;
  int depth() const { return depth_; }
  int64_t walk_cost() const { return walk_cost_; }

  // Sets the value of a new or known key. kInvalidArgument if the key has no hash,
  // kResourceExhausted if the nesting gets too deep.
  absl::Status Set(const Value& key, Value value);

  // Whether this is an element of `messages`, and then whose.
  bool is_message() const { return is_message_; }
  Role role() const { return role_; }
  void MarkAsMessage(Role role) { is_message_ = true, role_ = role; }

 private:
  std::vector<std::pair<Value, Value>> entries_;
  absl::flat_hash_map<std::string, size_t> index_;
  int depth_ = 1;
  int64_t walk_cost_ = 1;
  bool is_message_ = false;
  Role role_ = Role::kNone;
};

struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;

  const Value* Find(absl::string_view name) const;
  // kResourceExhausted for more attributes than a search in line may have to pass.
  absl::Status Set(absl::string_view name, Value value);
};

// What can be called: a macro with the scope it was defined in, a global function, or a method
// together with the value it belongs to.
struct Callable {
  enum class Form { kMacro, kGlobal, kMethod, kLoopMethod };

  Form form = Form::kGlobal;
  std::string name;
  const Statement* macro = nullptr;
  Scope* scope = nullptr;
  Value self;
};

// The variable `loop` in one iteration.
struct Loop {
  std::shared_ptr<const Sequence> items;
  int64_t index = 0;  // From 0.
};

// Python's ==. Callers charge the walk_cost of both sides first.
bool Equal(const Value& a, const Value& b);
// Python's < for numbers, strings and sequences; kInvalidArgument for other pairs.
absl::StatusOr<bool> Less(const Value& a, const Value& b);

inline Value TextValue(absl::string_view bytes, Origin origin = {}) {
  return Value(Text(bytes, origin));
}

}  // namespace coterie::jinja
