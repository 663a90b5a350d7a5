#include "experts/decoder.h"

#include <stop_token>
#include <string>

#include "gtest/gtest.h"

namespace coterie {
namespace {

// Writes down which operations ran, and asks for an end inside one layer.
struct RecordingBackend {
  void Embed(const MatrixView&) { ran += "e"; }
  void NormQkvRopeAppend(int64_t layer, const LayerWeights&) {
    ran += "q";
    if (layer == stop_in_layer) stop.request_stop();
  }
  void Attend(int64_t) { ran += "a"; }
  void ProjectResidual(int64_t, const LayerWeights&) { ran += "o"; }
  void NormGateUpActivate(int64_t, const LayerWeights&) { ran += "g"; }
  void DownResidual(int64_t, const LayerWeights&) { ran += "d"; }
  void NormHead(const float*, const LinearWeights&) { ran += "h"; }

  std::string ran;
  int64_t stop_in_layer = -1;
  std::stop_source stop;
};

TEST(DecoderTest, StopsBetweenTwoLayersAndThenCountsNoTokens) {
  ArchSpec spec;
  spec.n_layers = 3;
  DecoderWeights weights;
  weights.layers.resize(3);
  RecordingBackend whole;
  EXPECT_TRUE(RunDecoder(spec, weights, whole, whole.stop.get_token()));
  EXPECT_EQ(whole.ran, "eqaogdqaogdqaogdh");
  RecordingBackend stopped;
  stopped.stop_in_layer = 1;
  EXPECT_FALSE(RunDecoder(spec, weights, stopped, stopped.stop.get_token()));
  EXPECT_EQ(stopped.ran, "eqaogdqaogd");
}

}  // namespace
}  // namespace coterie
