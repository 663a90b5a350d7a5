#include <cstring>
#include <fstream>
#include <iterator>

#include "gtest/gtest.h"

#include "tests/core/kernels/kernel_testing.h"

namespace coterie {
namespace {

struct GoldenTensor {
  TensorType type;
  std::vector<uint8_t> bytes;
  std::vector<float> values;
};

// Reads the file that make_dequantize_golden.py writes.
std::vector<GoldenTensor> ReadGolden() {
  std::ifstream file(COTERIE_TEST_DATA "/kernels/dequantize.bin", std::ios::binary);
  const std::vector<char> all{std::istreambuf_iterator<char>(file), {}};
  std::vector<GoldenTensor> tensors;
  size_t at = 0;
  const auto take = [&](void* to, size_t n) {
    if (at + n <= all.size()) std::memcpy(to, &all[at], n);
    at += n;
  };
  while (at < all.size()) {
    uint32_t header[3] = {};
    take(header, sizeof(header));
    GoldenTensor tensor{*TensorTypeFromGgmlId(header[0]), std::vector<uint8_t>(header[2]),
                        std::vector<float>(header[1])};
    take(tensor.bytes.data(), header[2]);
    take(tensor.values.data(), header[1] * sizeof(float));
    tensors.push_back(std::move(tensor));
  }
  EXPECT_EQ(at, all.size());
  return tensors;
}

TEST(DequantizeTest, EveryTypeIsBitEqualToTheGgufPackage) {
  const std::vector<GoldenTensor> tensors = ReadGolden();
  ASSERT_EQ(tensors.size(), static_cast<size_t>(kTensorTypeCount));
  testing::OnEveryTable([&](const KernelTable& kernels) {
    for (const GoldenTensor& tensor : tensors) {
      std::vector<float> values(tensor.values.size());
      kernels.dequantize_row(tensor.type, tensor.bytes.data(), static_cast<int64_t>(values.size()),
                             values.data());
      for (size_t i = 0; i < values.size(); ++i) {
        if (std::isnan(tensor.values[i]) && std::isnan(values[i])) continue;
        ASSERT_EQ(std::memcmp(&values[i], &tensor.values[i], 4), 0)
            << testing::NameOf(tensor.type) << " value " << i << ": " << values[i] << " against "
            << tensor.values[i];
      }
    }
  });
}

TEST(DequantizeTest, ARowOfAnyNumberOfBlocksGivesThatManyValues) {
  for (const TensorType type : testing::kAllTypes) {
    const int block = Traits(type).block_values;
    for (int n_blocks = 1; n_blocks <= 17; ++n_blocks) {
      const testing::RandomMatrix w(type, 1, n_blocks * block, 7);
      const std::vector<float> expected = w.Dequantized();
      testing::OnEveryTable([&](const KernelTable& kernels) {
        std::vector<float> values(expected.size() + 1, 12345.0f);
        kernels.dequantize_row(type, w.view().data, n_blocks * block, values.data());
        EXPECT_EQ(values.back(), 12345.0f) << "wrote past the end";
        values.pop_back();
        EXPECT_EQ(values, expected) << testing::NameOf(type) << " blocks: " << n_blocks;
      });
    }
  }
}

}  // namespace
}  // namespace coterie
