#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "lora/interaction_log.h"

namespace coterie {

// When feedback is learnt from without being told to.
struct IdleTrainingOptions {
  bool enabled = false;
  absl::Duration idle = absl::Minutes(10);  // So long nobody has asked anything.
  int64_t least_feedback = 20;              // That no training of the expert has seen.
  bool only_on_ac = true;                   // Not while the machine runs on a battery.
};

// The expert to train now: of those with enough new feedback that with the most, of equals the
// first by name; empty: none. Pure.
std::string ExpertToTrain(const IdleTrainingOptions& options, absl::Duration idle_for,
                          bool on_ac_power,
                          const std::map<std::string, FeedbackCounts>& new_feedback);

// Whether the machine is not on its battery, by Linux's power_supply class: one of type "Mains" is
// online, or there is none. What cannot be read counts as mains.
bool OnAcPower(absl::string_view folder = "/sys/class/power_supply");

}  // namespace coterie
