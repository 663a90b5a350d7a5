#include "experts/token_lookup.h"

#include <algorithm>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace coterie {
namespace {

using ::testing::ElementsAre;

TokenLookup LookupOf(const std::vector<TokenId>& tokens) {
  TokenLookup lookup(1000);
  for (const TokenId token : tokens) lookup.Append(token);
  return lookup;
}

std::vector<TokenId> ProposalOf(const TokenLookup& lookup, size_t n) {
  std::vector<TokenId> proposal(n);
  if (!lookup.Propose(absl::MakeSpan(proposal))) proposal.clear();
  return proposal;
}

TEST(TokenLookupTest, ThreeTokensThatStoodBeforeAreFollowedByWhatFollowedThem) {
  const TokenLookup lookup = LookupOf({1, 2, 3, 4, 5, 9, 1, 2, 3});
  EXPECT_EQ(lookup.match_length(), 3);
  EXPECT_EQ(lookup.next(), 4);
  EXPECT_THAT(ProposalOf(lookup, 3), ElementsAre(4, 5, 9));
}

TEST(TokenLookupTest, TwoTokensAreNotEnough) {
  const TokenLookup lookup = LookupOf({1, 2, 3, 4, 9, 2, 3});
  EXPECT_EQ(lookup.match_length(), 0);
  EXPECT_THAT(ProposalOf(lookup, 3), ElementsAre());
}

TEST(TokenLookupTest, ConversationsShorterThanAMatchProposeNothing) {
  TokenLookup lookup(8);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(lookup.match_length(), 0);
    lookup.Append(7);
  }
}

TEST(TokenLookupTest, APlaceIsKeptAsLongAsItProvesRight) {
  TokenLookup lookup = LookupOf({1, 2, 3, 4, 5, 6, 0, 1, 2, 3});
  for (const TokenId token : {4, 5, 6}) {
    EXPECT_EQ(lookup.next(), token);
    lookup.Append(token);
  }
  EXPECT_EQ(lookup.match_length(), 6);
  lookup.Append(9);  // There it was 0.
  EXPECT_EQ(lookup.match_length(), 0);
}

TEST(TokenLookupTest, TheLongestOfSeveralPlacesIsTaken) {
  const TokenLookup lookup = LookupOf({5, 1, 2, 3, 10, 6, 1, 2, 3, 20, 8, 5, 1, 2, 3});
  EXPECT_EQ(lookup.match_length(), 4);
  EXPECT_EQ(lookup.next(), 10) << "the later place has only three tokens in common";
}

TEST(TokenLookupTest, TheLatestOfEquallyLongOnesIsTaken) {
  const TokenLookup lookup = LookupOf({7, 1, 2, 3, 10, 6, 1, 2, 3, 20, 8, 1, 2, 3});
  EXPECT_EQ(lookup.next(), 20);
}

TEST(TokenLookupTest, WhatRepeatsItselfIsProposedBeyondTheEnd) {
  const TokenLookup lookup = LookupOf({1, 2, 1, 2, 1});
  EXPECT_THAT(ProposalOf(lookup, 6), ElementsAre(2, 1, 2, 1, 2, 1));
  EXPECT_THAT(ProposalOf(LookupOf({4, 4, 4, 4}), 3), ElementsAre(4, 4, 4));
}

TEST(TokenLookupTest, EveryMatchIsTrueHoweverTheHashesFall) {
  std::mt19937 random(3);
  std::vector<TokenId> tokens;
  TokenLookup lookup(4000);
  int64_t n_matches = 0;
  for (int i = 0; i < 4000; ++i) {
    tokens.push_back(static_cast<TokenId>(random() % 12));
    lookup.Append(tokens.back());
    const int64_t length = lookup.match_length();
    if (length == 0) continue;
    ++n_matches;
    // Some place has these tokens before it and that one at it.
    std::vector<TokenId> wanted(tokens.end() - length, tokens.end());
    wanted.push_back(lookup.next());
    ASSERT_NE(std::search(tokens.begin(), tokens.end(), wanted.begin(), wanted.end()),
              tokens.end());
  }
  EXPECT_GT(n_matches, 2000);
}

TEST(TokenLookupTest, ItsBytesAreAFewForEachToken) {
  EXPECT_LE(TokenLookup::Bytes(4096), 4096 * 12);
  EXPECT_LE(TokenLookup::Bytes(4097), 4097 * 16);
}

}  // namespace
}  // namespace coterie
