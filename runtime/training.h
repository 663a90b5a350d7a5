#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lora/adapter_training.h"
#include "lora/held_out_report.h"
#include "lora/training_set.h"

namespace coterie {

// What to train from the interactions that users gave feedback on.
struct TrainingRequest {
  std::string expert;   // Whose interactions, and on whose base.
  std::string adapter;  // To publish as; empty: the expert's own, else "EXPERT-tuned".
  TrainerOptions options;
  int64_t n_epochs = 4;
  int64_t batch_examples = 8;
  double replay_share = 0.25;  // Of the tokens; 0: nothing is rehearsed.
  // How often an answer is learnt after the nearest others, as retrieval shows them; 0: each alone.
  double episode_share = 1;
  int64_t episode_tokens = 0;  // Of those shown before an answer; 0: as retrieval may show.
  // A UTF-8 text file to rehearse beside the passages that are built in, read by ReplaySource;
  // empty: the configuration's.
  std::string replay;
  TrainingSetOptions set;
  GateOptions gate;
  // Held-out cases that the report compares examples and adapter on; 0: none.
  int64_t n_report_cases = 16;
};

struct TrainingReport {
  std::string expert;
  std::string adapter;  // As published, "home@2"; empty: nothing was.
  int64_t n_examples = 0;
  int64_t n_held_out = 0;
  std::vector<LeftOut> left_out;
  AdapterTrainingResult result;  // Without the deltas.
  HeldOutReport compared;        // Without cases where it was not asked for or had no room.
};

}  // namespace coterie
