#include <cstdlib>

#include "gtest/gtest.h"

#include "tests/core/kernels/kernel_testing.h"

namespace coterie {
namespace {

TEST(KernelChoiceTest, ScalarIsAlwaysRunnableAndTheBestIsUsed) {
  ASSERT_FALSE(RunnableKernels().empty());
  EXPECT_EQ(RunnableKernels().front()->isa, "scalar");
  const char* wanted = std::getenv("COTERIE_ISA");
  if (wanted == nullptr) {
    EXPECT_EQ(&Kernels(), RunnableKernels().back());
  }
}

TEST(KernelChoiceTest, EveryTableIsComplete) {
  testing::OnEveryTable([](const KernelTable& k) {
    EXPECT_TRUE(k.dequantize_row && k.quantize_activations && k.matmul_q8 && k.matmul_f32);
    EXPECT_TRUE(k.rms_norm && k.layer_norm && k.softmax && k.silu_mul && k.gelu_erf);
    EXPECT_TRUE(k.gelu_tanh_mul && k.add && k.rope_adjacent && k.rope_halves && k.f32_to_f16);
    EXPECT_TRUE(k.attend);
  });
}

// Runs in a process of its own, because the choice is made once.
void ChooseUnder(const char* isa) {
  setenv("COTERIE_ISA", isa, 1);
  std::fprintf(stderr, "chose %.*s\n", static_cast<int>(Kernels().isa.size()),
               Kernels().isa.data());
  std::exit(0);
}

TEST(KernelChoiceDeathTest, TheEnvironmentNamesTheTable) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(ChooseUnder("scalar"), ::testing::ExitedWithCode(0), "chose scalar");
}

TEST(KernelChoiceDeathTest, AnUnknownNameIsReportedAndIgnored) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(ChooseUnder("mmx"), ::testing::ExitedWithCode(0), "COTERIE_ISA=mmx");
}

}  // namespace
}  // namespace coterie
