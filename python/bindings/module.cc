#include "python/bindings/bindings.h"
#include "python/bindings/native_thread.h"

PYBIND11_MODULE(_coterie, module) {
  module.doc() = "The compiled part of coterie; use `import coterie`.";
  coterie::StopNativeThreadsAtExit();
  coterie::BindAdapter(module);
  coterie::BindExpert(module);
  coterie::BindRouter(module);
  coterie::BindAssistant(module);
  coterie::BindInteractions(module);
  coterie::BindSimulation(module);
  coterie::BindTraining(module);
}
