#pragma once

// How the families of builtins hand their tables to builtins.cc. Internal to this folder.

#include "absl/types/span.h"

#include "core/formats/jinja/builtins.h"

namespace coterie::jinja {

struct BuiltinCall {
  const Value& input;               // The filtered value, or the object of a method.
  const BoundArguments& arguments;  // By the entry's parameters; empty where those are "*".
  const CallArguments& raw;
  Environment& environment;

  Work& work() const { return environment.work; }
  bool Has(size_t i) const { return arguments[i] != nullptr; }
  bool Flag(size_t i) const { return Has(i) && arguments[i]->Truth(); }
  // The integer at i, or the fallback where it is not given; kInvalidArgument for other kinds.
  absl::StatusOr<int64_t> Integer(size_t i, int64_t fallback) const;
  // The argument as str() gives it. Requires Has(i).
  absl::StatusOr<Text> TextOf(size_t i) const { return ToTextOf(*arguments[i]); }
  absl::StatusOr<Text> InputText() const { return ToTextOf(input); }

 private:
  absl::StatusOr<Text> ToTextOf(const Value& value) const;
};

struct Builtin {
  absl::string_view name;
  absl::string_view parameters;  // "a,b"; "*" leaves them to the function.
  absl::StatusOr<Value> (*function)(const BuiltinCall& call);
};

absl::Span<const Builtin> TextFilters();
absl::Span<const Builtin> SequenceFilters();
absl::Span<const Builtin> StringMethods();
absl::Span<const Builtin> SequenceMethods();
absl::Span<const Builtin> MappingMethods();

// The elements that iterating over a value yields: characters, items, keys. kInvalidArgument if it
// cannot be iterated.
absl::StatusOr<std::vector<Value>> Elements(const Value& value, Work& work);

// Python's `needle in haystack`.
absl::StatusOr<bool> Contains(const Value& haystack, const Value& needle, Work& work);

}  // namespace coterie::jinja
