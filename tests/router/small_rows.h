#pragma once

// A few dozen prompts of three domains, made here: enough for the lexical tier to learn something.

#include <string>
#include <vector>

#include "router/labelled_prompt.h"

namespace coterie::testing {

inline std::vector<LabelledPrompt> SmallRows() {
  const std::vector<std::string> languages = {"python", "rust", "java", "ruby", "go", "kotlin"};
  const std::vector<std::string> shapes = {"circle",   "square", "cube",
                                           "triangle", "cone",   "sphere"};
  const std::vector<std::string> towns = {"Lima", "Oslo", "Cairo", "Quito", "Bern", "Riga"};
  std::vector<LabelledPrompt> rows;
  for (int i = 0; i < 6; ++i) {
    rows.push_back({"write a " + languages[i] + " function that sorts a list", "code", "a"});
    rows.push_back({"why does my " + languages[i] + " program crash with an error", "code", "b"});
    rows.push_back({"compute the area of a " + shapes[i] + " with radius 3", "math", "a"});
    rows.push_back({"what is the volume of this " + shapes[i] + ", solve it", "math", "b"});
    rows.push_back({"tell me about the history of " + towns[i], "general", "a"});
    rows.push_back({"what can I eat in " + towns[i] + " in winter", "general", "b"});
  }
  return rows;
}

}  // namespace coterie::testing
