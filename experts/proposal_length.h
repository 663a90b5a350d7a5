#pragma once

#include <array>
#include <cstdint>

namespace coterie {

// Decides how many tokens that a lookup proposes are worth computing ahead, so that an answer is
// written faster where it repeats something and never noticeably slower where it does not.
//
// What comes true is counted by the length of the match, for every token that a lookup predicts,
// also while nothing is proposed: silence costs nothing, and ends when predictions come true again.
// A pass of 1 + k tokens is taken to cost 1 + k * slope passes of one token, with the slope as
// measured. k is where the tokens expected per cost are most. And there is an account: what passes
// cost more than one token each, against the passes that taken tokens have saved. It is never
// overdrawn by more than kCredit passes and kCreditPerToken of those written, whatever is expected.
//
// Pure: times are told. Thread-compatible.
class ProposalLength {
 public:
  static constexpr double kCredit = 0.5;
  static constexpr double kCreditPerToken = 0.02;

  // After a match of this length, [0, most].
  int64_t Choose(int64_t match_length, int64_t most) const;

  // A token came, after a match of this length, as the lookup predicted it or otherwise.
  void NotePrediction(int64_t match_length, bool came_true);
  // A pass that appended a token and computed n_tokens - 1 ahead took so long. Before the first one
  // with n_tokens = 1 nothing is proposed.
  void NotePass(int64_t n_tokens, double seconds);
  // A token needed no pass, for it was ahead.
  void NoteTaken();

  // Passes of one token that proposals have saved so far; negative: that they have cost.
  double saved_passes() const { return saved_passes_; }

 private:
  static constexpr int kLengths = 6;
  static int IndexOf(int64_t match_length);
  double CostOf(int64_t n_tokens) const { return 1 + slope_ * static_cast<double>(n_tokens - 1); }

  // Estimates of how often a prediction comes true, by length of match: 3, 4 to 5, 6 to 9, 10 to
  // 17, 18 to 33, and longer. They begin where answers of small models are on the whole.
  std::array<double, kLengths> chance_ = {0.4, 0.5, 0.6, 0.75, 0.85, 0.9};
  std::array<int, kLengths> n_seen_ = {};
  double slope_ = 0.35;
  int n_slopes_seen_ = 0;
  double token_seconds_ = 0;  // Of a pass of one token; 0: not known yet.
  int n_tokens_seen_ = 0;     // Such passes.
  double saved_passes_ = 0;
  int64_t n_written_ = 0;
};

}  // namespace coterie
