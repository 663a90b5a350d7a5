#pragma once

// Random adapters for the decoders of tests/experts/tiny_model.h.

#include <cstdint>
#include <vector>

#include "experts/linear_delta.h"
#include "tests/experts/tiny_model.h"

namespace coterie::testing {

// Deltas of ranks 1 to 5 for about two thirds of the linear layers, exact in f16.
std::vector<LinearDelta> TinyDeltas(const ArchSpec& spec, uint32_t seed = 3);

// The model with scale * B A added to its weights.
TinyModel Merged(const TinyModel& model, const std::vector<LinearDelta>& deltas);

}  // namespace coterie::testing
