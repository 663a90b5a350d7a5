#include "core/memory/aligned_buffer.h"

#include <cstdint>
#include <utility>

#include "gtest/gtest.h"

namespace coterie {
namespace {

TEST(AlignedBufferTest, IsZeroedAlignedAndWritable) {
  AlignedBuffer buffer(100'000);
  ASSERT_NE(buffer.data(), nullptr);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
  int64_t n_nonzero = 0;
  for (int64_t i = 0; i < buffer.bytes(); ++i) n_nonzero += buffer.data()[i] != 0;
  EXPECT_EQ(n_nonzero, 0);
  buffer.as<float>()[24'999] = 1.5f;
  EXPECT_EQ(std::as_const(buffer).as<float>()[24'999], 1.5f);
}

TEST(AlignedBufferTest, AnEmptyBufferHasNoData) {
  EXPECT_EQ(AlignedBuffer().data(), nullptr);
  EXPECT_EQ(AlignedBuffer(0).data(), nullptr);
}

TEST(AlignedBufferTest, MovingHandsOverTheBytes) {
  AlignedBuffer first(64);
  first.data()[0] = 7;
  const AlignedBuffer second(std::move(first));
  EXPECT_EQ(first.data(), nullptr);
  EXPECT_EQ(second.data()[0], 7);
}

}  // namespace
}  // namespace coterie
