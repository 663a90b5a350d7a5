#pragma once

#include <string>

#include "python/bindings/bindings.h"
#include "runtime/training.h"

namespace coterie {

// A request as the Python side has named its options: those of coterie.TrainingOptions.
TrainingRequest TrainingRequestFrom(const std::string& expert, const Fields& options);

// The fields of coterie.TrainingReport, and of what coterie.Assistant.training says.
Fields TrainingReportFields(const TrainingReport& report);
Fields TrainingProgressFields(const TrainingProgress& progress);

}  // namespace coterie
