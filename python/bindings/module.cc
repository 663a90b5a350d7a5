#include "python/bindings/bindings.h"

PYBIND11_MODULE(_coterie, module) {
  module.doc() = "The compiled part of coterie; use `import coterie`.";
  coterie::BindExpert(module);
  coterie::BindRouter(module);
  coterie::BindAssistant(module);
}
