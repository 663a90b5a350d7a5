#pragma once

#include <cstdlib>

namespace coterie {

// The arguments of a program as whole numbers: number(i, what stands for the i-th if there is
// none).
class Numbers {
 public:
  Numbers(int argc, char** argv) : argc_(argc), argv_(argv) {}
  int operator()(int i, int fallback) const { return i < argc_ ? std::atoi(argv_[i]) : fallback; }

 private:
  int argc_;
  char** argv_;
};

}  // namespace coterie
