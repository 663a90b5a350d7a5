#pragma once

// What the ledger of a trained version says of its training: written once, read to learn whose
// interactions it stands for, and to do the training again without one of them.

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/types/span.h"

#include "lora/adapter_store.h"
#include "lora/interaction.h"
#include "lora/training_set.h"
#include "runtime/training.h"

namespace coterie {

// The experts that gave these answers.
std::set<std::string> ExpertsIn(absl::Span<const Interaction> interactions);

AdapterLedger LedgerOf(const TrainingSet& set, absl::Span<const Interaction> interactions,
                       const TrainingRequest& request, const TrainingReport& report);

// Whose interactions a ledger's version was trained from; empty for one that was imported.
std::vector<std::string> ExpertsOf(const AdapterLedger& ledger);

// The request that would train it again; none if the ledger does not say how it was trained.
std::optional<TrainingRequest> RequestOf(const AdapterLedger& ledger, const std::string& adapter);

}  // namespace coterie
