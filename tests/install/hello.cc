#include <iostream>
#include "runtime/assistant.h"

int main() {
  auto assistant = coterie::Assistant::Open(*coterie::Configuration::Default());
  if (!assistant.ok()) { std::cerr << assistant.status() << "\n"; return 1; }
  coterie::Request request{.messages = {{"user", "Say hello in French.", ""}}};
  auto reply = (*assistant)->Generate(request, [](absl::string_view text) { std::cout << text; return true; }, {});
  std::cout << (reply.ok() ? "\n-- " + reply->expert : reply.status().ToString()) << "\n";
}
