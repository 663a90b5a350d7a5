#pragma once

// Attention of one head over one sequence, forward and backward, by tiles of scores that are made
// again in the backward pass (FlashAttention-2, arXiv 2307.08691, section 3.1). Products in the
// precision of the tape, softmax in f32.

#include <cstdint>

#include "experts/arch_spec.h"
#include "lora/training_memory.h"

namespace coterie {

struct AttentionHead {
  const ArchSpec* spec = nullptr;
  int64_t layer = 0;
  int64_t first_row = 0;       // Of the sequence,
  int64_t n_tokens = 0;        // and its length.
  int64_t head = 0;            // Of the queries.
  uint8_t* scratch = nullptr;  // TrainingScratchBytes(), then AttentionFloats().
};

// Writes attended and lse of the head's columns from q, k and v.
void AttendForward(const AttentionHead& head, const LayerTape& tape);

// Gradients of the head's queries, keys and values from that of what was attended, d_attended
// [n_rows, d_q]. All three results are [n_rows, d_q]: keys and values that heads share get a part
// from each of them.
void AttendBackward(const AttentionHead& head, const LayerTape& tape, const float* d_attended,
                    float* dq, float* dk, float* dv);

}  // namespace coterie
