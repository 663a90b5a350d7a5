#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

namespace coterie::testing {

// The file of a model in the store ($COTERIE_HOME, default ~/.cache/coterie). Tests that call this
// carry the label "model".
inline std::string ModelFile(const std::string& name) {
  const char* home = std::getenv("COTERIE_HOME");
  const std::string store =
      home != nullptr ? std::string(home) : std::string(std::getenv("HOME")) + "/.cache/coterie";
  return store + "/models/" + name + ".gguf";
}

}  // namespace coterie::testing
