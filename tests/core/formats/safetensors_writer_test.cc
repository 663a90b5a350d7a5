#include "core/formats/safetensors_writer.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/fuzz/scratch_folder.h"
#include "tests/status_matchers.h"

namespace coterie {
namespace {

using ::testing::HasSubstr;

const std::vector<uint8_t> kBytes = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

TEST(SafetensorsWriterTest, TheReaderFindsWhatWasWritten) {
  const testing::ScratchFolder folder;
  SafetensorsWriter writer;
  writer.SetMetadata("format", "pt");
  writer.AddTensor("b", SafetensorsType::kF32, {1, 2}, {kBytes.data(), 8});
  writer.AddTensor("a", SafetensorsType::kF16, {2}, {kBytes.data() + 8, 4});
  COTERIE_ASSERT_OK(writer.Write(folder.path("x.safetensors")));
  COTERIE_ASSERT_OK_AND_ASSIGN(const auto file,
                               SafetensorsFile::Open(folder.path("x.safetensors")));
  EXPECT_EQ(file->metadata().at("format"), "pt");
  COTERIE_ASSERT_OK_AND_ASSIGN(const SafetensorsTensor b, file->Find("b"));
  EXPECT_EQ(b.shape, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(std::vector<uint8_t>(b.bytes.begin(), b.bytes.end()),
            std::vector<uint8_t>(kBytes.begin(), kBytes.begin() + 8));
  COTERIE_ASSERT_OK_AND_ASSIGN(const SafetensorsTensor a, file->Find("a"));
  EXPECT_EQ(a.type, SafetensorsType::kF16);
  EXPECT_EQ(a.bytes[0], 9);
}

TEST(SafetensorsWriterTest, MistakesOfTheCallerComeBackByName) {
  SafetensorsWriter wrong_size, twice, metadata_twice;
  wrong_size.AddTensor("short", SafetensorsType::kF32, {4}, kBytes);
  EXPECT_THAT(wrong_size.Serialize(),
              testing::StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'short'")));
  twice.AddTensor("same", SafetensorsType::kU8, {12}, kBytes);
  twice.AddTensor("same", SafetensorsType::kU8, {12}, kBytes);
  EXPECT_THAT(twice.Serialize(),
              testing::StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'same'")));
  metadata_twice.SetMetadata("format", "pt");
  metadata_twice.SetMetadata("format", "np");
  EXPECT_THAT(metadata_twice.Serialize(),
              testing::StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'format'")));
}

}  // namespace
}  // namespace coterie
