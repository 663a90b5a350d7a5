#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "core/formats/jinja/ast.h"

namespace coterie::jinja {

// Parses a template. Grammar: jinja.palletsprojects.com, release 3.1.6, with the loop controls
// extension and the {% generation %} tag of Hugging Face transformers.
//
// Messages begin with "line N: ". kDataLoss for what Jinja takes as a syntax error, kUnimplemented
// with the construct's name for what Jinja knows and this subset does not (tags, filters, tests),
// kResourceExhausted for nesting beyond the limits in work.h.
absl::StatusOr<Block> ParseTemplate(absl::string_view source);

}  // namespace coterie::jinja
