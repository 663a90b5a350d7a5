// write_fuzz_seeds FOLDER: writes every target's seeds to FOLDER/TARGET/.

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"

#include "tests/fuzz/targets.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
    return 2;
  }
  for (const auto& target : coterie::testing::FuzzTargets()) {
    const std::filesystem::path folder = std::filesystem::path(argv[1]) / target.name;
    std::filesystem::create_directories(folder);
    int n = 0;
    for (const std::string& seed : target.seeds()) {
      std::ofstream(folder / absl::StrCat("seed", n++), std::ios::binary) << seed;
    }
    std::printf("%s: %d seeds\n", target.name, n);
  }
  return 0;
}
