#include "core/base/quote.h"

#include "gtest/gtest.h"

namespace coterie {
namespace {

TEST(QuoteTest, HostileTextBecomesShortPrintableAscii) {
  EXPECT_EQ(Quote("plain"), "'plain'");
  EXPECT_EQ(Quote("a\n\xff'"), "'a\\n\\xff\\''");
  EXPECT_EQ(Quote(std::string(1000, 'x')), "'" + std::string(80, 'x') + "...'");
}

TEST(ShortMessageTest, LongMessagesAreCutBetweenCharacters) {
  EXPECT_EQ(ShortMessage("short"), "short");
  EXPECT_EQ(ShortMessage(std::string(3000, 'x')).size(), 2000u);
  const std::string wide = std::string(1999, 'x') + "\xc3\xa4" + std::string(10, 'y');
  EXPECT_EQ(ShortMessage(wide), std::string(1999, 'x'));
}

}  // namespace
}  // namespace coterie
